"""The computing of a replica's processes, without Ray: chunks, paces, given frames, stops, several ranks."""

import gc
import json
import socket
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as processes
from einops import rearrange
from PIL import Image

from kling.conditioning import painted
from kling.model.controls import TILE_M, Controls
from kling.pipeline import Generation, build
from kling.presets import get_preset
from kling.scene.control import BOX_MAPS
from kling.scene.direct import direct
from kling.schema import GenerateRequest, VideoConfig
from serve.admission import NOMINAL, Admission
from serve.frames import FrameMaker
from serve.latents import load_chunk, load_state
from serve.media import Media
from serve.orders import Order, OrderedMove
from serve.pace import MIN_STEPS, Pacer
from serve.pictures import fitted
from serve.ranks import Job, RankSettings
from serve.realtime import _resized
from serve.work import Denoiser

pytestmark = pytest.mark.timeout(600)


def order(**given) -> Order:
    values = {
        "prompt": "a red ball bounces", "negative_prompt": "", "width_px": 64, "height_px": 64, "num_frames": 17,
        "fps": 8, "num_steps": 2, "guidance": 2.0, "seed": 3,
    }  # fmt: skip
    return Order(**{**values, **given})


def settings(weights: str, state: str, num_ranks: int = 1) -> RankSettings:
    return RankSettings(preset="tiny", weights=weights, state=state, num_ranks=num_ranks, num_threads=1)


class Workshop:
    """One rank and a decoder in this process."""

    def __init__(self, weights: str, state: str):
        self.state = state
        self.rank, self.decoder = Denoiser(settings(weights, state), 0, ""), FrameMaker(settings(weights, state))

    def media(self, name: str) -> Media:
        return Media(self.state, name)

    def latents(self, name: str, wanted: Order, stop=lambda: False) -> torch.Tensor:
        job = Job(task_id=name, attempt=1, order=wanted)
        self.last = list(self.rank.run(job, stop))[-1]
        if not wanted.chunk:
            state = load_state(self.media(name))
            assert state is not None
            return state.x
        return torch.cat([chunk.x for chunk in self.chunks(name)], dim=2)

    def chunks(self, name: str) -> list:
        found = []
        while (chunk := load_chunk(self.media(name), len(found))) is not None:
            found.append(chunk)
        return found

    def video(self, name: str, wanted: Order):
        return list(self.decoder.run(Job(task_id=name, attempt=1, order=wanted), lambda: False))[-1]


@pytest.fixture(scope="module")
def shop(tiny_weights, tmp_path_factory) -> Workshop:
    return Workshop(tiny_weights, str(tmp_path_factory.mktemp("work")))


@pytest.fixture(scope="module")
def plain(shop: Workshop) -> torch.Tensor:
    return shop.latents("plain", order())


def test_one_rank_makes_what_the_pipeline_makes(shop: Workshop, plain, tiny_weights):
    pipeline = build("tiny", weights=tiny_weights)
    *_, state = pipeline.denoise(
        pipeline.prepare(Generation(prompt="a red ball bounces", num_frames=17, num_steps=2, guidance=2.0, seed=3))
    )
    torch.testing.assert_close(plain, state.x, atol=1e-5, rtol=1e-5)


def test_each_switch_changes_the_video_and_a_returned_plan_makes_the_same_one(shop: Workshop, plain):
    text = shop.media("plain").load_plan()
    assert text is not None and '"phrase":"red ball"' in text
    again = shop.latents("again", order(plan=json.loads(text)))
    assert torch.equal(again, plain)
    changes = {
        "no physics": {"physics": False},
        "no camera": {"camera": False},
        "no understanding": {"understanding": False},
        "orbit": {"moves": (OrderedMove(kind="orbit", direction="left"),)},
    }
    made = {name: shop.latents(name, order(**change)) for name, change in changes.items()}
    for name, x in made.items():
        assert (x - plain).abs().max() > 1e-3, f"{name} changes nothing"
    assert shop.media("no understanding").load_plan() is None
    assert "orbit" in (shop.media("orbit").load_plan() or "")


