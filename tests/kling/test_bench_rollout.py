"""Long clips judged by their parts."""

import pytest

from kling.bench.rollout import Rollout, tables
from kling.errors import ConfigError


def test_every_part_of_both_ways_is_judged(tiny_weights: str):
    head, _, *rows = tables(Rollout(weights=tiny_weights, times=2, steps=1, num_prompts=2))
    assert head.startswith("| 2 times the training length | part 1 | part 2 |")
    assert [row.split(":")[0] for row in rows] == ["| chunk by chunk"] * 3 + ["| at once"] * 3
    assert all(row.count("[") == 2 for row in rows), "an interval for each part"
    assert rows[0].endswith(" of 2 |")


@pytest.mark.parametrize("wrong", [{"times": 0}, {"chunk": 0}, {"num_prompts": 0}])
def test_impossible_numbers_are_one_line(wrong: dict):
    with pytest.raises(ConfigError, match="1 or more"):
        Rollout(**wrong)
