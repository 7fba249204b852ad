"""Plan before you pay: memory, FLOPs, bytes, time and money of a run, from the preset's sizes alone.

Every figure is arithmetic that can be redone by hand; every assumption is a field. Where the formulas come from:
kling.model.flops (operations and activations, checked there), ZeRO's division of states (arXiv:1910.02054), rings of
all-gather and reduce-scatter (each rank sends (n-1)/n of the buffer).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from kling.errors import ConfigError
from kling.model.attention import Grid
from kling.model.flops import Workload, num_parameters, training_flops
from kling.presets import PRESETS, Preset, get_preset

from .config import check_positive
from .memory import Memory, rank_memory


@dataclass(frozen=True, kw_only=True)
class GPU:
    memory_bytes: int
    flops: float  # dense bf16, a second
    link_bytes_s: float  # to the other GPUs of its node, one direction
    usd_hour: float  # an assumption: on-demand price of one GPU in an 8-GPU node


GPUS = {
    "a100-80gb": GPU(memory_bytes=80 * 10**9, flops=312e12, link_bytes_s=300e9, usd_hour=2.5),
    "h100-80gb": GPU(memory_bytes=80 * 10**9, flops=989e12, link_bytes_s=450e9, usd_hour=4.0),
}


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What is asked. Times and prices follow from assumptions; change them with the flags of the same name."""

    preset: Annotated[str, tyro.conf.Positional]
    nodes: int = 1
    gpus_per_node: int = 8
    gpu: str = "a100-80gb"
    zero_stage: int = 3
    sequence_parallel: int = 8  # ranks that share a clip, inside a node
    clips_per_group: int = 1  # a step, for each group of ranks that shares clips
    micro_batches: int = 1  # passes in which a group computes its clips
    activation_checkpointing: bool = True
    steps: int = 100_000
    mfu: float = 0.30  # assumed share of the peak; Wan-14B's report says 17.8 to 32.9 %
    node_link_bytes_s: float = 50e9  # of a node to the others, one direction (4 x 100 Gbit/s)
    reserve: float = 0.08  # of memory: CUDA context, NCCL buffers, fragmentation

    def __post_init__(self):
        if self.gpu not in GPUS:
            raise ConfigError("unknown GPU", where=f"--gpu {self.gpu}", fix=f"Choose one of: {', '.join(GPUS)}")
        check_positive(self, "nodes", "gpus_per_node", "sequence_parallel", "clips_per_group", "micro_batches", "steps",
                       "mfu", "node_link_bytes_s")  # fmt: skip
        heads = get_preset(self.preset).dit.num_heads
        for name, whole in (("GPUs of a node", self.gpus_per_node), ("heads", heads)):
            if whole % self.sequence_parallel:
                raise ConfigError(
                    f"{whole} {name} do not divide over ranks that share a clip",
                    where=f"--sequence-parallel {self.sequence_parallel}",
                    fix=f"Use a divisor of {math.gcd(self.gpus_per_node, heads)}",
                )
        if self.clips_per_group % self.micro_batches:
            raise ConfigError(
                f"{self.clips_per_group} clips do not divide into passes",
                where=f"--micro-batches {self.micro_batches}",
                fix="Use a divisor of --clips-per-group",
            )

    @property
    def ranks(self) -> int:
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Of one GPU where not said otherwise."""

    request: PlanRequest
    num_parameters: int
    memory: Memory
    tokens_per_step: int  # all GPUs
    flops_per_step: float  # all GPUs, recomputation not counted (as MFU is defined)
    node_link_bytes: float  # sent by one GPU to its node's others, a step
    network_bytes: float  # sent by one node to the others, a step
    step_s: float

    @property
    def total_bytes(self) -> float:
        return self.memory.peak

    @property
    def fits(self) -> bool:
        return self.total_bytes <= (1 - self.request.reserve) * GPUS[self.request.gpu].memory_bytes

    @property
    def days(self) -> float:
        return self.step_s * self.request.steps / 86_400

    @property
    def usd(self) -> float:
        return self.days * 24 * self.request.ranks * GPUS[self.request.gpu].usd_hour


def command(arguments: list[str]) -> None:
    """The subcommand's body. A preset's own scale is the default."""
    name = next((word for word in arguments if word in PRESETS), None)
    prog = "python -m train plan"
    if name is None:  # without defaults of a preset: what is missing or unknown is said
        request = tyro.cli(PlanRequest, args=arguments, prog=prog)
    else:
        default = PlanRequest(preset=name, **scale_of(name))
        request = tyro.cli(PlanRequest, args=arguments, prog=prog, default=default)
    print(describe(checked_plan(request)))


def make_plan(request: PlanRequest) -> Plan:
    """The arithmetic. It does not judge: `checked_plan` does."""
    preset, gpu, ranks = get_preset(request.preset), GPUS[request.gpu], request.ranks
    count, clip = num_parameters(preset.dit), workload(preset)
    tokens = clip.grid.num_tokens
    groups = ranks // request.sequence_parallel
    clips = groups * request.clips_per_group
    flops = training_flops(preset.dit, clip) * clips
    compute_s = flops / (ranks * gpu.flops * request.mfu)
    # bf16: gradients reduced, updated weights gathered; ZeRO-2 reduces in each pass, ZeRO-3 also gathers twice in each.
    passes = {0: 2, 1: 2, 2: request.micro_batches + 1, 3: 3 * request.micro_batches}[request.zero_stage]
    moved = 2 * count * passes * (ranks - 1) / ranks
    ulysses = attention_bytes(preset, tokens, request)
    across = moved if request.nodes > 1 else 0.0
    network_s = across / request.node_link_bytes_s
    link_s = (moved + ulysses) / gpu.link_bytes_s
    return Plan(
        request=request,
        num_parameters=count,
        memory=rank_memory(
            preset.dit,
            workload(preset, request.clips_per_group // request.micro_batches),
            ranks=ranks,
            zero_stage=request.zero_stage,
            sequence_parallel=request.sequence_parallel,
            micro_batches=request.micro_batches,
            recompute=request.activation_checkpointing,
            number_bytes=2,
        ),
        tokens_per_step=tokens * clips,
        flops_per_step=flops,
        node_link_bytes=moved + ulysses,
        network_bytes=across,
        # Gathering overlaps computing: the slower of the two counts. The all-to-alls of attention do not.
        step_s=max(compute_s, network_s, link_s - ulysses / gpu.link_bytes_s) + ulysses / gpu.link_bytes_s,
    )


def checked_plan(request: PlanRequest) -> Plan:
    """Raises ConfigError when it does not fit, naming the nearest plan that does."""
    plan = make_plan(request)
    if plan.fits:
        return plan
    nearest = next((p for p in map(make_plan, _neighbours(request)) if p.fits), None)
    gpu = GPUS[request.gpu]
    fix = "No arrangement of up to 64 times as many nodes fits"
    if nearest is not None:
        r = nearest.request
        fix = (
            f"The nearest that fits: --nodes {r.nodes} --zero-stage {r.zero_stage} --sequence-parallel "
            f"{r.sequence_parallel} --clips-per-group {r.clips_per_group} --micro-batches {r.micro_batches}"
            f"{' --activation-checkpointing' if r.activation_checkpointing else ''} ({_gb(nearest.total_bytes)})"
        )
    usable = (1 - request.reserve) * gpu.memory_bytes
    raise ConfigError(
        f"the plan needs {_gb(plan.total_bytes)} a GPU, and {_gb(usable)} can be used",
        where=f"{request.preset} on {request.ranks} x {request.gpu}",
        fix=fix,
    )


def _neighbours(request: PlanRequest) -> Iterator[PlanRequest]:
    """Other plans of as many clips a node, the cheapest change first: passes, recomputing, stage, sharing, nodes."""
    each, heads = request.gpus_per_node, get_preset(request.preset).dit.num_heads
    shares = [n for n in range(request.sequence_parallel, each + 1) if each % n == 0 and heads % n == 0]
    for nodes in (request.nodes * 2**i for i in range(7)):
        for share in shares:
            clips = request.clips_per_group * share // request.sequence_parallel
            if clips * request.sequence_parallel != request.clips_per_group * share:
                continue
            for stage in range(request.zero_stage, 4):
                for again in sorted({request.activation_checkpointing, True}):
                    for passes in (n for n in range(request.micro_batches, clips + 1) if clips % n == 0):
                        yield replace(
                            request,
                            nodes=nodes,
                            sequence_parallel=share,
                            clips_per_group=clips,
                            zero_stage=stage,
                            activation_checkpointing=again,
                            micro_batches=passes,
                        )


def scale_of(preset: str) -> dict:
    """What a request of this preset is unless it says otherwise: as `python -m train` runs it."""
    count = num_parameters(PRESETS[preset].dit)
    if count >= 2e9:
        return {}
    return {"zero_stage": 2, "sequence_parallel": 1, "activation_checkpointing": count >= 1e8}


def workload(preset: Preset, clips: int = 1) -> Workload:
    """Clips of the preset's size, with text of full length and every control."""
    clip, vae = preset.clip, preset.vae
    latent = (vae.latent_frames(clip.num_frames), clip.height_px // vae.stride_px, clip.width_px // vae.stride_px)
    frames, height, width = (size // patch for size, patch in zip(latent, preset.dit.patch, strict=True))
    grid = Grid(frames=frames, height=height, width=width)
    return Workload(grid=grid, batch=clips, text_tokens=preset.text.max_tokens, controls=True)


def attention_bytes(preset: Preset, tokens: int, request: PlanRequest) -> float:
    """Ulysses: q, k, v and the result cross, forward, recomputed and backward."""
    u = request.sequence_parallel
    local = request.clips_per_group * tokens / u
    each_pass = preset.dit.num_layers * 4 * local * preset.dit.width * 2 * (u - 1) / u
    return each_pass * (3 if request.activation_checkpointing else 2)


def _gb(value: float) -> str:
    return f"{value / 1e9:.1f} GB" if value >= 1e8 else f"{value / 1e6:.1f} MB"


def describe(plan: Plan) -> str:
    """The plan as lines a person reads."""
    r = plan.request
    rows = [
        ("GPUs", f"{r.nodes} x {r.gpus_per_node} {r.gpu}, ZeRO-{r.zero_stage}, {r.sequence_parallel} a clip"),
        ("parameters", f"{plan.num_parameters:,}"),
        ("memory a GPU", f"{_gb(plan.total_bytes)} of {_gb(GPUS[r.gpu].memory_bytes)}"),
        *((f"  {name}", _gb(size)) for name, size in plan.memory.parts().items()),
        ("tokens a step", f"{plan.tokens_per_step:,}"),
        ("FLOPs a step", f"{plan.flops_per_step:.3g}"),
        ("sent a step", f"{_gb(plan.node_link_bytes)} a GPU in its node, {_gb(plan.network_bytes)} a node outside"),
        ("step time", f"{plan.step_s:.3g} s at {100 * r.mfu:.0f} % MFU (assumed)"),
        ("days", f"{plan.days:.3g} for {r.steps:,} steps"),
        ("money", f"${plan.usd:,.{0 if plan.usd >= 10 else 2}f} at ${GPUS[r.gpu].usd_hour} a GPU hour (assumed)"),
    ]  # fmt: skip
    return "\n".join(f"{name:<16} {value}" for name, value in rows)
