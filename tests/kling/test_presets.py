"""A preset's name is its size."""

import pytest
import torch
from diffusers import WanTransformer3DModel

from kling.errors import ConfigError
from kling.model.dit import DiT
from kling.model.wan import wan_config
from kling.presets import PRESETS, get_preset

# Wan calls its transformer of 1.42 billion parameters 1.3B. People look for it by that name, so the preset has it too.
WAN_SAYS_1_3B = 1_418_996_800


def count(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in DiT(get_preset(name).dit).parameters())


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "tiny"])
def test_a_name_equals_its_parameter_count(name: str):
    said = float(name[:-1]) * {"m": 1e6, "b": 1e9}[name[-1]]
    assert count(name) == pytest.approx(WAN_SAYS_1_3B if name == "1.3b" else said, rel=0.05)


@pytest.mark.parametrize(("name", "published"), [("1.3b", WAN_SAYS_1_3B), ("5b", None), ("14b", None)])
def test_a_published_name_has_the_published_models_parameters(name: str, published: int | None):
    """What we add are controls; the rest is, tensor by tensor, diffusers' model of the same sizes."""
    config = get_preset(name).dit
    with torch.device("meta"):
        theirs = sum(p.numel() for p in WanTransformer3DModel(**wan_config(config)).parameters())  # pyright: ignore[reportArgumentType]
        controls = sum(p.numel() for p in DiT(config).controls.parameters())
    assert count(name) - controls == theirs
    assert controls < 0.005 * theirs
    if published is not None:
        assert theirs == published  # 1.42 billion under the name "1.3B"


def test_12b_has_between_11_8_and_12_2_billion_with_its_controls():
    assert 11.8e9 <= count("12b") <= 12.2e9


def test_tiny_fits_a_laptop():
    assert count("tiny") < 5e6


def test_eight_ranks_divide_the_heads_of_12b():
    assert get_preset("12b").dit.num_heads % 8 == 0


@pytest.mark.parametrize("name", PRESETS)
def test_parts_of_a_preset_fit_each_other(name: str):
    preset = get_preset(name)
    assert preset.dit.in_channels == preset.dit.out_channels == preset.vae.z_dim
    assert preset.dit.text_dim == preset.text.width
    frames = preset.vae.latent_frames(preset.clip.num_frames)
    assert frames % preset.dit.patch[0] == 0
    for size, patch in ((preset.clip.height_px, preset.dit.patch[1]), (preset.clip.width_px, preset.dit.patch[2])):
        assert size % (preset.vae.stride_px * patch) == 0


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"'13b'.*12b, 14b"):
        get_preset("13b")
