"""`python -m train PRESET ... --dry-run`: all that can be built and checked without a GPU, a cluster or the data.

The model is built on the meta device, its optimizer over it; DeepSpeed reads the generated dictionary with its own
parser; ranks are laid on nodes as Ray Train asks for them; the plan's memory has to fit.
"""

import json
import math
from dataclasses import asdict, dataclass

import torch

from kling.errors import ConfigError
from kling.model.dit import DiT
from kling.model.parallel import Mesh, ParallelDiT
from kling.presets import Preset

from .batches import check_divides
from .config import TrainRun
from .optimizer import make_optimizer
from .plan import GPUS, Plan, PlanRequest, checked_plan
from .trained import Trained
from .zero import deepspeed_config, zero_stage


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """What the cluster's nodes are made of; the defaults are those of cluster.yaml."""

    gpus: int = 8
    gpu: str = "a100-80gb"

    def __post_init__(self):
        if self.gpus < 1 or self.gpu not in GPUS:
            fix = f"At least one of: {', '.join(GPUS)}"
            raise ConfigError("no such nodes", where=f"--gpus-per-node {self.gpus} --gpu {self.gpu}", fix=fix)


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What would run."""

    run: TrainRun
    nodes: int
    num_parameters: int
    reserved: dict[str, float]  # what Ray Train asks the cluster for
    deepspeed: dict
    plan: Plan


def dry_run(run: TrainRun, preset: Preset, nodes: Nodes) -> DryRun:
    """Build and check.

    Raises:
        ConfigError: ranks that do not fill nodes or divide heads or clips, a dictionary that DeepSpeed refuses, a plan
            that does not fit.
    """
    num_nodes = placed(run, preset, nodes)
    with torch.device("meta"):
        model = Trained(ParallelDiT(DiT(preset.dit), Mesh()))
    optimizer = make_optimizer(model, run.optimizer)
    count = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    stage = zero_stage(run, count)
    config = deepspeed_config(run, preset.dit, stage=stage, on_gpu=True)
    read_by_deepspeed(config, run)
    request = PlanRequest(
        preset=preset.name,
        nodes=num_nodes,
        gpus_per_node=run.num_workers // num_nodes,
        gpu=nodes.gpu,
        zero_stage=stage,
        sequence_parallel=run.sequence_parallel,
        clips_per_group=run.batch_size // run.data_ranks,
        micro_batches=run.micro_batches,
        activation_checkpointing=run.activation_checkpointing == "blocks",
        steps=run.steps,
    )
    from ray.train import ScalingConfig

    reserved = ScalingConfig(num_workers=run.num_workers, use_gpu=True).total_resources
    return DryRun(
        run=run, nodes=num_nodes, num_parameters=count, reserved=reserved, deepspeed=config, plan=checked_plan(request)
    )


def placed(run: TrainRun, preset: Preset, nodes: Nodes) -> int:
    """Nodes that the ranks fill. Ray numbers ranks node by node: neighbours, who share clips, share a node."""
    num_nodes = math.ceil(run.num_workers / nodes.gpus)
    if num_nodes > 1 and run.num_workers % nodes.gpus:
        raise ConfigError(
            f"{run.num_workers} ranks leave a node of {nodes.gpus} GPUs partly empty",
            where="--num-workers",
            fix=f"Use {num_nodes * nodes.gpus} or {(num_nodes - 1) * nodes.gpus}",
        )
    each = min(nodes.gpus, run.num_workers)
    if each % run.sequence_parallel:
        raise ConfigError(
            f"groups of {run.sequence_parallel} ranks that share a clip would lie across nodes of {nodes.gpus} GPUs",
            where="--sequence-parallel",
            fix=f"Use a divisor of {each}: attention's all-to-alls need the fast links inside a node",
        )
    if preset.dit.num_heads % run.sequence_parallel:
        raise ConfigError(
            f"{preset.dit.num_heads} heads do not divide over {run.sequence_parallel} ranks",
            where="--sequence-parallel",
            fix=f"Use a divisor of {math.gcd(preset.dit.num_heads, each)}",
        )
    check_divides(run.batch_size, run.data_ranks, "of the preset's clip", run.micro_batches)
    return num_nodes


def read_by_deepspeed(config: dict, run: TrainRun) -> None:
    """Raises ConfigError with DeepSpeed's words when its own parser refuses the dictionary for so many ranks."""
    from deepspeed.runtime.config import DeepSpeedConfig

    micro, steps = config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]
    try:
        # Its parser asks the process group how many ranks there are; there is none here, so it is told the product.
        DeepSpeedConfig({**config, "train_batch_size": micro * steps})
    except (AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"DeepSpeed refuses its configuration: {reason}", where=f"{run.num_workers} ranks") from error


def describe(dry: DryRun) -> str:
    """What would run, for a person."""
    run, plan = dry.run, dry.plan
    each = plan.request.gpus_per_node
    # Rank 0 makes all weights in float32; below ZeRO-3 every rank does.
    whole = 4 * dry.num_parameters * (1 if plan.request.zero_stage == 3 else each)
    rows = [
        ("model", f"{run.preset}, {dry.num_parameters:,} parameters, built on the meta device"),
        ("ranks", f"{run.num_workers} on {dry.nodes} nodes of {each} {plan.request.gpu}; Ray reserves {dry.reserved}"),
        ("a clip", f"{run.sequence_parallel} ranks of one node; {run.data_ranks} groups see different clips"),
        ("a step", f"{run.batch_size} clips, {plan.tokens_per_step:,} tokens, {plan.flops_per_step:.3g} FLOPs"),
        ("GPU memory", f"{plan.total_bytes / 1e9:.1f} of {GPUS[plan.request.gpu].memory_bytes / 1e9:.0f} GB"),
        ("host memory", f"{whole / 1e9:.0f} GB of the first node, while the model is built"),
        ("objective", json.dumps(asdict(run.objective))),
        ("optimizer", json.dumps(asdict(run.optimizer))),
        ("deepspeed", json.dumps(dry.deepspeed)),
        ("data", run.data or "(not given)"),
        ("out", run.out or "(not given)"),
    ]
    return "\n".join(f"{name:<12} {value}" for name, value in rows) + "\nNothing was started."
