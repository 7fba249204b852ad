"""Harmful losses are skipped; a run of them rolls back."""

import math

import pytest

from train.optimizer import orthogonal, schedule
from train.watch import LossWatch, Verdict


def test_not_finite_is_skipped_then_rolled_back():
    watch = LossWatch(patience=3)
    verdicts = [watch.judge(loss) for loss in (1.0, math.nan, math.inf, 1.0, math.nan, math.nan, math.nan)]
    T, S, R = Verdict.TAKE, Verdict.SKIP, Verdict.ROLL_BACK
    assert verdicts == [T, S, S, T, S, S, R]


def test_a_spike_is_skipped_and_noise_is_not():
    watch = LossWatch(least=20)
    for i in range(100):
        assert watch.judge(1.0 + 0.2 * math.sin(i)) is Verdict.TAKE
    assert watch.judge(1.6) is Verdict.TAKE
    assert watch.judge(5.0) is Verdict.SKIP
    assert watch.judge(1.1) is Verdict.TAKE


def test_the_watch_continues_where_it_was():
    watch, other = LossWatch(least=5), LossWatch(least=5)
    for i in range(30):
        watch.judge(1 + 0.01 * i)
    other.load(watch.state())
    assert other.judge(9.0) is watch.judge(9.0) is Verdict.SKIP


@pytest.mark.parametrize("kind", ["constant", "cosine", "wsd"])
def test_schedules_warm_up_and_end(kind):
    rate = schedule(kind, num_steps=100, warmup=10, floor=0.1)
    assert rate(0) == pytest.approx(0.1) and rate(9) == 1 and rate(50) <= 1
    assert rate(100) == pytest.approx(1.0 if kind == "constant" else 0.1)


def test_orthogonal_updates():
    import torch

    torch.manual_seed(0)
    for shape in ((8, 32), (32, 8)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.min() > 0.3 and values.max() < 1.4
