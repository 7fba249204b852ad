"""The plan against arithmetic done by other means."""

from dataclasses import replace

import pytest

from kling.errors import ConfigError
from train.plan import GPUS, PlanRequest, checked_plan, describe, make_plan


def test_states_are_divided_as_zero_says():
    """12.2e9 parameters, 64 ranks: 2 + 2 + 16 bytes each (with the average), divided from their stage on."""
    base = PlanRequest(preset="12b", nodes=8)
    for stage, whole in ((0, 3), (1, 2), (2, 1), (3, 0)):
        plan = make_plan(replace(base, zero_stage=stage))
        parts = [plan.optimizer_bytes / 16, plan.gradients_bytes / 2, plan.parameters_bytes / 2]
        n = plan.num_parameters
        assert parts == pytest.approx([n if i >= 3 - whole else n / 64 for i in range(3)])


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
    fields = {k: int(named[k]) for k in ("nodes", "zero_stage", "sequence_parallel", "clips_per_group")}
    assert checked_plan(replace(request, activation_checkpointing=True, **fields)).fits


def test_more_ranks_hold_less_and_cost_the_same_compute():
    plans = [make_plan(PlanRequest(preset="12b", nodes=n)) for n in (1, 8, 64)]
    totals = [p.total_bytes for p in plans]
    assert totals == sorted(totals, reverse=True)
    assert "12" in describe(plans[0])


def test_impossible_requests():
    with pytest.raises(ConfigError, match="unknown GPU"):
        PlanRequest(preset="12b", gpu="abacus")
    with pytest.raises(ConfigError, match="do not divide"):
        PlanRequest(preset="12b", sequence_parallel=3)
    assert set(GPUS) == {"a100-80gb", "h100-80gb"}
