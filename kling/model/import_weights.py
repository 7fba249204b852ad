"""`kling import-weights DIR --preset P --out URI`: start from Wan 2.1/2.2 weights in diffusers' folder layout.

Read: transformer/, vae/, text_encoder/ and tokenizer/ of Wan 2.1 text-to-video (1.3B, 14B), image-to-video and
first-last-frame (14B), and Wan 2.2 TI2V-5B. Wan 2.2 A14B is two transformers, for high and for low noise: one of them.

A preset with fewer blocks of the same shape (12b from Wan-14B) takes blocks evenly spread over the source, the first
and the last included; which ones is recorded in kling.json. Tensors pass through one by one: the peak is one shard.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from kling import storage
from kling.errors import CheckpointError, ConfigError, InputError
from kling.model.checkpoint import Stored, TensorEntry, check_names, read_header, tensor_slots, write_part
from kling.model.config import DiTConfig, TextConfig, VAEConfig
from kling.model.controls import ControlLayers
from kling.model.dit import DiT, initialise
from kling.model.vae import VideoVAE
from kling.model.wan import from_wan, to_wan, wan_sources
from kling.presets import Preset, get_preset

PartName = Literal["dit", "vae", "text"]
Expert = Literal["high", "low"]  # noise
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# In published image-to-video files, used by no model (diffusers ignores them too).
_UNUSED = "norm_added_q"


@dataclass(frozen=True, kw_only=True)
class _Arguments:
    """Start from Wan 2.1/2.2 weights in a folder of diffusers' layout."""

    folder: Annotated[str, tyro.conf.Positional]  # holds transformer/, vae/, text_encoder/, tokenizer/
    preset: str
    out: str  # weights folder to write: any storage URI
    vae_from: str | None = None  # another such folder to take vae/ from (12b: a Wan 2.2 TI2V-5B folder)
    expert: Expert | None = None  # which of Wan 2.2 A14B's two transformers
    parts: tuple[PartName, ...] = ("dit", "vae", "text")
    dtype: Literal["as-is", "float32", "bfloat16", "float16"] = "as-is"  # on disk


def command(argv: list[str]) -> None:
    """The body of `kling import-weights`."""
    given = tyro.cli(_Arguments, args=argv, prog="kling import-weights")
    notes = import_folder(
        given.folder,
        get_preset(given.preset),
        given.out,
        vae_from=given.vae_from,
        expert=given.expert,
        parts=given.parts,
        dtype=_DTYPES.get(given.dtype),
    )
    for name, note in notes.items():
        print(f"{name}: {note}")


def import_folder(
    folder: str,
    preset: Preset,
    out: str,
    *,
    vae_from: str | None = None,
    expert: Expert | None = None,
    parts: tuple[PartName, ...] = ("dit", "vae", "text"),
    dtype: torch.dtype | None = None,
) -> dict[str, str]:
    """Write a weights folder from a diffusers folder; returns each part's note.

    Raises:
        CheckpointError: another model than the preset, two transformers and none chosen; missing, truncated, pickled
            or unknown tensors, values that are not finite. Names and shapes of all parts are checked before anything
            is written.
    """
    sources = {
        "dit": lambda: _dit(folder, preset.dit, expert),
        "vae": lambda: _vae(vae_from or folder, preset.vae),
        "text": lambda: _text(folder, preset.text),
    }
    unknown = sorted(set(parts) - set(sources))
    if unknown or not parts:
        raise ConfigError("parts are dit, vae and text", where=f"parts={parts}")
    made = {name: sources[name]() for name in parts}
    for name, part in made.items():
        write_part(
            out, name, part.tensors(), preset=preset.name, config=asdict(part.config), note=part.note, dtype=dtype
        )
    if "text" in made and preset.text.tokenizer != "bytes":
        _copy_tokenizer(storage.join(folder, "tokenizer"), storage.join(out, "tokenizer"))
    return {name: part.note for name, part in made.items()}


@dataclass(frozen=True, kw_only=True)
class _Import:
    config: DiTConfig | VAEConfig | TextConfig
    note: str
    stored: Stored
    fresh: dict[str, Tensor]  # what the source lacks
    dit: DiTConfig | None = None  # sizes of the source's transformer; None: another part

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        if self.dit is None:
            yield from ((f"net.{key}", self.stored[key]) for key in self.stored)
        else:
            yield from (pair for pair in from_wan(self.stored, self.dit) if pair[0] not in self.fresh)
        yield from self.fresh.items()


