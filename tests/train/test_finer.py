"""A transformer of finer tokens, made of one of coarser ones."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange, repeat

from kling.errors import CheckpointError, ConfigError
from kling.model.controls import FLOOR_NUMBERS, FLOOR_POINTS, Controls, patches
from kling.model.dit import DiT
from train.finer import refined


@pytest.fixture
def coarse(small) -> DiT:
    torch.manual_seed(1)
    made = DiT(small.dit)
    for param in made.parameters():  # nothing zero, so that nothing is right by chance
        torch.nn.init.normal_(param, std=0.2)
    return made


@pytest.fixture
def fine(coarse: DiT, small) -> DiT:
    return refined(coarse, replace(small, dit=replace(small.dit, patch=(1, 1, 1))))


def test_cells_that_are_alike_read_as_their_patch_did(coarse: DiT, fine: DiT):
    big = torch.randn(1, 32, 3, 4, 4)
    alike = repeat(big, "b c f h w -> b c f (h 2) (w 2)")
    cells = rearrange(fine.patch_in(patches(alike, (1, 1, 1))), "1 f (h w) d -> f h w d", h=8)
    whole = rearrange(coarse.patch_in(patches(alike, (1, 2, 2))), "1 f (h w) d -> f h w d", h=4)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert torch.allclose(cells[:, row::2, column::2], whole, atol=1e-4)


def test_a_cell_is_written_as_the_mean_of_its_patch(coarse: DiT, fine: DiT):
    x = torch.randn(1, 3, 16, coarse.config.width)
    whole = rearrange(coarse.patch_out(x), "b f s (cell c) -> b f s cell c", cell=4)
    assert torch.allclose(fine.patch_out(x), whole.mean(dim=3), atol=1e-5)


def test_blocks_are_kept(coarse: DiT, fine: DiT):
    old, new = coarse.blocks.state_dict(), fine.blocks.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_what_it_was_not_told_counts_nothing_at_first(small):
    torch.manual_seed(1)
    plain = replace(small, dit=replace(small.dit, patch=(1, 1, 1), outline_cells=0, floor_waves=0))
    told = replace(plain, dit=replace(plain.dit, outline_cells=2, floor_waves=2))
    old = DiT(plain.dit)
    for param in old.parameters():
        torch.nn.init.normal_(param, std=0.2)
    new = refined(old, told)
    k = plain.dit.object_slots
    latents, text = torch.randn(1, 32, 3, 4, 4), torch.randn(1, 5, plain.dit.text_dim)
    maps, phrases = torch.rand(1, k, told.dit.object_maps, 3, 4, 4), torch.randn(1, k, plain.dit.text_dim)
    floor = torch.rand(1, FLOOR_POINTS * FLOOR_NUMBERS, 3, 4, 4)
    more = Controls(objects=maps, phrases=phrases, floor=floor)
    less = Controls(objects=maps[:, :, : plain.dit.object_maps], phrases=phrases)
    time = torch.tensor([0.5])
    drawn = new(latents, time, text, controls=more)
    assert torch.allclose(drawn, old(latents, time, text, controls=less), atol=1e-5)
    drawn.square().sum().backward()
    assert new.controls.tokens.floor is not None
    learning = new.controls.tokens.maps.weight.grad, new.controls.tokens.floor.weight.grad
    assert all(grad is not None and grad.abs().sum() > 0 for grad in learning)


@pytest.mark.parametrize("patch", [(1, 1, 1), (1, 2, 2)])
def test_new_latent_channels_change_nothing_at_first(small, patch):
    torch.manual_seed(1)
    few = replace(small.dit, patch=patch)
    old = DiT(few)
    for param in old.parameters():
        torch.nn.init.normal_(param, std=0.2)
    more = replace(few, patch=(1, 1, 1), in_channels=few.in_channels + 16, out_channels=few.out_channels + 16)
    new = refined(old, replace(small, dit=more))
    assert new.config == more
    reference = refined(old, replace(small, dit=replace(few, patch=(1, 1, 1))))
    latents, text, time = torch.randn(1, 48, 3, 4, 4), torch.randn(1, 5, few.text_dim), torch.tensor([0.5])
    drawn, before = new(latents, time, text), reference(latents[:, :32], time, text)
    assert torch.allclose(drawn[:, :32], before, atol=1e-5)
    (drawn - 1).square().sum().backward()
    grad = new.patch_out.weight.grad
    assert grad is not None and grad[32:].abs().sum() > 0, "new channels learn"


def test_other_sizes_are_refused(coarse: DiT, small):
    with pytest.raises(CheckpointError, match="more than the patch differs"):
        refined(coarse, replace(small, dit=replace(small.dit, patch=(1, 1, 1), mlp_dim=128)))
    with pytest.raises(CheckpointError, match="more than the patch differs"):
        refined(coarse, replace(small, dit=replace(small.dit, patch=(1, 1, 1), in_channels=16, out_channels=16)))
    with pytest.raises(ConfigError, match="one latent a token"):
        refined(coarse, small)
