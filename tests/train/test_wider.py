"""A VAE with more features and latent channels, made of one with fewer."""

from dataclasses import replace

import pytest
import torch

from kling.errors import CheckpointError
from kling.model.checkpoint import load_part, read_card, save_part
from kling.model.text import TextEncoder
from kling.model.vae import VideoVAE
from kling.presets import get_preset
from train.wider import Wider, widened, wider

NARROW = replace(get_preset("tiny").vae, base_dim=8, decoder_base_dim=8, z_dim=6, dim_mult=(1, 2, 2))


@pytest.fixture
def narrow() -> VideoVAE:
    torch.manual_seed(1)
    vae = VideoVAE(NARROW)
    for name, param in vae.named_parameters():  # nothing zero or one, so that nothing is right by chance
        torch.nn.init.normal_(param, mean=1.0 if "gamma" in name else 0.0, std=0.2)
    vae.latent_mean.normal_()
    vae.latent_std.uniform_(0.5, 2.0)
    return vae


def widened_to(narrow: VideoVAE, **fields) -> VideoVAE:
    return widened(narrow, replace(NARROW, **fields), torch.Generator().manual_seed(3))


@torch.no_grad()
def test_new_latent_channels_change_no_picture(narrow: VideoVAE):
    wide, video = widened_to(narrow, z_dim=10), torch.rand(1, 3, 5, 16, 16) * 2 - 1
    old, new = narrow.encode(video), wide.encode(video)
    assert torch.allclose(new[:, :6], old, atol=1e-4)
    assert new[:, 6:].std() > 0.01, "what is new says something"
    assert torch.allclose(wide.decode(new), narrow.decode(old), atol=1e-4)
    logvar = wide.net.encode(video).latent_dist.logvar
    assert torch.allclose(logvar[:, :6], narrow.net.encode(video).latent_dist.logvar, atol=1e-3)
    assert logvar[:, 6:].mean() < -3, "and little of it is noise"


@torch.no_grad()
def test_copies_in_equal_parts_are_their_source(narrow: VideoVAE, monkeypatch):
    monkeypatch.setattr("train.wider._UNEQUAL", 0.0)
    wide, video = widened_to(narrow, dim_mult=(1, 4, 4)), torch.rand(1, 3, 5, 16, 16) * 2 - 1
    assert wide.net.encoder.conv_out.weight.shape[1] == 32
    old = narrow.encode(video)
    assert torch.allclose(wide.decode(old), narrow.decode(old), atol=1e-3)
    # Going in, short cuts tell copies apart, which a norm notices: nearly the same.
    assert (wide.encode(video) - old).norm() < 0.05 * old.norm()


def test_copies_learn_different_things(narrow: VideoVAE):
    wide = widened_to(narrow, dim_mult=(1, 4, 4))
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    wide.decode(wide.encode(video)).sub(video).square().mean().backward()
    grad = wide.net.encoder.down_blocks[1].resnets[0].conv2.weight.grad
    assert not torch.allclose(grad[::2], grad[1::2], rtol=0.05)


def test_a_width_that_is_no_multiple_is_refused(narrow: VideoVAE):
    with pytest.raises(CheckpointError, match="24 features cannot be made of 16"):
        widened_to(narrow, decoder_base_dim=12)
    with pytest.raises(CheckpointError, match="the layers differ"):
        widened_to(narrow, num_res_blocks=2)
    with pytest.raises(CheckpointError, match="fewer"):
        widened_to(narrow, z_dim=4)


def test_the_command_writes_a_part_of_the_presets_sizes(tmp_path):
    config = get_preset("tiny").vae
    source = VideoVAE(replace(config, z_dim=config.z_dim // 2))
    save_part(str(tmp_path / "source"), "vae", source, preset="tiny", note="")
    said = wider(Wider(preset="tiny", source=str(tmp_path / "source"), out=str(tmp_path / "out")))
    assert f"z_dim {config.z_dim // 2} made {config.z_dim}" in said
    assert read_card(str(tmp_path / "out")).parts["vae"].config["z_dim"] == config.z_dim
    load_part(str(tmp_path / "out"), "vae", VideoVAE(config))


def test_a_folder_without_a_vae_is_refused(tmp_path, small):
    save_part(str(tmp_path / "source"), "text", TextEncoder(small.text), preset="tiny", note="")
    with pytest.raises(CheckpointError, match="the folder has no VAE"):
        wider(Wider(preset="tiny", source=str(tmp_path / "source"), out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
