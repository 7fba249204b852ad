"""The transformer's own promises: legal sizes, masks, batches, a sane start, half precision, a readable file."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import kling.model.dit as dit_module
from kling.errors import ConfigError
from kling.model.config import DiTConfig
from kling.model.dit import DiT
from kling.model.wan import wan_config

CONFIG = DiTConfig(num_layers=2, num_heads=2, head_dim=12, mlp_dim=48, in_channels=3, out_channels=3, text_dim=10)


@pytest.fixture
def dit() -> DiT:
    torch.manual_seed(0)
    made = DiT(CONFIG).requires_grad_(False)
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return made


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((1, 3, 2, 5, 4), "height=5. The nearest are 4 and 6"),
        ((1, 3, 2, 4, 7), "width=7. The nearest are 6 and 8"),
        ((1, 3, 2, 1, 4), "height=1. The nearest is 2"),
        ((1, 4, 2, 4, 4), "this model takes 3 latent channels: channels=4"),
    ],
)
def test_sizes_that_the_patch_does_not_divide_are_refused_with_the_nearest(dit: DiT, shape, told: str):
    with pytest.raises(ConfigError) as error:
        dit(torch.randn(shape), torch.rand(1), torch.randn(1, 5, 10))
    assert told in str(error.value)


def test_a_patch_over_frames_names_frames():
    made = DiT(replace(CONFIG, patch=(2, 2, 2)))
    with pytest.raises(ConfigError, match=r"frames=3\. The nearest are 2 and 4"):
        made(torch.randn(1, 3, 3, 4, 4), torch.rand(1), torch.randn(1, 5, 10))


def test_masked_text_is_not_seen_and_padding_does_not_matter(dit: DiT):
    latents, time, text = torch.randn(2, 3, 2, 4, 4), torch.rand(2), torch.randn(2, 5, 10)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    padded = torch.cat((text, torch.randn(2, 4, 10)), dim=1)
    wide = torch.cat((mask, torch.zeros(2, 4, dtype=torch.bool)), dim=1)
    got = dit(latents, time, padded, text_mask=wide)
    torch.testing.assert_close(got, dit(latents, time, text, text_mask=mask), atol=1e-5, rtol=1e-5)
    alone = dit(latents[1:], time[1:], text[1:, :3])
    torch.testing.assert_close(got[1:], alone, atol=1e-5, rtol=1e-5)


def test_a_batch_gives_what_its_members_give(dit: DiT):
    latents, time, text = torch.randn(3, 3, 4, 4, 6), torch.rand(3), torch.randn(3, 5, 10)
    whole = dit(latents, time, text)
    for i in range(3):
        one = dit(latents[i : i + 1], time[i : i + 1], text[i : i + 1])
        torch.testing.assert_close(whole[i : i + 1], one, atol=1e-5, rtol=1e-5)


def test_a_long_clip_done_in_runs_of_tokens_gives_what_it_gives_at_once(dit: DiT):
    latents, time, text = torch.randn(2, 3, 3, 40, 40), torch.rand(2, 3), torch.randn(2, 5, 10)
    tokens = 3 * 20 * 20
    assert tokens > dit_module.RUN_TOKENS and tokens % dit_module.RUN_TOKENS
    with torch.no_grad():
        runs = dit(latents, time, text)
    torch.testing.assert_close(runs, dit(latents, time, text), atol=1e-5, rtol=1e-5)


def test_one_time_for_all_frames_is_the_time_of_each(dit: DiT):
    latents, text = torch.randn(2, 3, 4, 4, 4), torch.randn(2, 5, 10)
    time = torch.rand(2)
    got = dit(latents, time[:, None].expand(2, 4), text)
    torch.testing.assert_close(got, dit(latents, time, text), atol=1e-5, rtol=1e-5)


def test_an_image_is_refused_by_a_model_without_image_layers(dit: DiT):
    with pytest.raises(ConfigError, match="no CLIP image"):
        dit.prepare(torch.randn(1, 5, 10), image=torch.randn(1, 3, 7))


def test_a_new_model_predicts_zero_and_learns():
    torch.manual_seed(0)
    made = DiT(CONFIG)
    latents, time, text = torch.randn(2, 3, 2, 4, 4), torch.rand(2), torch.randn(2, 5, 10)
    assert not made(latents, time, text).any()
    target = torch.randn(2, 3, 2, 4, 4)
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (made(latents, time, text) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_half_precision_runs_and_is_near(dit: DiT):
    latents, time, text = torch.randn(1, 3, 2, 4, 4), torch.rand(1), torch.randn(1, 5, 10)
    wanted = dit(latents, time, text)
    got = dit.bfloat16()(latents.bfloat16(), time, text.bfloat16())
    assert got.dtype == torch.bfloat16
    assert (got.float() - wanted).norm() < 0.05 * wanted.norm()


def test_activation_checkpointing_gives_the_same_gradients():
    torch.manual_seed(0)
    made = DiT(replace(CONFIG, window=2))
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.2)
    latents, time, text = torch.randn(1, 3, 5, 4, 4), torch.rand(1), torch.randn(1, 5, 10)
    made(latents, time, text).square().sum().backward()
    wanted = {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}
    made.zero_grad()
    for block in made.blocks:
        plain = block.forward
        block.forward = lambda *args, plain=plain: torch.utils.checkpoint.checkpoint(plain, *args, use_reentrant=False)
    made(latents, time, text).square().sum().backward()
    for name, p in made.named_parameters():
        if name in wanted:
            torch.testing.assert_close(p.grad, wanted[name], atol=1e-5, rtol=1e-4)


def test_training_after_sampling_in_inference_mode(dit: DiT):
    latents, time, text = torch.randn(1, 3, 3, 4, 10), torch.rand(1), torch.randn(1, 5, 10)
    with torch.inference_mode():
        sampled = dit(latents, time, text)
    dit.requires_grad_(True)
    trained = dit(latents, time, text)
    trained.sum().backward()
    torch.testing.assert_close(trained.detach(), sampled.clone(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("time", [torch.tensor([0.8]), torch.tensor([[0.0, 0.3, 0.9]])])
def test_a_model_of_clean_latents_gives_the_velocity_that_leads_to_them(dit: DiT, time: torch.Tensor):
    clean = DiT(replace(CONFIG, predicts="clean")).requires_grad_(False)
    clean.load_state_dict(dit.state_dict())
    latents, text = torch.randn(1, 3, 3, 4, 10), torch.randn(1, 5, 10)
    said = dit(latents, time, text)
    velocity = clean(latents, time, text)
    assert velocity.isfinite().all()
    t = time.reshape(1, 1, -1, 1, 1)
    landed = latents - t * velocity
    # Where t is above the least time, the step of length t lands on what the network said.
    torch.testing.assert_close(*((x * (t > 0.2)) for x in (landed, said)), atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="predicts the velocity"):
        wan_config(clean.config)


def test_the_model_stays_one_readable_file_without_ranks_or_devices():
    text = Path(dit_module.__file__ or "").read_text()
    assert len(text.splitlines()) <= 450
    for word in ("torch.distributed", "os.environ", "cuda", "get_rank", "world_size"):
        assert word not in text
