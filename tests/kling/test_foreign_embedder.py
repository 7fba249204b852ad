"""A SigLIP or CLIP as the embedder: the real classes, tiny, with weights that nobody taught."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.stages.s4_score import score_clip
from data.work import Clip, Options
from kling.errors import CheckpointError
from kling.sight import foreign
from tests.data.raw_files import moving


@pytest.fixture(scope="module", params=["siglip", "clip"])
def published(request, tmp_path_factory) -> Path:
    """A folder as `save_pretrained` writes it: the real classes, tiny, with weights that nobody taught."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp(request.param)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = sizes | {"vocab_size": 50, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
    vision = sizes | {"image_size": 32, "patch_size": 8}
    config, model = {
        "siglip": (transformers.SiglipConfig, transformers.SiglipModel),
        "clip": (transformers.CLIPConfig, transformers.CLIPModel),
    }[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(config(text_config=text, vision_config=vision)).save_pretrained(folder)
    words = {word: i for i, word in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", "a", "red", "blue", "ball"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]", bos_token="[BOS]"
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return folder


def test_a_published_model_takes_its_place(published):
    frames = moving(17)
    chosen = foreign.ForeignEmbedder(published)
    vectors = chosen.embed_frames(frames)
    assert vectors.shape[0] == len(frames) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    texts = chosen.embed_text(["a red ball", "a blue ball", "a red ball"])
    assert np.allclose(texts[0], texts[2]) and not np.allclose(texts[0], texts[1])
    assert chosen.embed_clip(frames).shape == texts[0].shape
    # The model itself says the same of a picture and a text.
    small = cv2.resize(frames[0], (32, 32), interpolation=cv2.INTER_AREA)
    pixels = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 127.5 - 1
    tokens = chosen._tokenizer(
        ["a red ball"], padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    tokens = {name: value for name, value in tokens.items() if name != "token_type_ids"}
    with torch.no_grad():
        said = chosen._model(pixel_values=pixels, **tokens)
    alike = (said.image_embeds @ said.text_embeds.T).item()
    assert vectors[0] @ texts[0] == pytest.approx(alike, abs=1e-5)


def test_curation_scores_with_it(published):
    frames = moving(17)
    clips = [Clip(clip_id="", index=0, start_s=0, end_s=2, split="train", pixels=frames) for _ in range(2)]
    score_clip(clips[0])
    score_clip(clips[1], Options(embedder=str(published), embedder_sum=foreign.digest(published)))
    assert clips[0].scores["semantic"] != clips[1].scores["semantic"]
    assert clips[0].scores["motion"] == clips[1].scores["motion"]


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="no model there"):
        foreign.ForeignEmbedder(tmp_path)
    with pytest.raises(CheckpointError, match="safetensors"):
        foreign.digest(tmp_path)
