"""The bench runs, its ratios are ratios, and its floor does the model's matrix products and no others."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kling.bench.__main__ import dispatch
from kling.bench.model import Floor, Size, _inputs
from kling.bench.race import race, ratio
from kling.errors import ConfigError

SIZE = Size(num_heads=2, num_layers=2, grid=(3, 4, 4), head_dim=16, text_tokens=8)


@pytest.mark.slow
def test_the_tables_are_written_where_the_page_has_room(tmp_path, capsys):
    page = tmp_path / "model.md"
    marks = [f"<!-- python -m kling.bench model: {n} -->\nold\n<!-- end: {n} -->\n" for n in ("speed", "bytes")]
    page.write_text("before\n" + "between\n".join(marks) + "after\n")
    assert dispatch(["model", "--quick", "--pairs", "2", "--only", "speed", "bytes", "--out", str(page)]) == 0
    text = page.read_text()
    assert "old" not in text and "before" in text and "between" in text and text.endswith("after\n")
    assert text.count("forward + backward") == 1 and "| 301 |" in text
    assert dispatch(["model", "--quick", "--pairs", "2", "--only", "window", "memory", "flops"]) == 0
    shown = capsys.readouterr().out
    assert "full attention" in shown and "counted GFLOP" in shown
    with pytest.raises(ConfigError, match="no place"):
        dispatch(["model", "--quick", "--only", "memory", "--out", str(page)])


def test_unknown_benches_are_named():
    with pytest.raises(ConfigError, match="model"):
        dispatch(["modle"])


def test_a_race_takes_turns_and_compares_round_by_round():
    turns = []
    seconds = race({name: lambda name=name: turns.append(name) for name in "ab"}, rounds=3, least_s=0)
    assert "".join(turns).endswith("ababab")
    assert [len(times) for times in seconds.values()] == [3, 3]
    got = ratio({"slow": [2.0, 9.0, 4.0], "fast": [1.0, 3.0, 2.0]}, "slow", "fast")
    assert (got.low, got.median, got.high) == (2.0, 2.0, 3.0)


def test_the_floor_and_the_rivals_do_the_same_products():
    dit, latents, t, text, theirs = _inputs(SIZE)
    floor = Floor(SIZE.config)
    context = dit.prepare(text)
    tokens = torch.randn(1, 48, 64)

    def count(call):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
        return counter.get_total_flops()

    embedding = 2 * (256 + 7 * SIZE.config.width) * SIZE.config.width  # of the diffusion time, not in the floor
    assert count(lambda: floor(tokens, context.text)) == count(lambda: dit(latents, t, context)) - embedding
    assert count(lambda: floor(tokens, text)) == count(lambda: dit(latents, t, text)) - embedding
    assert count(lambda: theirs(latents, 1000 * t, text)) == count(lambda: dit(latents, t, text))


def test_the_rivals_share_weights():
    dit, latents, t, text, theirs = _inputs(SIZE)
    with torch.no_grad():
        torch.testing.assert_close(dit(latents, t, text), theirs(latents, 1000 * t, text).sample, atol=1e-5, rtol=1e-4)
