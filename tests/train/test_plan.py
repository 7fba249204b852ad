"""The plan against arithmetic done by other means."""

import subprocess
import sys
from dataclasses import replace

import pytest

from kling.errors import ConfigError
from train.__main__ import main
from train.plan import GPUS, PlanRequest, checked_plan, describe, make_plan

from .launch import ROOT


def test_states_are_divided_as_zero_says():
    """12.2e9 parameters, 64 ranks: 2 + 2 + 12 bytes each, divided from their stage on; 4 of the average, always."""
    base = PlanRequest(preset="12b", nodes=8)
    for stage, whole in ((0, 3), (1, 2), (2, 1), (3, 0)):
        plan = make_plan(replace(base, zero_stage=stage))
        parts = [plan.memory.optimizer - 4 * plan.num_parameters / 64, plan.memory.gradients, plan.memory.parameters]
        n = plan.num_parameters
        assert parts == pytest.approx([b * (n if i >= 3 - whole else n / 64) for i, b in enumerate((12, 2, 2))])


def test_flops_follow_six_n_d_and_attention():
    """6 x parameters x tokens is the floor for a step; attention and recomputation add to it."""
    plan = make_plan(PlanRequest(preset="12b"))
    floor = 6 * plan.num_parameters * plan.tokens_per_step
    assert 0.8 * floor < plan.flops_per_step < 3 * floor
    twice = make_plan(PlanRequest(preset="12b", clips_per_group=2))
    assert twice.flops_per_step == pytest.approx(2 * plan.flops_per_step)


def test_a_plan_that_does_not_fit_names_one_that_does():
    request = PlanRequest(preset="12b", zero_stage=1, sequence_parallel=1, clips_per_group=4)
    with pytest.raises(ConfigError, match="can be used") as caught:
        checked_plan(request)
    words = caught.value.fix.split()
    named = {w[2:].replace("-", "_"): words[i + 1] for i, w in enumerate(words) if w.startswith("--")}
    fields = {k: int(v) for k, v in named.items() if k != "activation_checkpointing"}
    assert set(fields) == {"nodes", "zero_stage", "sequence_parallel", "clips_per_group", "micro_batches"}
    assert checked_plan(replace(request, activation_checkpointing=True, **fields)).fits


def test_more_ranks_hold_less_and_cost_the_same_compute():
    plans = [make_plan(PlanRequest(preset="12b", nodes=n)) for n in (1, 8, 64)]
    totals = [p.total_bytes for p in plans]
    assert totals == sorted(totals, reverse=True)
    assert "12" in describe(plans[0])


def test_impossible_requests():
    with pytest.raises(ConfigError, match="unknown GPU"):
        PlanRequest(preset="12b", gpu="abacus")
    with pytest.raises(ConfigError, match="8 GPUs of a node do not divide"):
        PlanRequest(preset="12b", sequence_parallel=3)
    with pytest.raises(ConfigError, match="12 heads do not divide"):
        PlanRequest(preset="1.3b", sequence_parallel=8)
    with pytest.raises(ConfigError, match="do not divide into passes"):
        PlanRequest(preset="12b", clips_per_group=3, micro_batches=2)
    with pytest.raises(ConfigError, match=r"above zero: --nodes 0"):
        PlanRequest(preset="12b", nodes=0)
    assert set(GPUS) == {"a100-80gb", "h100-80gb"}


def test_more_passes_are_the_nearest_plan_of_a_batch_that_is_too_large():
    """They cost time on the links only: same GPUs, same clips."""
    request = PlanRequest(preset="12b", clips_per_group=16)
    with pytest.raises(ConfigError) as caught:
        checked_plan(request)
    assert "--nodes 1 --zero-stage 3 --sequence-parallel 8 --clips-per-group 16 --micro-batches" in caught.value.fix
    one, two = (make_plan(replace(request, micro_batches=passes)) for passes in (1, 2))
    assert two.memory.activations == pytest.approx(one.memory.activations / 2)
    assert two.flops_per_step == one.flops_per_step and two.tokens_per_step == one.tokens_per_step


def test_bytes_on_the_links_by_hand():
    """ZeRO-3 moves 2 bytes a parameter three times, less what stays; attention 4 vectors a token, layer and pass."""
    plan = make_plan(PlanRequest(preset="12b", nodes=8))
    moved = 3 * 2 * 12_197_785_024 * 63 / 64
    assert plan.network_bytes == pytest.approx(moved)
    ulysses = 3 * 34 * 4 * (31 * 22 * 40 / 8) * 5120 * 2 * 7 / 8
    assert plan.node_link_bytes == pytest.approx(moved + ulysses)
    assert plan.tokens_per_step == 8 * 31 * 22 * 40
    seconds = plan.flops_per_step / (64 * 312e12 * 0.30) + ulysses / 300e9
    assert (plan.step_s, plan.days) == pytest.approx((seconds, seconds * 100_000 / 86_400))
    assert plan.usd == pytest.approx(plan.days * 24 * 64 * 2.5)


@pytest.mark.parametrize("preset", ["tiny", "300m", "1.3b", "5b", "12b", "14b"])
def test_every_preset_has_a_plan_by_default(preset: str, capsys):
    main(["plan", preset])
    assert "memory a GPU" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_is_within_ten_percent_of_the_measured_peak():
    """Ranks of this machine, each kind of arrangement once; all of them: `python -m train measure`."""
    command = [sys.executable, "-m", "train", "measure", "--only", "memory", "--cases", "few"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=True)
    rows = [line.split("|") for line in done.stdout.splitlines() if "M |" in line]
    assert len(rows) == 4
    for row in rows:
        plan, measured = float(row[4]), float(row[5])
        assert plan == pytest.approx(measured, rel=0.1), row
