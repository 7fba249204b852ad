"""What a `DiTConfig` costs, in closed form: parameters, floating-point operations, bytes. Nothing is built or run.

A multiplication and an addition are two operations. Only matrix products and attention are counted (what
`torch.utils.flop_counter` counts): the rest is bound by memory, not arithmetic. Operations are checked against that
counter, bytes against the measured peak (tests; table in docs/benchmarks/model.md).
"""

import math
from dataclasses import dataclass

from kling.errors import ConfigError
from kling.model.attention import Grid, Reach, visible_spans
from kling.model.config import DiTConfig
from kling.model.controls import FLOOR_NUMBERS, FLOOR_POINTS, floor_channels
from kling.model.dit import RUN_TOKENS


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One call of the network: how much it is given."""

    grid: Grid  # tokens of the clip
    batch: int = 1
    text_tokens: int = 512
    chunk: int | None = None  # chunk-causal attention, in latent frames
    controls: bool = False  # camera, flow and every object slot
    time_per_frame: bool = False  # a diffusion time for each latent frame


def num_parameters(config: DiTConfig) -> int:
    """Equal to the parameters of `DiT(config)`, without building it."""
    d, m, c = config.width, config.mlp_dim, config.control_width
    cells = math.prod(config.patch)
    attention = _linear(d, 3 * d) + 2 * d + _linear(d, d)
    cross = 2 * d + _linear(d, d) + _linear(d, 2 * d) + 2 * d + _linear(d, d)
    block = 6 * d + attention + cross + _linear(d, m) + _linear(m, d)
    image_in = 0
    if config.image_dim is not None:
        e = config.image_dim
        block += _linear(d, 2 * d) + d
        image_in = 2 * e + _linear(e, e) + _linear(e, d) + 2 * d + (config.image_tokens or 0) * e
    maps = 6 + 2 + floor_channels(config.floor_waves) + config.object_maps  # camera, flow, floor, objects
    controls = maps * cells * c + config.text_dim * c + 2 * c * c
    controls += _control_sites(config) * c * d + 2 * _linear(config.out_channels * cells, d)
    controls += _linear(config.time_freq_dim, c) + _linear(c, d)  # fps
    time = _linear(config.time_freq_dim, d) + _linear(d, d) + _linear(d, 6 * d)
    ends = _linear(config.in_channels * cells, d) + _linear(d, config.out_channels * cells) + 2 * d
    text_in = _linear(config.text_dim, d) + _linear(d, d)
    return config.num_layers * block + image_in + controls + time + ends + text_in


def visible_pairs(config: DiTConfig, work: Workload) -> int:
    """(query, key) pairs of self-attention in one layer and one clip: linear in frames with a window."""
    spans = visible_spans(Reach(grid=work.grid, window=config.window, chunk=work.chunk))
    return work.grid.frame_tokens**2 * sum((last - first) * (high - low) for first, last, low, high in spans)


def step_flops(config: DiTConfig, work: Workload) -> int:
    """One evaluation with a prepared context (`DiT.prepare`), as at every sampling step."""
    d, tokens = config.width, work.grid.num_tokens
    cells = math.prod(config.patch)
    times = work.grid.frames if work.time_per_frame else 1
    ends = 2 * tokens * cells * (config.in_channels + config.out_channels) * d
    time = 2 * times * (config.time_freq_dim * d + 7 * d * d)
    controls = 2 * tokens * _control_sites(config) * config.control_width * d if work.controls else 0
    return work.batch * (ends + time + controls + config.num_layers * _block_flops(config, work))


def prepare_flops(config: DiTConfig, work: Workload) -> int:
    """`DiT.prepare`: text to keys and values of every block, controls to tokens. Once a clip, or a training step."""
    d, c, text = config.width, config.control_width, work.text_tokens
    flops = 2 * text * (config.text_dim * d + d * d) + config.num_layers * 2 * text * d * 2 * d
    if work.controls:
        k = config.object_slots
        token = _control_inputs(config) * c + k * c * c + c * c
        flops += 2 * work.grid.num_tokens * token + 2 * k * config.text_dim * c
    return work.batch * flops


def training_flops(config: DiTConfig, work: Workload, *, recompute: bool = False) -> int:
    """Forward and backward of one micro-batch: three times the forward, less the gradients of the inputs, which nobody
    asks for. ``recompute`` adds the blocks' forward (activation checkpointing)."""
    cells, d, c = math.prod(config.patch), config.width, config.control_width
    times = work.grid.frames if work.time_per_frame else 1
    inputs = 2 * work.grid.num_tokens * cells * config.in_channels * d
    inputs += 2 * times * config.time_freq_dim * d + 2 * work.text_tokens * config.text_dim * d
    if work.controls:
        maps = _control_inputs(config)
        inputs += 2 * work.grid.num_tokens * maps * c + 2 * config.object_slots * config.text_dim * c
    again = work.batch * config.num_layers * _block_flops(config, work) if recompute else 0
    return 3 * (step_flops(config, work) + prepare_flops(config, work)) - work.batch * inputs + again


