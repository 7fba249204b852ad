"""The order of clips, and the batches made of it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kling.errors import ConfigError, InputError
from train.batches import Batches, Order, bucket_batch_size, check_divides, make_order
from train.cache import Split, open_split
from train.config import ObjectiveConfig, TrainRun
from train.objective import cell_weight, draw, loss_of
from train.ranks import Ranks

ALONE = Ranks(rank=0, world=1, local_rank=0, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def split(tmp_path_factory, dataset: str, encoders: str, small) -> Split:
    return open_split(dataset, "train", small, encoders, tmp_path_factory.mktemp("cache"), ALONE)


def make_run(dataset: str, **changed) -> TrainRun:
    return TrainRun(preset="tiny", data=dataset, out="unused", **{"batch_size": 8, "num_workers": 1, **changed})


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4), seed=st.integers(0, 99), step=st.integers(0, 3000))
def test_order_depends_on_seed_and_step_alone(sizes, seed, step):
    batch_sizes = [4] * len(sizes)
    asked_at_once = Order(sizes, batch_sizes, seed)
    walked = Order(sizes, batch_sizes, seed)
    for earlier in range(max(0, step - 3), step):
        walked.clips(earlier)
    assert asked_at_once.bucket(step) == walked.bucket(step)
    assert np.array_equal(asked_at_once.clips(step), walked.clips(step))


def test_every_clip_is_seen_equally_often():
    """29 and 8 clips, batches of 8 and 4: no clip is dropped at the end of an epoch, in either bucket."""
    order = Order([29, 8], [8, 4], seed=3)
    seen = Counter()
    for step in range(2000):
        seen.update((order.bucket(step), int(clip)) for clip in order.clips(step))
    assert len(seen) == 37
    for bucket in (0, 1):
        counts = [n for (b, _), n in seen.items() if b == bucket]
        assert max(counts) - min(counts) <= 1
    per_clip = [sum(n for (b, _), n in seen.items() if b == bucket) / size for bucket, size in ((0, 29), (1, 8))]
    assert per_clip[0] == pytest.approx(per_clip[1], rel=0.15)


def test_parts_of_a_batch_are_the_batch(split, dataset, small):
    """Micro-batches: the same clips, and the same draws for each of them."""
    run = make_run(dataset)
    batch = Batches(split, make_order(split, run, small), rank=0, ranks=1).make(0)
    parts = batch.parts(4)
    assert sum((part.places for part in parts), ()) == batch.places
    assert sum((part.clip_ids for part in parts), ()) == batch.clip_ids
    whole = draw(batch, run.objective, seed=0, shift=3.0)
    drawn = [draw(part, run.objective, seed=0, shift=3.0) for part in parts]
    for name in ("noisy", "time", "text"):
        assert torch.equal(torch.cat([getattr(d, name) for d in drawn]), getattr(whole, name))
    assert torch.equal(torch.cat([d.controls.objects for d in drawn]), whole.controls.objects)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_one_global_batch(split, dataset, small, ranks: int):
    run = make_run(dataset)
    order = make_order(split, run, small)
    for step in range(12):
        whole = Batches(split, order, rank=0, ranks=1).make(step)
        parts = [Batches(split, order, rank=r, ranks=ranks).make(step) for r in range(ranks)]
        assert {part.bucket for part in parts} == {whole.bucket}
        assert len({len(part.clip_ids) for part in parts}) == 1
        assert sum((part.clip_ids for part in parts), ()) == whole.clip_ids
        assert torch.equal(torch.cat([part.latents for part in parts]), whole.latents)


def test_random_choices_belong_to_the_sample(split, dataset, small):
    """Noise, times and what is dropped are the same whichever rank draws them."""
    run, config = make_run(dataset), ObjectiveConfig(chunk_share=0.5, first_frame_share=0.5)
    order = make_order(split, run, small)
    for step in range(8):
        whole = draw(Batches(split, order, rank=0, ranks=1).make(step), config, seed=0, shift=3.0)
        half = draw(Batches(split, order, rank=1, ranks=2).make(step), config, seed=0, shift=3.0)
        rest = len(whole.time) // 2
        assert whole.chunk == half.chunk
        for name in ("noisy", "noise", "time", "weight"):
            assert torch.equal(getattr(whole, name)[rest:], getattr(half, name)), name
        assert torch.equal(whole.controls.objects[rest:], half.controls.objects)


def test_what_is_dropped_and_given(split, dataset, small):
    run = make_run(dataset)
    batch = Batches(split, make_order(split, run, small), rank=0, ranks=1).make(0)
    everything = ObjectiveConfig(
        text_dropout=1, control_dropout=1, chunk_share=1, chunk_frames=(2,), first_frame_share=1
    )
    drawn = draw(batch, everything, seed=0, shift=3.0)
    assert not drawn.controls.objects.any() and not drawn.controls.camera.any() and not drawn.controls.floor.any()
    assert drawn.text_mask.sum(dim=1).tolist() == [len(batch.empty_text)] * len(batch.places)
    assert torch.equal(drawn.text[0, : len(batch.empty_text)], batch.empty_text)
    assert not drawn.time[:, 0].any() and not drawn.weight[:, 0].any()
    assert torch.equal(drawn.noisy[:, :, 0], batch.latents[:, :, 0])
    assert torch.equal(drawn.time[:, 2], drawn.time[:, 3])
    assert not torch.equal(drawn.time[:, 1], drawn.time[:, 2])
    ends = ObjectiveConfig(chunk_share=0, first_frame_share=1, last_frame_share=1)
    both = draw(batch, ends, seed=0, shift=3.0)
    assert torch.equal(both.controls.last_frame, batch.latents[:, :, -1:])
    assert torch.equal(both.noisy[:, :, -1], batch.latents[:, :, -1]) and not both.time[:, -1].any()
    assert both.weight[0].tolist() == [0, *[1] * (both.time.shape[1] - 2), 0]
    chunks = draw(batch, replace(ends, chunk_share=1), seed=0, shift=3.0)
    assert chunks.controls.last_frame is None  # made chunk by chunk, a clip cannot aim at its end
    nothing = ObjectiveConfig(text_dropout=0, control_dropout=0, chunk_share=0, first_frame_share=0, last_frame_share=0)
    drawn = draw(batch, nothing, seed=0, shift=3.0)
    assert torch.equal(drawn.controls.objects, batch.controls.objects)
    assert torch.equal(drawn.text, batch.text) and drawn.controls.first_frame is None
    assert torch.equal(drawn.time, drawn.time[:, :1].expand_as(drawn.time))


def test_control_follows_the_clip(split):
    """Clips with a plan have painted objects, and others have not."""
    bucket = split.buckets[0]
    painted = np.array([bucket.controls["objects"][row].any() for row in bucket.rows])
    assert 0 < painted.sum() < len(painted)
    assert np.array_equal(painted, np.array([bucket.controls["floor"][row].any() for row in bucket.rows]))
    assert np.array_equal(painted, np.array([bucket.phrases[row].any() for row in bucket.rows]))


def test_a_larger_bucket_takes_fewer_clips():
    assert bucket_batch_size(32, 320, 320) == 32
    assert bucket_batch_size(32, 320, 640) == 16
    assert bucket_batch_size(32, 320, 700) == 8
    assert bucket_batch_size(3, 320, 9000) == 3


def test_a_batch_that_does_not_divide_names_the_nearest():
    with pytest.raises(ConfigError, match=r"Use 8 or 12"):
        check_divides(10, 4, "64x64x17")
    with pytest.raises(ConfigError, match=r"2 ranks x 3 micro-batches.*Use 6 or 12"):
        check_divides(8, 2, "64x64x17", 3)


def test_an_empty_split_is_an_error():
    with pytest.raises(InputError, match="no clips"):
        Order([], [], 0)


def test_a_worker_error_reaches_the_loop(split, dataset, small):
    """An exception in the thread that makes batches is raised where the batch is wanted."""
    batches = Batches(split, make_order(split, make_run(dataset), small), rank=0, ranks=1)
    batches.make = lambda step: (_ for _ in ()).throw(InputError("damaged", where="here"))  # type: ignore[method-assign]
    stream = batches.stream(0)
    with pytest.raises(InputError, match="damaged"):
        next(stream)
    stream.close()


def test_a_thing_counts_more_than_its_surroundings(split, dataset, small):
    """Cells under a thing's box weigh as asked, the place's slot nothing; the mean over a clip stays 1."""
    run = make_run(dataset)
    batch = Batches(split, make_order(split, run, small), rank=0, ranks=1).make(0)
    things = torch.zeros_like(batch.controls.objects)
    things[:, -1] = 1.0  # the place is everywhere
    things[:, 2, 1, :, 3, 4] = 1.0  # in one frame of four is enough
    painted = replace(batch, controls=replace(batch.controls, objects=things))
    weight = cell_weight(painted, 3.0)
    assert torch.allclose(weight.mean(dim=(2, 3, 4)), torch.ones(len(weight), 1))
    assert torch.allclose(weight[:, :, :, 3, 4] / weight[:, :, :, 0, 0], torch.tensor(4.0))
    assert torch.equal(cell_weight(painted, 0.0), torch.ones_like(weight))


def test_the_weight_moves_the_loss_and_not_the_reported_errors(split, dataset, small):
    run = make_run(dataset)
    batch = Batches(split, make_order(split, run, small), rank=0, ranks=1).make(0)
    things = torch.zeros_like(batch.controls.objects)
    things[:, 0, :4, :, :2] = 1.0
    batch = replace(batch, controls=replace(batch.controls, objects=things))
    config = ObjectiveConfig(chunk_share=0, first_frame_share=0, control_dropout=0, object_weight=3.0)
    drawn = draw(batch, config, seed=0, shift=3.0)

    def wrong_at_the_top(noisy, *_, **__):  # right everywhere but where things are
        made = drawn.noise - batch.latents
        return torch.cat((made[..., :2, :] + 1, made[..., 2:, :]), dim=-2)

    loss, error = loss_of(wrong_at_the_top, batch, drawn)
    share = 2 / batch.latents.shape[-2]
    assert error == pytest.approx(torch.full_like(error, share), rel=1e-4)
    assert float(loss) == pytest.approx(4 * share / (1 + 3 * share), rel=1e-4)
