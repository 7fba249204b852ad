"""What a step tells: operations against torch's own counter, and every number in JSONL and TensorBoard."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kling.model.dit import DiT
from train.batches import Batch, Batches, make_order
from train.cache import open_split
from train.checkpoint import Progress
from train.config import TrainRun
from train.metrics import Meter
from train.mfu import peak_flops, step_flops
from train.objective import Draw, by_noise_level, draw, loss_of
from train.ranks import Ranks
from train.watch import Verdict

CPU = Ranks(rank=0, world=1, local_rank=0, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def run(dataset: str, encoders: str, tmp_path_factory) -> TrainRun:
    out = tmp_path_factory.mktemp("metrics")
    return TrainRun(preset="tiny", data=dataset, out=str(out), weights=encoders, batch_size=4, num_workers=1)


@pytest.fixture(scope="module")
def batches(run: TrainRun, encoders: str, small) -> Batches:
    split = open_split(run.data, "train", small, encoders, Path(run.out), CPU)
    return Batches(split, make_order(split, run, small), rank=0, ranks=1)


def drawn_of(batches: Batches, run: TrainRun, step: int, **objective) -> tuple[Batch, Draw]:
    batch = batches.make(step)
    return batch, draw(batch, replace(run.objective, **objective), seed=0, shift=3.0)


@pytest.mark.parametrize("objective", [{"chunk_share": 0.0, "first_frame_share": 0.0}, {"chunk_share": 1.0}])
def test_operations_are_those_that_torch_counts(run, batches, small, objective):
    batch, drawn = drawn_of(batches, run, 0, **objective)
    model = DiT(small.dit)
    # The counter does not know the CPU's fused kernel.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss_of(model, batch, drawn)[0].backward()
    assert step_flops(small, drawn, times=3) == pytest.approx(3 * counter.get_total_flops(), rel=0.05)


def test_a_peak_says_where_it_is_from():
    flops, source = peak_flops(torch.device("cpu"))
    assert flops > 1e8
    assert source.startswith("measured") and "float32" in source


def test_every_number_is_in_both_files(run, batches, small):
    from train.trainer import Gauges

    batch, drawn = drawn_of(batches, run, 0)
    meter = Meter(run, small, CPU, Path(run.out), 0)
    loss, error = loss_of(DiT(small.dit), batch, drawn)
    mean, levels = meter.over_ranks(loss, by_noise_level(error, drawn))
    record = meter.record(Progress(step=1, data_step=1), batch, mean, levels, Verdict.TAKE)
    record |= {"lr": 1e-3, "grad_norm": 1.0, "val_loss": 1.0, "val_loss_text": 1.0}
    meter.timed(record, drawn, step_s=0.5, waited_s=0.1)
    meter.write(record)
    meter.close()
    line = json.loads(Path(run.out, "metrics.jsonl").read_text().splitlines()[-1])
    board = EventAccumulator(str(Path(run.out, "tensorboard")))
    board.Reload()
    on_board = set(board.Tags()["scalars"])
    assert any(name.startswith("loss_t_") for name in line)
    for name in Gauges.NAMES:
        if name.startswith("loss_t_") and name not in record:
            continue  # no clip of this step was so noisy
        assert name in line
        assert name in on_board or name == "step"
    told = json.loads(Path(run.out, "events.jsonl").read_text().splitlines()[0])
    assert line["mfu"] == pytest.approx(step_flops(small, drawn, 1) / 0.5 / told["flops"])
    assert line["tokens_per_s"] == pytest.approx(line["tokens"] / 0.5)