def _block_flops(config: DiTConfig, work: Workload) -> int:
    d, m, tokens = config.width, config.mlp_dim, work.grid.num_tokens
    products = 2 * tokens * (3 * d * d + d * d + 2 * d * d + 2 * d * m)  # qkv, out; cross q, out; MLP
    attention = 4 * visible_pairs(config, work) * d + 4 * tokens * work.text_tokens * d
    return products + attention


def weight_bytes(config: DiTConfig, *, number_bytes: int = 2) -> int:
    """The weights alone; 2 bytes a number in bf16, 4 in fp32."""
    return num_parameters(config) * number_bytes


def training_state_bytes(config: DiTConfig, *, zero_stage: int = 0, ranks: int = 1, mixed: bool = True) -> int:
    """Weights, gradients and AdamW's state on each rank (ZeRO, arXiv:1910.02054, section 3: 2 + 2 + 12 bytes a
    parameter in mixed precision, 4 + 4 + 8 in fp32; stages 1, 2, 3 divide the optimizer, gradients, weights by ranks).

    Raises:
        ConfigError: a stage that is not 0 to 3.
    """
    if zero_stage not in (0, 1, 2, 3):
        raise ConfigError("ZeRO has stages 0 to 3", where=f"zero_stage={zero_stage}")
    weights, gradients, optimizer = (2, 2, 12) if mixed else (4, 4, 8)
    divided = [
        part / (ranks if zero_stage >= stage else 1) for part, stage in ((optimizer, 1), (gradients, 2), (weights, 3))
    ]
    return math.ceil(num_parameters(config) * sum(divided))


def context_bytes(config: DiTConfig, work: Workload, *, number_bytes: int = 2) -> int:
    """What `DiT.prepare` makes and a clip keeps while it is denoised: text of every block (normalised keys, and the
    product that holds the values), and the control tokens."""
    text = 3 * config.num_layers * work.text_tokens * config.width
    control = work.grid.num_tokens * config.control_width if work.controls else 0
    return work.batch * (text + control) * number_bytes


def step_activation_bytes(config: DiTConfig, work: Workload, *, number_bytes: int = 2) -> int:
    """Largest sum of activations alive at once in a sampling step, the context not counted.

    A long clip has it in self-attention: the block's input, its modulated copy, queries, keys and values, the result
    before and after its projection; what is done in runs of tokens adds a run's. A short one, whose tokens are done at
    once, has it inside the MLP (the block's input, the stream of tokens, its modulated copy, attention's result, and
    the hidden layer before and after GELU), or with a narrow MLP where queries and keys are normalised, in fp32.
    """
    d, m, tokens = config.width, config.mlp_dim, work.batch * work.grid.num_tokens
    run = min(tokens, work.batch * RUN_TOKENS)
    turned = 4 * max(4, number_bytes) // number_bytes  # normalised without and with weights, or rotated
    if work.grid.num_tokens > RUN_TOKENS:
        attention = max(7 * tokens, 5 * tokens + turned * run) * d
    else:
        attention = (5 + turned) * tokens * d
    mlp = max(6 * tokens * d, 5 * tokens * d + 2 * RUN_TOKENS * m) if tokens > RUN_TOKENS else (4 * d + 2 * m) * tokens
    return max(attention, mlp) * number_bytes


