"""Reading Wan's published folders: shrunken copies of their real config files, written by diffusers itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from kling.errors import CheckpointError, ConfigError
from kling.model.checkpoint import load_part, read_card
from kling.model.dit import DiT
from kling.model.import_weights import command, import_folder
from kling.model.text import TextEncoder
from kling.model.vae import VideoVAE
from kling.presets import Preset, get_preset

# As published, but for the sizes marked small. FLF2V is the first-last-frame variant of I2V.
TRANSFORMER = {
    "attention_head_dim": 12,  # small (128)
    "cross_attn_norm": True,
    "eps": 1e-06,
    "ffn_dim": 40,  # small
    "freq_dim": 256,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "in_channels": 16,
    "num_attention_heads": 2,  # small
    "num_layers": 6,  # small
    "out_channels": 16,
    "patch_size": [1, 2, 2],
    "pos_embed_seq_len": None,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
    "text_dim": 24,  # small (4096)
}
I2V = {**TRANSFORMER, "in_channels": 36, "image_dim": 20, "added_kv_proj_dim": 24}
FLF2V = {**I2V, "pos_embed_seq_len": 2 * 5}  # small (2 * 257)
TI2V = {**TRANSFORMER, "in_channels": 48, "out_channels": 48}
VAE_21 = {
    "base_dim": 8,  # small (96)
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,  # small (2)
    "temperal_downsample": [False, True, True],
    "z_dim": 16,
    "attn_scales": [],
    "dropout": 0.0,
    "latents_mean": [i / 10 for i in range(16)],
    "latents_std": [1 + i / 10 for i in range(16)],
}
VAE_22 = {
    **VAE_21,
    "decoder_base_dim": 12,  # small (256)
    "z_dim": 48,
    "in_channels": 12,
    "out_channels": 12,
    "is_residual": True,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "scale_factor_temporal": 4,
    "latents_mean": [i / 10 for i in range(48)],
    "latents_std": [1 + i / 10 for i in range(48)],
}
TEXT = {"vocab_size": 99, "d_model": 24, "d_kv": 6, "d_ff": 32, "num_layers": 2, "num_heads": 4}  # small


def small(name: str, num_layers: int = 6) -> Preset:
    """The preset with the sizes of the shrunken folders; everything else is the preset's own."""
    preset = get_preset(name)
    vae = replace(preset.vae, base_dim=8, num_res_blocks=1, decoder_base_dim=12 if preset.vae.is_residual else None)
    return replace(
        preset,
        dit=replace(preset.dit, num_layers=num_layers, num_heads=2, head_dim=12, mlp_dim=40, text_dim=24),
        vae=vae,
        text=replace(preset.text, vocab_size=99, width=24, mlp_dim=32, num_layers=2, num_heads=4, head_dim=6),
    )


def write(folder: Path, transformer: dict, vae: dict, *, shard: str = "10GB") -> WanTransformer3DModel:
    torch.manual_seed(0)
    net = WanTransformer3DModel(**transformer)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    net.save_pretrained(folder / "transformer", max_shard_size=shard)
    AutoencoderKLWan(**vae).save_pretrained(folder / "vae")
    UMT5EncoderModel(UMT5Config(**TEXT)).save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "spiece.model").write_bytes(b"stands for the real one")
    return net


