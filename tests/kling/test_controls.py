"""Controls: absent or at their start they change nothing, bit for bit; trained they act where and as they should."""

from dataclasses import fields, replace

import pytest
import torch

from kling.errors import ConfigError
from kling.model.config import DiTConfig
from kling.model.controls import FLOOR_NUMBERS, FLOOR_POINTS, ControlLayers, Controls
from kling.model.dit import DiT

CONFIG = DiTConfig(
    num_layers=4,
    num_heads=2,
    head_dim=12,
    mlp_dim=48,
    in_channels=3,
    out_channels=3,
    text_dim=10,
    control_every=2,
    control_width=16,
    outline_cells=2,
    floor_waves=2,
)
F, H, W, K = 4, 4, 6, 3


def model(seed: int = 0, *, controls: bool = True) -> DiT:
    """Random weights everywhere; the controls' own stay at their start with ``controls=False``."""
    torch.manual_seed(seed)
    made = DiT(CONFIG).requires_grad_(False)
    for name, p in made.named_parameters():
        if controls or not name.startswith("controls."):
            torch.nn.init.normal_(p, std=0.2)
    return made


def inputs():
    torch.manual_seed(9)
    return torch.randn(2, 3, F, H, W), torch.rand(2), torch.randn(2, 5, 10)


def every_control() -> Controls:
    torch.manual_seed(7)
    return Controls(
        camera=torch.randn(2, 6, F, H, W),
        flow=torch.randn(2, 2, F, H, W),
        floor=torch.rand(2, FLOOR_POINTS * FLOOR_NUMBERS, F, H, W),
        objects=torch.rand(2, K, CONFIG.object_maps, F, H, W),
        phrases=torch.randn(2, K, 10),
        first_frame=torch.randn(2, 3, 1, H, W),
        last_frame=torch.randn(2, 3, 1, H, W),
        fps=torch.tensor([8.0, 30.0]),
    )


def test_the_floor_is_the_places():
    """It is told apart by the last slot's phrase and no other's, and is nothing where there is no phrase."""
    torch.manual_seed(3)
    tokens = DiT(CONFIG).controls.tokens
    floor = torch.rand(1, FLOOR_POINTS * FLOOR_NUMBERS, F, H, W)
    objects, phrases = torch.rand(1, K, CONFIG.object_maps, F, H, W), torch.randn(1, K, 10)
    objects[:, :-1] = 0

    def seen(phrases, floor):
        return tokens(Controls(objects=objects, phrases=phrases, floor=floor))

    assert not torch.allclose(seen(phrases, floor), seen(phrases, floor.roll(1, dims=3)), atol=1e-3)
    other = phrases.clone()
    other[:, 0] = torch.randn(10)
    assert torch.equal(seen(phrases, floor), seen(other, floor))
    other[:, -1] = torch.randn(10)
    assert not torch.allclose(seen(phrases, floor), seen(other, floor), atol=1e-3)
    assert not seen(torch.zeros_like(phrases), floor).any()


def only(*names: str) -> Controls:
    whole = every_control()
    return Controls(**{name: getattr(whole, name) for name in names})


KINDS = [
    ("camera",),
    ("flow",),
    ("objects", "phrases"),
    ("floor", "objects", "phrases"),
    ("first_frame",),
    ("last_frame",),
    ("fps",),
]


@pytest.mark.parametrize("given", [Controls(), *(only(*names) for names in KINDS), every_control()])
def test_at_their_start_controls_change_no_bit(given: Controls):
    dit = model(controls=False)
    assert torch.equal(dit(*inputs(), controls=given), dit(*inputs()))


def test_absent_is_the_model_without_them_even_when_trained():
    trained, without = model(), model()
    for p in without.controls.parameters():
        p.zero_()
    assert torch.equal(trained(*inputs(), controls=Controls()), without(*inputs()))


