"""The same losses on any number of ranks, with films or without, after any kill, and on other ranks than before."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kling.media.video import read_frames

from .conftest import make_job
from .launch import launch, losses

STEPS = 50
ADAM = {"warmup": 5, "lr": 2e-3}  # twice the usual: in 50 steps something is to be learned
MUON = {**ADAM, "kind": "muon"}


@pytest.fixture(scope="module")
def curves(tmp_path_factory, dataset: str, encoders: str) -> dict[str, dict[int, float]]:
    """Loss curves of one run on several arrangements of ranks."""
    root = tmp_path_factory.mktemp("curves")
    arrangements = {
        "1": {"world": 1},
        "2": {"world": 2, "validate_every": 25, "films_every": 25, "num_films": 2, "film_steps": 2},
        "4": {"world": 4},
        "zero 3 on 2": {"world": 2, "zero_stage": 3},
        "2 ranks a clip": {"world": 2, "sequence_parallel": 2},
        "muon, 1": {"world": 1, "optimizer": MUON},
        "muon, 2": {"world": 2, "optimizer": MUON},
        "muon, zero 3 on 2": {"world": 2, "zero_stage": 3, "optimizer": MUON},
    }
    launch(
        [make_job(root / name, dataset, encoders, **{"optimizer": ADAM, **how}) for name, how in arrangements.items()]
    )
    films = read_frames(root / "2" / "samples" / "step-000050.mp4")[0]
    assert films.shape == (17, 2 * 64, 3 * 64, 3)  # two clips; each as it is, with its plan, from text alone
    assert films.std() > 1
    told = {line["step"]: line for line in map(json.loads, (root / "2" / "metrics.jsonl").read_text().splitlines())}
    assert [step for step, line in told.items() if line.get("film_s", 0) > 0] == [25, 50]
    board = EventAccumulator(str(root / "2" / "tensorboard"))
    board.Reload()
    assert [(image.step, image.width) for image in board.Images("held_out")] == [(25, 576), (50, 576)]
    return {name: losses(root / name) for name in arrangements}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["2", "4", "zero 3 on 2", "2 ranks a clip"])
def test_any_ranks_give_the_same_losses(curves, name: str):
    assert len(curves["1"]) == STEPS
    assert curves[name] == pytest.approx(curves["1"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["muon, 2", "muon, zero 3 on 2"])
def test_muon_on_any_ranks_gives_the_same_losses(curves, name: str):
    assert curves["muon, 1"][STEPS] != curves["1"][STEPS]
    assert curves[name] == pytest.approx(curves["muon, 1"], rel=1e-5)


@pytest.mark.parametrize("name", ["1", "muon, 1"])
def test_the_loss_falls(curves, name: str):
    values = list(curves[name].values())
    assert sum(values[-10:]) < 0.97 * sum(values[:10])  # random latents: only their scale can be learned


def test_three_ranks_give_the_losses_of_one_and_one_goes_on_for_three(tmp_path, dataset: str, encoders: str):
    """37 clips, 9 a step: nothing divides anything but the batch."""

    def job(name: str, world: int, **how) -> dict:
        given = {"optimizer": ADAM, "batch_size": 9, "steps": 12, "checkpoint_every": 4, **how}
        return make_job(tmp_path / name, dataset, encoders, world, **given)

    killed = job("three", 3, zero_stage=3, kill={"rank": 1, "after_step": 6})
    launch([job("one", 1), killed, job("three", 1, zero_stage=3)])
    assert losses(tmp_path / "three") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert len(losses(tmp_path / "three")) == 12