def _dit(folder: str, wanted: DiTConfig, expert: Expert | None) -> _Import:
    two = storage.exists(storage.join(folder, "transformer_2"))
    if two != (expert is not None):
        raise CheckpointError(
            "two transformers, one for high and one for low noise" if two else "there is one transformer only",
            where=folder,
            fix="Choose one with --expert high or --expert low" if two else "Leave out --expert",
        )
    place = storage.join(folder, "transformer_2" if expert == "low" else "transformer")
    raw = _config(place, "WanTransformer3DModel")
    if raw.get("qk_norm") != "rms_norm_across_heads" or not raw.get("cross_attn_norm", True):
        raise CheckpointError("a variant of Wan's attention that is not supported", where=place)
    source = _dit_config(raw, place, wanted)
    blocks = _spread(source.num_layers, wanted.num_layers)
    config = replace(
        wanted, in_channels=source.in_channels, image_dim=source.image_dim, image_tokens=source.image_tokens
    )
    note = f"from Wan weights ({folder.rstrip('/').rpartition('/')[2]}{f', {expert} noise' if expert else ''})"
    fresh = _fresh_controls(config)
    if source.out_channels != wanted.out_channels:  # made for another VAE
        config = replace(wanted, image_dim=source.image_dim, image_tokens=source.image_tokens)
        fresh = _fresh_controls(config) | _fresh_ends(config)
        note += (
            f"; patch embedding and output are new ({source.out_channels} latent channels became {wanted.out_channels})"
        )
    if len(blocks) < source.num_layers:
        note += f"; blocks {','.join(map(str, blocks))} of {source.num_layers}"
    stored = _stored(place, "diffusion_pytorch_model")
    _check_wan(place, stored, source)
    kept = replace(source, num_layers=len(blocks))
    return _Import(config=config, note=note, stored=_renumbered(stored, kept, blocks), fresh=fresh, dit=kept)


def _dit_config(raw: dict, where: str, wanted: DiTConfig) -> DiTConfig:
    """The source's sizes. Raises CheckpointError where they are not the preset's."""
    try:
        source = replace(
            wanted,
            num_layers=int(raw["num_layers"]),
            num_heads=int(raw["num_attention_heads"]),
            head_dim=int(raw["attention_head_dim"]),
            mlp_dim=int(raw["ffn_dim"]),
            in_channels=int(raw["in_channels"]),
            out_channels=int(raw["out_channels"] or raw["in_channels"]),
            text_dim=int(raw["text_dim"]),
            patch=tuple(raw["patch_size"]),
            time_freq_dim=int(raw["freq_dim"]),
            eps=float(raw["eps"]),
            image_dim=raw.get("image_dim"),
            image_tokens=raw.get("pos_embed_seq_len"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"cannot read the transformer's config ({error})", where=where) from error
    same = ("num_heads", "head_dim", "mlp_dim", "text_dim", "patch", "time_freq_dim", "eps")
    _agree(where, source, wanted, same)
    if source.num_layers < wanted.num_layers:
        raise CheckpointError(
            f"the preset has {wanted.num_layers} blocks, the weights {source.num_layers}", where=where
        )
    return source


def _vae(folder: str, wanted: VAEConfig) -> _Import:
    place = storage.join(folder, "vae")
    raw = _config(place, "AutoencoderKLWan")
    names = {"temporal_downsample": "temperal_downsample"}  # so spelt there
    given = {
        field.name: raw.get(names.get(field.name, field.name), field.default)
        for field in fields(VAEConfig)
        if names.get(field.name, field.name) in raw
    }
    try:
        source = replace(wanted, **{key: tuple(v) if isinstance(v, list) else v for key, v in given.items()})
        mean, std = (torch.tensor(raw[key], dtype=torch.float32) for key in ("latents_mean", "latents_std"))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"cannot read the VAE's config ({error})", where=place) from error
    fix = "Give a folder with the preset's VAE by --vae-from (12b and 5b: Wan 2.2 TI2V-5B), or leave it out by --parts"
    _agree(place, source, wanted, tuple(field.name for field in fields(VAEConfig)), fix)
    fresh = {"latent_mean": mean.repeat(2, 1), "latent_std": std.repeat(2, 1)}  # the first frame as the others
    stored = _stored(place, "diffusion_pytorch_model")
    with torch.device("meta"):
        slots = tensor_slots(VideoVAE(wanted))
    shapes = {f"net.{key}": shape for key, shape in stored.shapes().items()}
    check_names(place, shapes | {key: tuple(t.shape) for key, t in fresh.items()}, slots)
    return _Import(config=wanted, note=f"from Wan weights ({folder})", stored=stored, fresh=fresh)


def _text(folder: str, wanted: TextConfig) -> _Import:
    place = storage.join(folder, "text_encoder")
    raw = _config(place, "UMT5EncoderModel")
    names = {
        "vocab_size": "vocab_size",
        "width": "d_model",
        "mlp_dim": "d_ff",
        "num_layers": "num_layers",
        "num_heads": "num_heads",
        "head_dim": "d_kv",
    }
    try:
        source = replace(wanted, **{ours: int(raw[theirs]) for ours, theirs in names.items()})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"cannot read the text encoder's config ({error})", where=place) from error
    _agree(place, source, wanted, tuple(names))
    stored = _stored(place, "model")
    with torch.device("meta"):
        net = UMT5EncoderModel(
            UMT5Config(
                vocab_size=wanted.vocab_size,
                d_model=wanted.width,
                d_kv=wanted.head_dim,
                d_ff=wanted.mlp_dim,
                num_layers=wanted.num_layers,
                num_heads=wanted.num_heads,
            )
        )
    slots = tensor_slots(net)
    tied = {key for key in net.state_dict() if key not in slots}  # the embedding, under its second name
    stored = Stored(place, {key: entry for key, entry in stored.entries.items() if key not in tied})
    check_names(place, stored.shapes(), slots)
    return _Import(config=wanted, note=f"from Wan weights ({folder})", stored=stored, fresh={})