@pytest.mark.parametrize("names", KINDS, ids="-".join)
def test_each_control_acts_once_trained_and_learns_from_its_start(names: tuple[str, ...]):
    dit = model()
    assert not torch.allclose(dit(*inputs(), controls=only(*names)), dit(*inputs()), atol=1e-3)
    fresh = model(controls=False).requires_grad_(True)
    fresh(*inputs(), controls=only(*names)).square().sum().backward()
    zeros = [p for p in fresh.controls.parameters() if not p.any()]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in zeros)


def test_the_order_of_slots_does_not_matter():
    dit, whole = model(), every_control()
    assert whole.objects is not None and whole.phrases is not None
    order = torch.tensor([1, 0, 2])  # the last is the place's
    other = replace(whole, objects=whole.objects[:, order], phrases=whole.phrases[:, order])
    torch.testing.assert_close(dit(*inputs(), controls=whole), dit(*inputs(), controls=other), atol=1e-5, rtol=1e-5)


def test_which_phrase_is_painted_where_does_matter():
    dit, whole = model(), every_control()
    assert whole.phrases is not None
    swapped = replace(whole, phrases=whole.phrases[:, torch.tensor([1, 0, 2])])
    assert not torch.allclose(dit(*inputs(), controls=whole), dit(*inputs(), controls=swapped), atol=1e-3)


def test_objects_that_meet_are_not_the_object_between_them():
    """Two objects in one cell are told apart from one object whose phrase is the mean of theirs."""
    tokens = model().controls.tokens
    maps = torch.ones(1, 2, CONFIG.object_maps, 1, 2, 2)
    phrases = torch.nn.functional.normalize(torch.randn(1, 2, 10), dim=-1)
    mean = phrases.mean(dim=1, keepdim=True).expand(1, 2, 10)
    both = tokens(Controls(objects=maps, phrases=phrases))
    blend = tokens(Controls(objects=maps, phrases=mean))
    assert both is not None and blend is not None
    assert (both - blend).abs().max() > 0.05 * both.abs().max()


def test_an_empty_slot_and_a_zero_map_are_nothing():
    tokens = model().controls.tokens
    whole = every_control()
    assert whole.objects is not None and whole.phrases is not None
    objects = torch.cat((whole.objects, torch.zeros_like(whole.objects[:, :1])), dim=1)
    phrases = torch.cat((whole.phrases, torch.randn(2, 1, 10)), dim=1)
    with_empty = tokens(Controls(objects=objects, phrases=phrases))
    torch.testing.assert_close(with_empty, tokens(Controls(objects=whole.objects, phrases=whole.phrases)))
    dark = tokens(Controls(camera=torch.zeros(2, 6, F, H, W)))
    assert dark is not None and not dark.any()


def test_a_painted_object_acts_at_once_only_where_it_is():
    maps = torch.zeros(1, 1, CONFIG.object_maps, F, H, W)
    maps[..., 2, 0:2, 4:6] = 1  # one patch of frame 2
    tokens = model().controls.tokens(Controls(objects=maps, phrases=torch.randn(1, 1, 10)))
    assert tokens is not None
    touched = tokens.abs().sum(dim=-1)[0] > 0  # f s
    wanted = torch.zeros_like(touched)
    wanted[2, 2] = True
    assert torch.equal(touched, wanted)


def test_first_and_last_frame_enter_only_their_frames():
    layers: ControlLayers = model().controls
    x = torch.zeros(2, F, H * W // 4, CONFIG.width)
    added = layers.add(0, x, layers(only("first_frame", "last_frame")))
    assert added[:, 0].any() and added[:, -1].any() and not added[:, 1:-1].any()
    assert torch.equal(layers.add(1, x, layers(every_control())), x)
    assert layers.add(2, x, layers(every_control())).any()


def test_maps_without_phrases_are_refused():
    with pytest.raises(ConfigError, match="both maps and phrases"):
        Controls(objects=torch.rand(1, 1, CONFIG.object_maps, 1, 2, 2))


def test_controls_move_and_cast_together():
    moved = every_control().to(dtype=torch.float64)
    assert all(getattr(moved, field.name).dtype == torch.float64 for field in fields(moved))
    assert Controls(fps=torch.ones(1)).to("cpu").camera is None
