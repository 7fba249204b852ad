"""`python -m data curate PRESET --input VIDEOS --out DATASET`: the command in front of the recipe."""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from data.stages import transnet
from data.stages.s5_ask import Captioner
from data.stages.sandbox import Limits
from data.work import Options
from kling import shards, storage
from kling.errors import RAY_FIX, CheckpointError, ConfigError, starting
from kling.presets import get_preset

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Curate:
    """Turn raw videos into a data set of clips: scored, captioned, encoded, every file accounted for.

    Run it again to go on after an interruption, or to add new files.
    """

    preset: tyro.conf.Positional[str]
    """Decides the clips' size, length and rate, and the networks that encode them."""
    input: Annotated[tuple[str, ...], tyro.conf.arg(metavar="URI...")]
    """Folders or files, local or s3://bucket/prefix."""
    out: str
    """Where the data set goes (local or s3://)."""
    weights: str | None = None
    """Folder of weights with parts vae and text (default: the packaged ones of the preset)."""
    encode: bool = True
    """--no-encode: rows without latents and text states (to train a VAE)."""
    shots: Literal["content", "transnet"] = "content"
    """What finds the cuts: a difference of neighbouring frames, or the network TransNetV2 (extra transnet)."""
    overlay_text: bool = False
    """Also score the area that text covers (extra ocr); 0.1 to 0.3 s a clip."""
    embedder: Path | None = None
    """Folder of a SigLIP or CLIP (as transformers writes it, on a disk that all workers see) that measures semantic
    coherence in place of the playground's own embedder."""
    keep_original: bool = False
    """Also keep the source's own packets, bit for bit, of clips that begin at a key frame."""
    caption_url: str | None = None
    """OpenAI-compatible endpoint of a vision-language model that captions footage without ground truth
    ("http://host:8000/v1"); its key, if it needs one, in KLING_CAPTION_KEY."""
    caption_model: str = ""
    """The model's name at that endpoint."""
    caption_fallback: Literal["", "template"] = ""
    """What a clip gets that the model does not caption: it fails, or gets the template."""
    workers: int | None = None
    """Processes, half of them readers and half encoders (default: one a core of the cluster)."""
    gpus_per_encoder: float = 0.0
    """GPUs for each encoder; 0 encodes on the CPU."""
    decode_timeout_s: float = 120.0
    """Longest a decoder may be silent over one file."""
    decode_memory_gib: float = 4.0
    """Most memory a decoder may take."""


def command(arguments: list[str]) -> int:
    """`python -m data curate`."""
    options = tyro.cli(Curate, args=arguments, prog="python -m data curate")
    preset = get_preset(options.preset)
    weights = (options.weights or packaged_weights(preset.name)) if options.encode else None
    encoder = _encoder_digest(weights) if weights else ""
    limits = Limits(timeout_s=options.decode_timeout_s, memory_bytes=int(options.decode_memory_gib * 2**30))

    extra, captioner = _options(options), _captioner(options)

    from data.pipeline import Job, curate

    job = Job(
        preset=preset,
        inputs=options.input,
        dataset=options.out,
        weights=weights,
        encoder=encoder,
        options=extra,
        captioner=captioner,
        num_workers=options.workers,
        gpus_per_encoder=options.gpus_per_encoder,
        limits=limits,
    )
    console = Console()
    columns = (TextColumn("curate"), BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("curate", total=None)
        manifest = curate(job, lambda done, total: progress.update(bar, completed=done, total=total), start_ray)
    _tell(console, options.out, manifest)
    return 0


def _options(given: Curate) -> Options:
    """Raises ConfigError when a step is asked for whose package is missing."""
    if given.shots == "transnet":
        transnet.check_installed()
    if given.overlay_text:
        from kling.quality import overlay

        overlay.check_installed()
    folder, weights = "", ""
    if given.embedder is not None:
        from kling.sight import foreign

        folder = str(given.embedder.resolve())
        weights = foreign.digest(given.embedder)
        foreign.load(folder)  # what cannot be loaded is told now
    return Options(
        embedder=folder,
        embedder_sum=weights,
        shots=given.shots,
        overlay_text=given.overlay_text,
        keep_original=given.keep_original,
        caption_model=given.caption_model,
        caption_fallback=given.caption_fallback,
    )


def _captioner(given: Curate) -> Captioner | None:
    if bool(given.caption_url) != bool(given.caption_model):
        raise ConfigError(
            "a captioner is an endpoint and a model", where="--caption-url, --caption-model", fix="Give both, or none"
        )
    if given.caption_url is None:
        return None
    return Captioner(url=given.caption_url, model=given.caption_model, key=os.environ.get("KLING_CAPTION_KEY", ""))


def _tell(console: Console, dataset: str, manifest: shards.Manifest) -> None:
    counts = manifest.counts
    console.print(
        f"{counts['files']} files = {counts['done']} done + {counts['filtered']} filtered + {counts['failed']} failed; "
        f"{counts['rows']} clips in {len(manifest.shards)} shards",
        highlight=False,
    )
    from data.ledger import LEDGER

    for path in (shards.MANIFEST, LEDGER, "shards", "clips"):
        console.print(f"  {storage.join(dataset, path)}", highlight=False, soft_wrap=True)


def packaged_weights(preset: str) -> str:
    """Folder of those that come with a preset.

    Raises:
        CheckpointError: none do.
    """
    folder = _ROOT / "kling" / "weights" / preset
    if not (folder / "kling.json").exists():
        raise CheckpointError(
            "no weights come with this preset",
            where=preset,
            fix="Pass --weights URI, or --no-encode to write rows without latents",
        )
    return str(folder)


def _encoder_digest(weights: str) -> str:
    """Which weights made the latents; another training of the same sizes gives another digest."""
    from kling.model.checkpoint import read_card

    parts = read_card(weights).parts
    missing = {"vae", "text"} - parts.keys()
    if missing:
        raise CheckpointError(f"the weights lack {sorted(missing)}", where=weights, fix="Add them, or pass --no-encode")
    sums = [file.sha256 for name in ("vae", "text") for file in parts[name].files]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def start_ray(num_cpus: int | None = None) -> None:
    """The cluster we are a job of (RAY_ADDRESS), else a local one that ends with this process."""
    import ray
    from ray.data import DataContext

    if not ray.is_initialized():
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its remarks would land in the progress display
        environment = {"env_vars": {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}}
        address = os.environ.get("RAY_ADDRESS", "local")
        with starting("Ray", where=address, fix=RAY_FIX):
            ray.init(
                address=address,
                num_cpus=num_cpus if "RAY_ADDRESS" not in os.environ else None,
                include_dashboard=False if "RAY_ADDRESS" not in os.environ else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=environment if "RAY_ADDRESS" not in os.environ else None,
            )
    context = DataContext.get_current()
    context.enable_progress_bars = False  # ours counts files
    context.target_max_block_size = 16 * 2**20  # units flow on as soon as they are there
    logging.getLogger("ray.data").setLevel(logging.ERROR)
