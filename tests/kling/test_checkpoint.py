"""Weights folders: what is saved comes back; whatever is wrong is named, and the module stays as it was."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from kling import storage
from kling.errors import CheckpointError
from kling.model import checkpoint
from kling.model.checkpoint import CARD, load_part, read_card, read_header, save_part, write_part
from kling.model.config import DiTConfig, TextConfig
from kling.model.dit import DiT
from kling.model.text import TextEncoder

CONFIG = DiTConfig(num_layers=2, num_heads=2, head_dim=12, mlp_dim=32, in_channels=3, out_channels=3, text_dim=8)


def model(seed: int = 0) -> DiT:
    torch.manual_seed(seed)
    made = DiT(CONFIG)
    for p in made.parameters():
        torch.nn.init.normal_(p)
    return made


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    save_part(str(tmp_path), "dit", model(), preset="tiny", note="made for a test")
    return str(tmp_path)


def test_what_is_saved_comes_back_and_describes_itself(folder: str):
    other = model(1)
    load_part(folder, "dit", other)
    assert same(other, model())
    card = read_card(folder)
    assert card.preset == "tiny"
    assert card.parts["dit"].note == "made for a test"
    assert card.parts["dit"].config["num_heads"] == 2
    assert [file.name for file in card.parts["dit"].files] == ["dit.safetensors"]


@pytest.mark.parametrize("place", ["memory://weights/a", "file"])
def test_any_storage(place: str, tmp_path: Path):
    uri = f"file://{tmp_path}" if place == "file" else place
    save_part(uri, "dit", model(), preset="tiny")
    other = model(1)
    load_part(uri, "dit", other)
    assert same(other, model())


def test_a_meta_module_is_filled_without_being_made_first(folder: str):
    with torch.device("meta"):
        empty = DiT(CONFIG)
    load_part(folder, "dit", empty)
    assert same(empty, model())
    assert all(p.requires_grad for p in empty.parameters())


def test_shards_come_back_and_big_models_are_cut(tmp_path: Path):
    source = model()
    tensors = iter(source.state_dict().items())
    write_part(str(tmp_path), "dit", tensors, preset="tiny", config={}, shard_bytes=8_000)
    names = [file.name for file in read_card(str(tmp_path)).parts["dit"].files]
    assert len(names) > 3
    assert names[0] == "dit-00001.safetensors"
    other = model(1)
    load_part(str(tmp_path), "dit", other)
    assert same(other, source)


def test_half_precision_on_disk_is_cast_on_load(tmp_path: Path):
    save_part(str(tmp_path), "dit", model(), preset="tiny", dtype=torch.float16)
    other = model(1)
    load_part(str(tmp_path), "dit", other)
    for key, value in model().state_dict().items():
        loaded = other.state_dict()[key]
        assert loaded.dtype == torch.float32
        assert torch.equal(loaded, value.half().float())


def test_parts_are_added_and_replaced_without_leftovers(folder: str):
    save_part(folder, "text", nn.Linear(2, 2), preset="tiny")
    save_part(folder, "dit", model(5), preset="tiny")
    card = read_card(folder)
    assert set(card.parts) == {"dit", "text"}
    listed = {file.name for part in card.parts.values() for file in part.files}
    assert {Path(file).name for file in storage.list_files(folder)} == listed | {CARD}
    other = model(1)
    load_part(folder, "dit", other)
    assert same(other, model(5))


def test_a_save_that_dies_leaves_the_old_weights(folder: str, monkeypatch: pytest.MonkeyPatch):
    write = storage.write_bytes

    def die(uri, data):
        if uri.endswith(CARD):
            raise KeyboardInterrupt
        write(uri, data)

    monkeypatch.setattr(checkpoint.storage, "write_bytes", die)
    with pytest.raises(KeyboardInterrupt):
        save_part(folder, "dit", model(5), preset="tiny")
    monkeypatch.undo()
    other = model(1)
    load_part(folder, "dit", other)
    assert same(other, model())


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path):
    sizes = TextConfig(
        tokenizer="bytes", vocab_size=384, width=16, mlp_dim=16, num_layers=1, num_heads=2, head_dim=8, max_tokens=9
    )
    torch.manual_seed(0)
    source = TextEncoder(sizes)
    save_part(str(tmp_path), "text", source, preset="tiny")
    with torch.device("meta"):
        other = TextEncoder(sizes)
    load_part(str(tmp_path), "text", other)
    assert same(source, other)
    assert other.net.shared.weight is other.net.encoder.embed_tokens.weight


def refused(folder: str, name: str = "dit", module: nn.Module | None = None) -> str:
    """Loading fails, says why in one line, and changes nothing."""
    module = module or model(1)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_part(folder, name, module)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_truncated(folder: str, cut: int):
    path = Path(folder, "dit.safetensors")
    path.write_bytes(path.read_bytes()[:cut])
    assert "truncated" in refused(folder)


def test_longer_than_it_says(folder: str):
    path = Path(folder, "dit.safetensors")
    path.write_bytes(path.read_bytes() + b"x")
    assert "not a safetensors file" in refused(folder)


def test_not_safetensors(folder: str):
    Path(folder, "dit.safetensors").write_bytes(b"\xff" * 1000)
    assert "not a safetensors file" in refused(folder)


def test_a_flipped_bit(folder: str):
    path = Path(folder, "dit.safetensors")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert "sha256" in refused(folder)


def test_a_missing_file(folder: str):
    Path(folder, "dit.safetensors").unlink()
    assert "missing" in refused(folder)


def test_another_shape(folder: str):
    wide = DiT(DiTConfig(**{**CONFIG.__dict__, "mlp_dim": 48}))
    assert "mlp_dim 32 (here 48)" in refused(folder, module=wide)


def test_other_heads_of_the_same_width_are_another_model(folder: str):
    other = DiT(DiTConfig(**{**CONFIG.__dict__, "num_heads": 4, "head_dim": 6}))
    assert "num_heads 2 (here 4)" in refused(folder, module=other)


def test_another_window_is_the_same_model(folder: str):
    other = DiT(DiTConfig(**{**CONFIG.__dict__, "window": None}))
    load_part(folder, "dit", other)
    assert same(other, model())


def test_unknown_missing_and_misshapen_tensors(folder: str):
    state = dict(model().state_dict())
    value = state.pop("patch_out.bias")
    write_part(folder, "dit", iter({**state, "surprise": value}.items()), preset="tiny", config={})
    told = refused(folder)
    assert "1 missing (patch_out.bias)" in told
    assert "1 unknown (surprise)" in told
    write_part(folder, "dit", iter({**state, "patch_out.bias": value[:-1]}.items()), preset="tiny", config={})
    assert "patch_out.bias has shape (11,), the model's is (12,)" in refused(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_neither_saved_nor_loaded(folder: str, bad: float, monkeypatch):
    broken = model()
    with torch.no_grad():
        broken.patch_out.bias[0] = bad
    files = set(storage.list_files(folder))
    with pytest.raises(CheckpointError, match=r"patch_out\.bias"):
        save_part(folder, "dit", broken, preset="tiny")
    assert set(storage.list_files(folder)) == files  # and nothing is left behind
    monkeypatch.setattr(checkpoint, "_finite", lambda key, value, dtype: value)
    save_part(folder, "dit", broken, preset="tiny")
    monkeypatch.undo()
    assert "not finite" in refused(folder)


def test_a_value_too_large_for_half_precision_is_not_saved_as_infinity(tmp_path: Path):
    big = nn.Linear(1, 1)
    nn.init.constant_(big.weight, 1e6)
    with pytest.raises(CheckpointError, match="float16"):
        save_part(str(tmp_path), "x", big, preset="tiny", dtype=torch.float16)


@pytest.mark.parametrize("name", ["weights.bin", "weights.pt", "x.pth", "model.ckpt", "a.pkl"])
def test_pickles_are_refused_by_name(folder: str, name: str, tmp_path: Path):
    card = json.loads(Path(folder, CARD).read_text())
    card["parts"]["dit"]["files"][0]["name"] = name
    Path(folder, CARD).write_text(json.dumps(card))
    torch.save(model().state_dict(), Path(folder, name))
    assert "unpickling runs code" in refused(folder)
    with pytest.raises(CheckpointError, match="unpickling"):
        read_header(str(Path(folder, name)))


def test_folders_that_are_none(tmp_path: Path):
    assert "no kling.json" in refused(str(tmp_path))
    (tmp_path / CARD).write_text("{")
    assert "cannot read the description" in refused(str(tmp_path))
    (tmp_path / CARD).write_text(json.dumps({"format": 99, "preset": "x", "parts": {}}))
    assert "format 99" in refused(str(tmp_path))


def test_a_part_that_is_not_there(folder: str):
    assert "has no 'vae'" in refused(folder, name="vae")


def test_a_file_outside_the_folder_is_not_read(folder: str, tmp_path: Path):
    shutil.copy(Path(folder, "dit.safetensors"), tmp_path.parent / "outside.safetensors")
    card = json.loads(Path(folder, CARD).read_text())
    card["parts"]["dit"]["files"][0]["name"] = "../outside.safetensors"
    Path(folder, CARD).write_text(json.dumps(card))
    assert "outside its folder" in refused(folder)