def training_activation_bytes(
    config: DiTConfig, work: Workload, *, recompute: bool = False, number_bytes: int = 2
) -> int:
    """Largest sum of activations in forward and backward; gradients of weights are in `training_state_bytes`.

    A block keeps 22 vectors of the token width and two of the MLP's (one more with a window, whose pieces are joined):
    attention 12 (its input, normalised, modulated, qkv 3, q and k normalised 2 and rotated 2, result, projected),
    cross-attention 6, MLP 4 + 2 hidden ones; and 4 of each text token. Backward begins with 2 and a hidden one on top.
    One clip alone is normalised and modulated in one pass, and keeps 2 less. Below fp32, normalised queries and keys
    are fp32 still. Controls keep three tokens of their width for each object slot, and three of all together.
    With ``recompute`` each block keeps its input and the text's keys and values, and one block at a time the rest.
    """
    d, m, tokens, text = config.width, config.mlp_dim, work.batch * work.grid.num_tokens, work.batch * work.text_tokens
    windowed = len(visible_spans(Reach(grid=work.grid, window=config.window, chunk=work.chunk))) > 1
    vectors = 20 + 2 * max(4, number_bytes) // number_bytes + windowed - 2 * (work.batch == 1)
    block = tokens * (vectors * d + 2 * m)
    blocks = config.num_layers * tokens * d + block if recompute else config.num_layers * block
    ends = tokens * (3 * d + 2 * math.prod(config.patch) * (config.in_channels + config.out_channels))
    texts = text * (4 * config.num_layers + 3) * d
    controls = control_activation_bytes(config, work, number_bytes=1) if work.controls else 0
    return (blocks + ends + texts + controls + tokens * (2 * d + m)) * number_bytes


def control_activation_bytes(config: DiTConfig, work: Workload, *, number_bytes: int = 2) -> int:
    """What the controls' own layers keep for backward, for every token: of each slot its maps, its product with the
    phrase, and that before and after the non-linearity; the sum before and after it; the tokens; camera and flow."""
    c = config.control_width
    token = 3 * (config.object_slots + 1) * c + _control_inputs(config)
    return work.batch * work.grid.num_tokens * token * number_bytes


def control_map_bytes(config: DiTConfig, work: Workload) -> int:
    """The controls as a training step is given them, in fp32: camera, flow, the floor's points, every slot's maps."""
    floor = FLOOR_POINTS * FLOOR_NUMBERS if config.floor_waves else 0
    maps = 6 + 2 + floor + config.object_slots * config.object_maps
    return 4 * maps * work.batch * work.grid.num_tokens * math.prod(config.patch)


def memory_bytes(config: DiTConfig, work: Workload, *, number_bytes: int = 2) -> int:
    """Keys and values that a chunk-causal roll-out keeps: those of ``window // 2`` frames, in every block."""
    frames = work.grid.frames if config.window is None else min(work.grid.frames, config.window // 2)
    return 2 * config.num_layers * work.batch * frames * work.grid.frame_tokens * config.width * number_bytes


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _control_inputs(config: DiTConfig) -> int:
    """What a token's controls are read from: camera, flow, waves of the floor, and every slot's maps."""
    maps = 6 + 2 + floor_channels(config.floor_waves) + config.object_slots * config.object_maps
    return maps * math.prod(config.patch)


def _control_sites(config: DiTConfig) -> int:
    return 1 + (config.num_layers - 1) // config.control_every
