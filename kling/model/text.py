"""The text encoder: prompts to token states (transformers' UMT5 encoder at the size of a `TextConfig`).

transformers is imported when an encoder is made, and not before: it takes longer to import than torch, and most
processes (a rank that trains or denoises) only pass states on.
"""

import os
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from kling.errors import CheckpointError
from kling.model.config import TextConfig
from kling.shapes import Tokens

if TYPE_CHECKING:
    from transformers import UMT5EncoderModel


class TextStates(NamedTuple):
    """States of a batch of prompts, padded to the longest; ``mask`` is True on real tokens. Padded states are zero."""

    states: Tokens
    mask: Bool[Tensor, "b l"]


class TextEncoder(nn.Module):
    """Prompts in, token states out. The empty prompt is one token (end of text): the unconditional case of guidance."""

    def __init__(self, config: TextConfig, *, tokenizer_dir: str | os.PathLike | None = None):
        super().__init__()
        self.config = config
        self.net = _network(config)
        self.tokenizer = _tokenizer(config, tokenizer_dir)

    def tokenize(self, prompts: list[str]) -> tuple[Tensor, Bool[Tensor, "b l"]]:
        """Token ids and mask, cut at ``max_tokens``. `num_tokens` tells whether a prompt is cut."""
        batch = self.tokenizer(
            prompts, padding=True, truncation=True, max_length=self.config.max_tokens, return_tensors="pt"
        )
        return batch["input_ids"], batch["attention_mask"].bool()

    def num_tokens(self, prompt: str) -> int:
        return len(self.tokenizer(prompt)["input_ids"])

    def forward(self, ids: Tensor, mask: Bool[Tensor, "b l"]) -> TextStates:
        states = self.net(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return TextStates(states * mask.unsqueeze(-1), mask)

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> TextStates:
        """States without gradients, on the device of the weights."""
        device = next(self.parameters()).device
        ids, mask = self.tokenize(prompts)
        return self(ids.to(device), mask.to(device))


def _network(config: TextConfig) -> "UMT5EncoderModel":
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=config.vocab_size,
            d_model=config.width,
            d_kv=config.head_dim,
            d_ff=config.mlp_dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            is_encoder_decoder=False,
            use_cache=False,
            dropout_rate=0.0,
        )
    )


def _tokenizer(config: TextConfig, folder: str | os.PathLike | None):
    if config.tokenizer == "bytes":
        from transformers import ByT5Tokenizer

        return ByT5Tokenizer()
    if folder is None:
        raise CheckpointError(
            "the umT5 tokenizer lies beside the weights, and no weights folder was given",
            fix="Pass the folder that holds text encoder and tokenizer",
        )
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(os.fspath(folder), local_files_only=True, trust_remote_code=False)