@pytest.mark.parametrize("chunk", [0, 1])
def test_a_given_first_frame_is_exactly_there(shop: Workshop, chunk: int):
    png, digest = fitted(Image.effect_noise((64, 64), 90).convert("RGB"), 64, 64)
    name = f"first-{chunk}"
    media = shop.media(name)
    media.save_picture("first", png)
    last = {}
    if not chunk:
        media.save_picture("last", png)
        last = {"last_frame": digest}
    x = shop.latents(name, order(first_frame=digest, chunk=chunk, **last))
    from serve.scenes import given_frames

    first, end = given_frames(shop.decoder._vae, order(first_frame=digest, **last), media)
    torch.testing.assert_close(x[:, :, :1], first, atol=1e-5, rtol=1e-5)
    if end is not None:
        torch.testing.assert_close(x[:, :, -1:], end, atol=1e-5, rtol=1e-5)


def test_a_stopped_roll_out_goes_on_to_the_same_chunks(shop: Workshop):
    wanted = order(chunk=1)
    whole = shop.latents("roll", wanted)
    seen = [c.x.shape[2] for c in shop.chunks("roll")]
    assert seen == [1] * 5 and shop.last.stage == "denoised"
    asked = iter(range(1000))
    shop.latents("cut", wanted, stop=lambda: next(asked) >= 5)
    assert shop.last.stage == "stopped" and len(shop.chunks("cut")) == 2
    torch.testing.assert_close(shop.latents("cut", wanted), whole, atol=1e-5, rtol=1e-5)
    made = shop.video("roll", wanted)
    assert made.num_frames == 17 and [p["num_frames"] for p in made.pace] == [1, 4, 4, 4, 4]


