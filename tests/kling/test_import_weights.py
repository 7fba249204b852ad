"""Reading Wan's published folders: shrunken copies of their real config files, written by diffusers itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import UMT5Config, UMT5EncoderModel

from kling.errors import CheckpointError, ConfigError
from kling.model.checkpoint import load_part, read_card
from kling.model.dit import DiT
from kling.model.export_weights import export_dit
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


@pytest.mark.parametrize("channels", [16, 36], ids=["T2V-A14B", "I2V-A14B"])
def test_of_two_transformers_one_is_chosen(channels: int, wan: Path):
    """Wan 2.2 A14B: transformer/ for high noise, transformer_2/ for low; image-to-video without CLIP states."""
    torch.manual_seed(1)
    low = WanTransformer3DModel(**{**TRANSFORMER, "in_channels": channels})
    low.save_pretrained(wan / "transformer_2")
    refused(wan, "two transformers, one for high .* --expert high")
    out = str(wan.parent / "low")
    notes = import_folder(str(wan), small("14b"), out, expert="low", parts=("dit",))
    assert notes["dit"].startswith("from Wan weights (wan, low noise)")
    dit = DiT(replace(small("14b").dit, in_channels=channels, window=None))
    load_part(out, "dit", dit)
    latents, text = torch.randn(1, channels, 2, 4, 4), torch.randn(1, 7, 24)
    with torch.no_grad():
        wanted = low(latents, torch.tensor([300.0]), text, return_dict=False)[0]
        torch.testing.assert_close(dit(latents, torch.tensor([0.3]), text), wanted, atol=1e-5, rtol=1e-5)


def test_an_expert_of_one_transformer_is_refused(wan: Path):
    refused(wan, "one transformer only", expert="high")


@pytest.mark.parametrize("layout", ["t2v-1.3b", "flf2v-14b"])
def test_there_and_back_through_folders(layout: str, tmp_path: Path):
    """Imported and exported again, in shards: diffusers' own class takes every tensor, and none has changed."""
    name, transformer, vae = LAYOUTS[layout]
    net = write(tmp_path / "wan", transformer, vae)
    ours, theirs = str(tmp_path / "ours"), tmp_path / "theirs" / "transformer"
    import_folder(str(tmp_path / "wan"), small(name), ours, parts=("dit",))
    names = export_dit(ours, str(theirs), shard_bytes=40_000)
    assert "diffusion_pytorch_model-00002.safetensors" in names
    weight_map = json.loads((theirs / "diffusion_pytorch_model.safetensors.index.json").read_text())["weight_map"]
    state = {key: load_file(theirs / file)[key] for key, file in weight_map.items()}
    made = WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(theirs))
    made.load_state_dict(state)  # strict
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in made.state_dict().items())
    again = str(tmp_path / "again")
    import_folder(str(tmp_path / "theirs"), small(name), again, parts=("dit",))
    assert read_card(again).parts["dit"].config == read_card(ours).parts["dit"].config
    with pytest.raises(ConfigError, match="a model already"):
        export_dit(ours, str(theirs))


def test_broken_weights_are_not_exported(wan: Path):
    out = wan.parent / "ours"
    import_folder(str(wan), small("1.3b"), str(out), parts=("dit",))
    path = out / "dit.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="sha256"):
        export_dit(str(out), str(wan.parent / "theirs"))
    assert not (wan.parent / "theirs").exists()


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
    path = wan / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(path), "blocks.0.lora": torch.zeros(1)}, path)
    refused(wan, r"1 unknown \(blocks\.0\.lora\)")


def test_nan_is_refused(wan: Path):
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