def _spread(have: int, want: int) -> list[int]:
    """``want`` of ``have`` blocks, evenly spread, the first and the last among them."""
    if want == 1:
        return [0]
    return [round(i * (have - 1) / (want - 1)) for i in range(want)]


def _renumbered(stored: Stored, kept: DiTConfig, blocks: list[int]) -> Stored:
    """Only the kept blocks, counted anew."""
    entries = {}
    for names in wan_sources(kept).values():
        for name in names:
            if name.startswith("blocks."):
                _, index, rest = name.split(".", 2)
                entries[name] = stored.entries[f"blocks.{blocks[int(index)]}.{rest}"]
            else:
                entries[name] = stored.entries[name]
    return Stored(stored.folder, entries)


def _check_wan(place: str, stored: Stored, source: DiTConfig) -> None:
    """Names and shapes of the whole source transformer, from the headers alone."""
    with torch.device("meta"):
        model = DiT(source)
    theirs = dict(to_wan(tensor_slots(model), source))
    shapes = {key: shape for key, shape in stored.shapes().items() if _UNUSED not in key}
    check_names(place, shapes, theirs)


def _fresh_controls(config: DiTConfig) -> dict[str, Tensor]:
    """Controls as a new model has them: the same every time, and without effect on the output."""
    return {f"controls.{key}": value for key, value in _seeded(lambda: ControlLayers(config)).items()}


def _fresh_ends(config: DiTConfig) -> dict[str, Tensor]:
    def build() -> nn.Module:
        cells = config.patch[0] * config.patch[1] * config.patch[2]
        ends = nn.ModuleDict(
            {
                "patch_in": nn.Linear(config.in_channels * cells, config.width),
                "patch_out": nn.Linear(config.width, config.out_channels * cells),
            }
        )
        return ends

    made = _seeded(build)
    made["patch_out.weight"].zero_()
    return made


def _seeded(build) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {key: t.detach() for key, t in build().apply(initialise).state_dict().items()}


def _config(place: str, kind: str) -> dict:
    where = storage.join(place, "config.json")
    try:
        raw = json.loads(storage.read_bytes(where))
    except InputError:
        raise CheckpointError(
            "not a diffusers folder of Wan weights (a component's config.json is missing)",
            where=where,
            fix="Give the folder that holds model_index.json",
        ) from None
    except ValueError as error:
        raise CheckpointError(f"cannot read the config ({error})", where=where) from error
    found = raw.get("_class_name") or (raw.get("architectures") or [None])[0] if isinstance(raw, dict) else None
    if found != kind:
        raise CheckpointError(f"expected a {kind}, found {found}", where=where)
    return raw


def _stored(place: str, stem: str) -> Stored:
    """The files of a component: one safetensors file, or shards with an index."""
    index = storage.join(place, f"{stem}.safetensors.index.json")
    if storage.exists(index):
        try:
            weight_map = json.loads(storage.read_bytes(index))["weight_map"]
            files = sorted(set(weight_map.values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"cannot read the index of shards ({error})", where=index) from error
        if any("/" in file or "\\" in file for file in files):
            raise CheckpointError("the index names files outside its folder", where=index)
    elif storage.exists(storage.join(place, f"{stem}.safetensors")):
        files, weight_map = [f"{stem}.safetensors"], None
    else:
        found = [file for file in storage.list_files(place) if file.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        if found:
            read_header(found[0])  # refuses pickles by name, and says why
        raise CheckpointError("no safetensors weights here", where=place)
    entries: dict[str, TensorEntry] = {}
    for file in files:
        entries.update(read_header(storage.join(place, file)))
    if weight_map is not None and entries.keys() != weight_map.keys():
        raise CheckpointError("the shards do not hold the tensors that their index lists", where=index)
    return Stored(place, entries)


def _agree(where: str, source, wanted, names: tuple[str, ...], fix: str = "Choose the preset of the same size") -> None:
    other = [name for name in names if getattr(source, name) != getattr(wanted, name)]
    if other:
        told = ", ".join(f"{name} {getattr(source, name)} (preset: {getattr(wanted, name)})" for name in other[:4])
        raise CheckpointError(f"these weights have other sizes than the preset: {told}", where=where, fix=fix)


def _copy_tokenizer(source: str, target: str) -> None:
    for file in storage.list_files(source):
        storage.write_bytes(storage.join(target, file.rpartition("/")[2]), storage.read_bytes(file))