def _tensor_bytes() -> int:
    """Of all tensors that live in this process, each storage once."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # looking at a lazy module's attribute may warn
        tensors = [found for found in gc.get_objects() if type(found) in (torch.Tensor, torch.nn.Parameter)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@pytest.mark.parametrize("chunk", [0, 1])
def test_a_cancelled_task_leaves_no_tensor_in_a_rank_or_the_decoder(shop: Workshop, chunk: int):
    wanted = order(width_px=128, height_px=128, num_steps=4, chunk=chunk)
    name, during = f"left-{chunk}", []
    shop.latents(f"warm-{chunk}", wanted)  # what is kept on purpose (tables of positions) is there
    shop.latents(f"small-{chunk}", order(num_steps=1, chunk=chunk))  # what the next task would free hides nothing
    before = _tensor_bytes()

    def stop() -> bool:
        during.append(_tensor_bytes())
        return len(during) >= 3

    assert list(shop.rank.run(Job(task_id=name, attempt=1, order=wanted), stop))[-1].stage == "stopped"
    asked = iter((False, True, True, True))
    list(shop.decoder.run(Job(task_id=f"warm-{chunk}", attempt=1, order=wanted), lambda: next(asked)))
    latents = 4 * 32 * 5 * 16 * 16
    assert max(during) - before > latents, "while it runs there is something to free"
    assert _tensor_bytes() - before < 0.01 * latents


def test_the_first_picture_is_waited_for_three_eighths_as_long(shop: Workshop):
    wanted = order(chunk=1, num_steps=16, num_frames=9)
    shop.latents("soon", wanted)
    assert [chunk.num_steps for chunk in shop.chunks("soon")] == [6, 16, 16]


def test_a_pace_that_cannot_be_held_makes_the_rest_smaller(shop: Workshop):
    wanted = order(chunk=1, width_px=128, height_px=128, num_steps=6, target_ms_per_frame=1.0)
    list(shop.rank.run(Job(task_id="hurry", attempt=1, order=wanted), lambda: False))
    made = shop.video("hurry", wanted)
    assert made.num_frames == 17
    assert [p["num_steps"] for p in made.pace] == [MIN_STEPS] * 5
    widths = [p["width_px"] for p in made.pace]
    assert widths[0] == 128 and widths[-1] < 128 and widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("size", [(8, 8), (8, 16)], ids=["both halved", "height halved"])
def test_controls_on_a_smaller_grid_are_as_if_painted_there(size: tuple[int, int]):
    config = get_preset("tiny").dit
    prompt = "a red cone and a small blue ball roll right while the camera orbits left"
    scene = direct(prompt, seed=3, duration_s=2.0, fps=8.0)
    phrases = torch.zeros(1, config.object_slots, config.text_dim)

    def controls(height: int, width: int) -> Controls:
        arrays = painted(scene.plan, scene.track, config, grid=(5, height, width), aspect=1.0)
        maps = {name: torch.from_numpy(getattr(arrays, name))[None] for name in ("camera", "flow", "floor", "objects")}
        return Controls(**maps, phrases=phrases)

    first = torch.zeros(1, config.out_channels, 1, *size)
    made, wanted = _resized(controls(16, 16), 2, *size, first), controls(*size)
    assert made.objects is not None and wanted.objects is not None and made.floor is not None
    assert torch.equal(made.phrases, phrases) and made.first_frame is first
    boxes, outlines = (made.objects - wanted.objects[..., 2:, :, :]).abs().split([BOX_MAPS, 64], dim=2)
    assert wanted.objects[0, :-1, BOX_MAPS:].max() > 0.9  # there is something to compare
    assert boxes.max() < 1e-5  # shares of cells are shares of their halves together
    assert outlines.max() < 0.3 and outlines.mean() < 0.002  # one is drawn in finer steps
    assert (made.flow - wanted.flow[:, :, 2:]).abs().max() < 0.1 * wanted.flow.abs().max()

    place, right, down = rearrange(made.floor, "b (p n) f h w -> n b p f h w", n=6).split(2)
    true_place, true_right, true_down = rearrange(wanted.floor[:, :, 2:], "b (p n) f h w -> n b p f h w", n=6).split(2)
    near = torch.cat([true_right, true_down]).abs().amax(dim=0) < 1.5  # well below the horizon
    off = (place - true_place + TILE_M / 2) % TILE_M - TILE_M / 2
    reach = (true_right.abs() + true_down.abs()) / 2  # half of what a point spans
    assert near.float().mean() > 0.2 and (off.abs() <= 0.7 * reach)[:, near].all()
    for mine, true in ((right, true_right), (down, true_down)):
        assert ((mine - true).norm(dim=0) <= 0.3 * true.norm(dim=0))[near].all()


def test_a_pacer_uses_what_time_there_is():
    pacer = Pacer(target_s=0.1, most_steps=16, predicted_s=0.02)
    assert pacer.steps(num_latents=1, num_frames=100) == 16
    assert pacer.steps(num_latents=1, num_frames=2) == 8 and pacer.steps(num_latents=2, num_frames=2) == 3
    assert pacer.steps(num_latents=1, num_frames=2, lead_s=0.12) == 9, "a lead is spent bit by bit"
    assert pacer.steps(num_latents=1, num_frames=2, lead_s=-0.12) == 6, "a lag is made good sooner"
    assert pacer.steps(num_latents=1, num_frames=4, lead_s=-3.0) == MIN_STEPS
    for _ in range(6):  # the machine becomes ten times slower
        pacer.measured(num_latents=1, num_steps=4, seconds=0.8 + 0.05, fixed_s=0.05)
    assert pacer.step_s == pytest.approx(0.2, rel=0.05) and pacer.fixed_s == pytest.approx(0.05, rel=0.05)
    assert [pacer.too_large(num_latents=1, num_frames=4) for _ in range(2)] == [False, True]
    pacer.resized(0.25)
    assert not pacer.too_large(num_latents=1, num_frames=4)


def test_a_pacer_is_steady_where_the_machine_is_not():
    """Chunks that take what they take, half of them with hiccups: the steps hardly change, and the pace is held."""
    noise = np.random.default_rng(1)
    pacer = Pacer(target_s=0.1, most_steps=30, predicted_s=0.05)
    clock, chosen, lateness = 0.0, [], []
    for index in range(60):
        due = 0.4 * index
        steps = pacer.steps(num_latents=1, num_frames=4, lead_s=due - clock)
        took = (0.02 * steps + 0.03) * noise.choice([0.8, 1.0, 1.0, 1.6])
        pacer.measured(num_latents=1, num_steps=steps, seconds=took, fixed_s=0.03)
        clock += took
        chosen.append(steps)
        lateness.append(clock - due - 0.4)
    assert abs(clock / (60 * 0.4) - 1) < 0.1, "the pace is held"
    assert max(lateness[10:]) < 0.4, "never a whole chunk late"
    assert np.std(chosen[10:]) < 0.2 * np.mean(chosen[10:])


def test_predictions_count_the_tokens_that_the_model_has():
    calibration, seconds = replace(NOMINAL, decode_px_s=0.0), []
    for patch in ((1, 2, 2), (1, 1, 1)):
        preset = get_preset("tiny")
        preset = replace(preset, dit=replace(preset.dit, patch=patch))
        seconds.append(Admission(preset=preset).predict(order(), calibration).seconds)
    assert seconds[1] == pytest.approx(4 * seconds[0])


def test_admission_chooses_a_size_that_holds_the_pace():
    config = VideoConfig(resolution="256x256", realtime=True, target_ms_per_frame=60)
    made = Admission(preset=get_preset("tiny")).admit(GenerateRequest(prompt="x", config=config), NOMINAL)
    assert made.order.width_px < 256 and "60 ms" in made.adjustments[-1].reason
    fixed = config.model_copy(update={"allow_downgrade": False})
    assert (
        Admission(preset=get_preset("tiny")).admit(GenerateRequest(prompt="x", config=fixed), NOMINAL).order.width_px
        == 256
    )


def test_an_extension_holds_both_videos_with_one_frame_between(shop: Workshop, plain):
    before = shop.video("plain", order())
    media = shop.media("longer")
    media.save_before(shop.media("plain").load_video())
    from serve.pictures import last_of

    png, digest = fitted(last_of(media.load_before()), 64, 64)
    media.save_picture("first", png)
    wanted = order(first_frame=digest, before_frames=before.num_frames)
    shop.latents("longer", wanted)
    assert shop.video("longer", wanted).num_frames == 17 + 16


def _rank(index: int, weights: str, state: str, address: str) -> None:
    torch.set_num_threads(1)
    rank = Denoiser(settings(weights, state, 3), index, address)
    for name, chunk in (("three", 0), ("three-roll", 1)):
        list(rank.run(Job(task_id=name, attempt=1, order=order(chunk=chunk)), lambda: False))


def test_three_ranks_make_what_one_makes_whole_and_in_chunks(shop: Workshop, plain, tiny_weights):
    """Three do not divide the four heads: nothing has to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    processes.spawn(_rank, (tiny_weights, shop.state, address), nprocs=3)
    state = load_state(shop.media("three"))
    assert state is not None
    torch.testing.assert_close(state.x, plain, atol=1e-4, rtol=1e-4)
    rolled = torch.cat([chunk.x for chunk in shop.chunks("three-roll")], dim=2)
    torch.testing.assert_close(rolled, shop.latents("one-roll", order(chunk=1)), atol=1e-4, rtol=1e-4)


def test_weights_are_the_pages_of_their_file(shop: Workshop):
    """Mapped, not copied: the kernel keeps them once for all processes of a node."""
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "dit" in line]
    spans = [words[0].split("-") for words in mapped if words[-1].endswith(".safetensors")]
    inside = [
        any(int(low, 16) <= parameter.data_ptr() < int(high, 16) for low, high in spans)
        for parameter in shop.rank._pipeline.dit.parameters()
    ]
    assert inside and all(inside)
