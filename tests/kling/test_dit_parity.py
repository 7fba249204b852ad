"""The transformer against diffusers' WanTransformer3DModel: same weights, same output, same gradients."""

import pytest
import torch
from diffusers import WanTransformer3DModel

from kling.model.config import DiTConfig
from kling.model.dit import DiT
from kling.model.wan import from_wan, to_wan, wan_config

TOLERANCE = 1e-5


def random_config(seed: int, image: bool) -> DiTConfig:
    pick = torch.Generator().manual_seed(seed)

    def one_of(*values):
        return values[int(torch.randint(len(values), (), generator=pick))]

    return DiTConfig(
        num_layers=one_of(1, 2, 3),
        num_heads=one_of(1, 2, 3, 5),
        head_dim=one_of(6, 8, 12, 16, 18, 20),
        mlp_dim=one_of(24, 50, 64),
        in_channels=one_of(9, 12) if image else one_of(3, 4),
        out_channels=one_of(3, 4),
        text_dim=one_of(7, 16, 20),
        patch=one_of((1, 2, 2), (1, 1, 1), (1, 2, 1), (2, 2, 2)),
        time_freq_dim=one_of(16, 256),
        image_dim=one_of(10, 24) if image else None,
        image_tokens=one_of(None, 6) if image else None,
        eps=one_of(1e-6, 1e-5),
        window=None,
    )


def pair(config: DiTConfig, seed: int) -> tuple[DiT, WanTransformer3DModel]:
    """Ours and theirs with the same random weights, biases and norms included."""
    torch.manual_seed(seed)
    theirs = WanTransformer3DModel(**wan_config(config))  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            p.copy_(1 + 0.2 * torch.randn_like(p) if "norm" in name and "weight" in name else 0.2 * torch.randn_like(p))
    ours = DiT(config)
    missing, unknown = ours.load_state_dict(dict(from_wan(theirs.state_dict(), config)), strict=False)
    assert not unknown
    assert all(name.startswith("controls.") for name in missing)
    return ours, theirs


def inputs(config: DiTConfig, seed: int, batch: int = 2):
    draw = torch.Generator().manual_seed(seed + 1)
    sizes = [int(torch.randint(1, 4, (), generator=draw)) * p for p in config.patch]
    latents = torch.randn(batch, config.in_channels, *sizes, generator=draw)
    time = torch.rand(batch, generator=draw)
    # diffusers cuts image states off at 512 text tokens, so image-to-video needs exactly 512
    text = torch.randn(batch, 512 if config.image_dim else 9, config.text_dim, generator=draw)
    image = None
    if config.image_dim:
        image = torch.randn(batch, config.image_tokens or 5, config.image_dim, generator=draw)
    return latents, time, text, image


def close(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    """Equal to 1e-5 of the tensor's largest value, or absolutely where values are below 1."""
    scale = max(1.0, theirs.abs().max().item())
    error = (ours - theirs).abs().max().item() / scale
    assert error < TOLERANCE, f"{what}: {error:.1e}"


@pytest.mark.parametrize("image", [False, True], ids=["t2v", "i2v"])
@pytest.mark.parametrize("seed", range(8))
def test_output_and_all_gradients_equal_diffusers(seed: int, image: bool):
    config = random_config(seed, image)
    ours, theirs = pair(config, seed)
    latents, time, text, states = inputs(config, seed)
    leaves = [t.clone().requires_grad_() for t in (latents, text)]
    other = [t.clone().requires_grad_() for t in (latents, text)]

    got = ours(leaves[0], time, leaves[1], image=states)
    if states is not None and config.image_tokens:  # theirs takes the two images as two rows of the batch
        states = states.reshape(-1, config.image_tokens // 2, states.shape[-1])
    wanted = theirs(other[0], time * 1000, other[1], encoder_hidden_states_image=states, return_dict=False)[0]
    close(got, wanted, "output")

    weights = torch.randn_like(wanted) / wanted.numel()
    (got * weights).sum().backward()
    (wanted * weights).sum().backward()
    for a, b, what in zip(leaves, other, ("latents", "text"), strict=True):
        close(a.grad, b.grad, f"gradient of {what}")  # pyright: ignore[reportArgumentType]
    gradients = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    seen = 0
    mapped = dict(to_wan(gradients, config))
    for name, p in theirs.named_parameters():
        if p.grad is None:
            continue
        close(mapped[name], p.grad, f"gradient of {name}")
        seen += 1
    assert seen == len(mapped)


def test_per_frame_time_equals_wan_2_2_per_token_time():
    config = random_config(3, image=False)
    ours, theirs = pair(config, 3)
    latents, _, text, _ = inputs(config, 5)
    latents = torch.randn(2, config.in_channels, 4, 4, 6)
    frames, tokens = 4 // config.patch[0], (4 // config.patch[1]) * (6 // config.patch[2])
    time = torch.rand(2, frames)
    time[:, 0] = 0  # the given first frame
    wanted = theirs(latents, (time * 1000).repeat_interleave(tokens, 1), text, return_dict=False)[0]
    close(ours(latents, time, text), wanted, "output")


def test_there_and_back_is_the_same_weights():
    config = random_config(11, image=True)
    ours, theirs = pair(config, 11)
    back = dict(to_wan(ours.state_dict(), config))
    state = theirs.state_dict()
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_prepared_context_gives_what_text_gives():
    config = random_config(4, image=True)
    ours, _ = pair(config, 4)
    latents, time, text, image = inputs(config, 4)
    with torch.no_grad():
        context = ours.prepare(text, image=image)
        assert torch.equal(ours(latents, time, context), ours(latents, time, text, image=image))