LAYOUTS = {
    "t2v-1.3b": ("1.3b", TRANSFORMER, VAE_21),
    "t2v-14b": ("14b", TRANSFORMER, VAE_21),
    "i2v-14b": ("14b", I2V, VAE_21),
    "flf2v-14b": ("14b", FLF2V, VAE_21),
    "ti2v-5b": ("5b", TI2V, VAE_22),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_published_layout_gives_what_diffusers_gives(layout: str, tmp_path: Path):
    name, transformer, vae = LAYOUTS[layout]
    source, out = tmp_path / "wan", str(tmp_path / "out")
    net = write(source, transformer, vae, shard="40KB")
    assert (source / "transformer" / "diffusion_pytorch_model.safetensors.index.json").exists()
    preset = small(name)
    notes = import_folder(str(source), preset, out)
    assert set(notes) == {"dit", "vae", "text"}
    assert read_card(out).preset == name

    config = replace(
        preset.dit,
        in_channels=transformer["in_channels"],
        image_dim=transformer["image_dim"],
        image_tokens=transformer["pos_embed_seq_len"],
        window=None,
    )
    dit = DiT(config)
    load_part(out, "dit", dit)
    latents, text = torch.randn(1, config.in_channels, 3, 4, 4), torch.randn(1, 512, 24)
    image = torch.randn(1, config.image_tokens or 5, 20) if config.image_dim else None
    theirs = image.reshape(-1, 5, 20) if image is not None else None
    with torch.no_grad():
        wanted = net(latents, torch.tensor([300.0]), text, encoder_hidden_states_image=theirs, return_dict=False)[0]
        torch.testing.assert_close(dit(latents, torch.tensor([0.3]), text, image=image), wanted, atol=1e-5, rtol=1e-5)

    video = VideoVAE(preset.vae)
    load_part(out, "vae", video)
    assert video.latent_mean[0].tolist() == video.latent_mean[1].tolist() == pytest.approx(vae["latents_mean"])
    assert video.latent_std[1].tolist() == pytest.approx(vae["latents_std"])
    original = AutoencoderKLWan.from_pretrained(source / "vae").state_dict()
    assert all(torch.equal(original[key], value) for key, value in video.net.state_dict().items())

    encoder = TextEncoder(replace(preset.text, tokenizer="bytes"))  # the tokenizer above is a stand-in
    encoder.config = preset.text
    load_part(out, "text", encoder)
    states = UMT5EncoderModel.from_pretrained(source / "text_encoder").state_dict()
    assert all(torch.equal(states[key], value) for key, value in encoder.net.state_dict().items())
    assert (tmp_path / "out" / "tokenizer" / "spiece.model").read_bytes() == b"stands for the real one"


def test_12b_starts_from_the_blocks_of_14b_and_says_which(tmp_path: Path):
    net = write(tmp_path / "14b", TRANSFORMER, VAE_21)
    write(tmp_path / "5b", TI2V, VAE_22)
    out = str(tmp_path / "out")
    preset = small("12b", num_layers=4)
    import_folder(str(tmp_path / "14b"), preset, out, vae_from=str(tmp_path / "5b"))
    note = read_card(out).parts["dit"].note
    assert "blocks 0,2,3,5 of 6" in note
    assert "16 latent channels became 48" in note
    dit = DiT(preset.dit)
    load_part(out, "dit", dit)
    state = net.state_dict()
    for ours, theirs in enumerate((0, 2, 3, 5)):
        assert torch.equal(
            dit.state_dict()[f"blocks.{ours}.mlp.0.weight"], state[f"blocks.{theirs}.ffn.net.0.proj.weight"]
        )
    assert dit.patch_in.weight.abs().sum() > 0
    assert dit.patch_out.weight.abs().sum() == 0
    load_part(out, "vae", VideoVAE(preset.vae))


def test_the_real_12b_takes_34_of_40_blocks_with_both_ends():
    from kling.model.import_weights import _spread

    kept = _spread(40, get_preset("12b").dit.num_layers)
    assert len(set(kept)) == 34
    assert (kept[0], kept[-1]) == (0, 39)
    assert kept == sorted(kept)


def test_the_command_line_reads_the_real_sizes_and_refuses_the_small_ones(tmp_path: Path):
    write(tmp_path / "wan", TRANSFORMER, VAE_21)
    with pytest.raises(CheckpointError, match=r"num_heads 2 \(preset: 12\)"):
        command([str(tmp_path / "wan"), "--preset", "1.3b", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.fixture
def wan(tmp_path: Path) -> Path:
    write(tmp_path / "wan", TRANSFORMER, VAE_21)
    return tmp_path / "wan"


def refused(wan: Path, match: str, **given) -> None:
    out = wan.parent / "out"
    with pytest.raises(CheckpointError, match=match):
        import_folder(str(wan), small("1.3b"), str(out), **given)
    assert not out.exists()  # nothing by half


def test_two_transformers_are_refused(wan: Path):
    (wan / "transformer_2").mkdir()
    (wan / "transformer_2" / "config.json").write_text("{}")
    refused(wan, "two transformers")


def test_a_pickle_is_refused(wan: Path):
    (wan / "transformer" / "diffusion_pytorch_model.safetensors").rename(
        wan / "transformer" / "diffusion_pytorch_model.bin"
    )
    refused(wan, "unpickling")


def test_a_truncated_part_is_refused_before_any_is_written(wan: Path):
    path = wan / "text_encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(wan, "truncated")


def test_an_unknown_tensor_is_refused(wan: Path):
    from safetensors.torch import load_file, save_file

    path = wan / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(path), "blocks.0.lora": torch.zeros(1)}, path)
    refused(wan, r"1 unknown \(blocks\.0\.lora\)")


def test_nan_is_refused(wan: Path):
    from safetensors.torch import load_file, save_file

    path = wan / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["proj_out.bias"][0] = float("nan")
    save_file(state, path)
    with pytest.raises(CheckpointError, match=r"proj_out\.bias holds values that are not finite"):
        import_folder(str(wan), small("1.3b"), str(wan.parent / "out"))
    assert not (wan.parent / "out" / "kling.json").exists()


def test_another_vae_is_named_with_the_way_out(wan: Path):
    with pytest.raises(CheckpointError, match="--vae-from"):
        import_folder(str(wan), small("12b", num_layers=4), str(wan.parent / "out"))


def test_another_class_or_no_folder_at_all(wan: Path):
    path = wan / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "WanVACETransformer3DModel"}))
    refused(wan, "found WanVACETransformer3DModel")
    refused(wan / "nothing", "not a diffusers folder")


def test_a_part_that_does_not_exist(wan: Path):
    with pytest.raises(ConfigError):
        import_folder(str(wan), small("1.3b"), str(wan.parent / "out"), parts=())
