"""The dry run builds what can be built without GPUs, and refuses what would fail on them."""

from dataclasses import replace

import pytest

from kling.errors import ConfigError
from kling.presets import get_preset
from train.__main__ import main
from train.config import TrainRun, scale_of
from train.dry import Nodes, dry_run, read_by_deepspeed

PRESET = get_preset("12b")
RUN = TrainRun(preset="12b", data="s3://b/data", out="s3://b/run", **scale_of(PRESET))


def test_the_command_says_what_would_run(capsys):
    main(["12b", "--num-workers", "64", "--batch-size", "8", "--dry-run"])
    told = capsys.readouterr().out
    for words in ("12,197,785,024 parameters", "64 on 8 nodes of 8 a100-80gb", '"stage": 3', "Nothing was started"):
        assert words in told


def test_the_engine_is_that_of_the_plan():
    dry = dry_run(RUN, PRESET, Nodes())
    assert dry.num_parameters == dry.plan.num_parameters
    assert dry.plan.fits and dry.plan.total_bytes < 40e9
    assert dry.deepspeed["zero_optimization"]["stage"] == 3 and dry.deepspeed["bf16"]["enabled"]
    assert dry.reserved["GPU"] == 8


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"num_workers": 12, "sequence_parallel": 4}, "leave a node of 8 GPUs partly empty"),
        ({"num_workers": 16, "sequence_parallel": 16}, "would lie across nodes"),
        ({"num_workers": 16, "batch_size": 3}, "does not divide over 2 ranks"),
        ({"zero_stage": 1}, "the plan needs .* and 73.6 GB can be used"),
        ({"activation_checkpointing": "none", "batch_size": 4}, "the plan needs"),
    ],
)
def test_what_would_fail_is_refused(changed, reason):
    with pytest.raises(ConfigError, match=reason):
        dry_run(replace(RUN, **changed), PRESET, Nodes())


def test_heads_that_do_not_divide():
    run = TrainRun(preset="1.3b", data="d", out="o", num_workers=8, sequence_parallel=8, batch_size=8)
    with pytest.raises(ConfigError, match=r"12 heads do not divide over 8 ranks"):
        dry_run(run, get_preset("1.3b"), Nodes())


def test_deepspeed_itself_reads_the_dictionary():
    config = dry_run(RUN, PRESET, Nodes()).deepspeed
    with pytest.raises(ConfigError, match="DeepSpeed refuses"):
        read_by_deepspeed(config | {"zero_optimization": {"stage": 7}}, RUN)
    with pytest.raises(ConfigError, match="DeepSpeed refuses"):
        read_by_deepspeed(config | {"train_micro_batch_size_per_gpu": 0}, RUN)


def test_other_nodes():
    assert dry_run(RUN, PRESET, Nodes(gpu="h100-80gb")).plan.request.gpu == "h100-80gb"
    with pytest.raises(ConfigError, match="no such nodes"):
        Nodes(gpu="abacus")
