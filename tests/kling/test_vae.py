"""The VAE wrapper: normalisation, streaming decode, sizes."""

import pytest
import torch

from kling.errors import ConfigError
from kling.model.config import VAEConfig
from kling.model.vae import StreamDecoder, VideoVAE


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    torch.manual_seed(0)
    config = VAEConfig(
        base_dim=8, z_dim=4, dim_mult=(1, 2, 2), num_res_blocks=1, temporal_downsample=(True, True), patch_size=2,
        in_channels=12, out_channels=12,
    )  # fmt: skip
    return VideoVAE(config).eval()


def test_statistics_normalise_first_frame_apart(vae: VideoVAE):
    raw = torch.randn(64, 4, 3, 4, 4) * 2 + 1
    raw[:, :, :1] = raw[:, :, :1] * 0.1 - 3
    vae.fit_statistics(raw)
    normal = vae.normalise(raw)
    for part in (normal[:, :, :1], normal[:, :, 1:]):
        assert part.mean().abs() < 1e-4 and (part.std() - 1).abs() < 0.02
    torch.testing.assert_close(vae.denormalise(normal), raw, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pushes", [(5,), (1, 4), (2, 2, 1)])
@torch.no_grad()
def test_stream_equals_whole(vae: VideoVAE, pushes: tuple[int, ...]):
    latents = torch.randn(1, 4, 5, 4, 4)
    whole = vae.decode(latents)
    decoder, parts = StreamDecoder(vae), []
    for part in latents.split(list(pushes), dim=2):
        parts += list(decoder.push(part))
    assert [p.shape[2] for p in parts] == [1, 4, 4, 4, 4]
    torch.testing.assert_close(torch.cat(parts, dim=2), whole)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
def test_without_gradients_another_convolution_gives_the_same(vae: VideoVAE, monkeypatch: pytest.MonkeyPatch):
    calls, real = [], torch.mkldnn_convolution
    monkeypatch.setattr(torch, "mkldnn_convolution", lambda *given: calls.append(given) or real(*given))
    latents, video = torch.randn(1, 4, 3, 4, 4), torch.rand(1, 3, 9, 32, 32) * 2 - 1
    own = vae.decode(latents), vae.encode(video)
    assert not calls and own[1].requires_grad, "training has gradients"
    with torch.no_grad():
        quick = vae.decode(latents), vae.encode(video)
    assert len(calls) > 2 * sum(isinstance(module, torch.nn.Conv3d) for module in vae.net.decoder.modules())
    torch.testing.assert_close(quick, own, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_encode_is_causal(vae: VideoVAE):
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    other = video.clone()
    other[:, :, 5:] = 0
    torch.testing.assert_close(vae.encode(video)[:, :, :2], vae.encode(other)[:, :, :2])


@pytest.mark.parametrize(
    ("shape", "near"), [((9, 33, 32), "32 and 40"), ((8, 32, 32), "5 and 9"), ((9, 32, 4), "8 and 16")]
)
def test_impossible_sizes_name_the_nearest(vae: VideoVAE, shape: tuple[int, int, int], near: str):
    with pytest.raises(ConfigError, match=near):
        vae.encode(torch.zeros(1, 3, *shape))
