"""`python -m data train-embedder`, `python -m data retrieval`: teach the video-text embedder, and measure it.

    python -m data playground --num-clips 4000 --out out/clips
    python -m data train-embedder --clips out/clips --work out/embedder --out kling/sight/embedder.safetensors
    python -m data playground --num-clips 400 --split val --out out/val
    python -m data retrieval --clips out/val

Each clip is held against the other clips' captions and against captions of its own that are wrong in one thing
(`data.playground.mistakes`), said in the same words otherwise. Captions are said anew each time. Run the same command
again after an interruption: it goes on where its files in ``--work`` are.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as fn

from data.playground import captions
from data.playground.mistakes import MISTAKES
from kling.bench import reader
from kling.errors import InputError
from kling.media.video import read_frames
from kling.prompt.graph import ACTIONS, CAMERA_MOVES, COLORS, LIGHTINGS, SETTINGS, SHAPES, SceneGraph
from kling.scene.plan import Sidecar
from kling.sight.embedder import CELLS, MOMENTS, SEEN, WIDTH, VideoTextNet, pictures_of
from kling.sight.examples import soften

_WRONG = 2  # wrong captions a clip and step
_NAMES = (
    *((color, shape) for color in COLORS for shape in SHAPES), *ACTIONS, *SETTINGS, *LIGHTINGS,
    *((kind, direction) for kind, directions in CAMERA_MOVES.items() for direction in directions if direction),
    *range(1, 9),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """Teach the video-text embedder on playground clips of the training split."""

    clips: tuple[str, ...]  # folders of mp4 and json
    work: Path  # folder: what was seen in the clips, and how far the teaching is
    out: str = "embedder.safetensors"
    number: int = 0  # of clips; 0: all
    steps: int = 2000
    batch: int = 64  # clips a step
    learning_rate: float = 2e-3
    seed: int = 0
    save_every: int = 20  # steps


def command(arguments: list[str]) -> int:
    """The subcommand's body."""
    options = tyro.cli(Options, args=arguments, prog="python -m data train-embedder", description=Options.__doc__)
    sidecars = [path for path in files_of(options.clips) if path.name.startswith("train-")]
    sidecars = sidecars[: options.number or len(sidecars)]
    if len(sidecars) < options.batch:
        raise InputError(f"{len(sidecars)} clips are fewer than a step takes", where=", ".join(options.clips))
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    net = VideoTextNet()
    net.eye.load_state_dict(reader.packaged().state_dict())
    seen = seen_in(net, sidecars, options.work / "seen.npy")
    graphs = [SceneGraph.from_json(Sidecar.model_validate_json(path.read_bytes()).graph) for path in sidecars]
    print(f"{len(seen)} clips", flush=True)
    Teacher(net, options).teach(seen, graphs)
    save_file({key: value.half().contiguous() for key, value in net.state_dict().items()}, options.out)
    return 0


def files_of(folders: tuple[str, ...]) -> list[Path]:
    """Sidecars.

    Raises:
        InputError: no clips there.
    """
    files = sorted(path for folder in folders for path in Path(folder).glob("*.json"))
    if not files:
        raise InputError("no playground clips there", where=", ".join(folders), fix="python -m data playground")
    return files


def seen_in(net: VideoTextNet, sidecars: list[Path], kept: Path) -> np.ndarray:
    """n MOMENTS SEEN CELLS CELLS float16, on disk: the reader's way down; one clip in three is spoiled first."""
    shape = (len(sidecars), MOMENTS, SEEN, CELLS, CELLS)
    if not kept.exists() or np.load(kept, mmap_mode="r").shape != shape:
        np.lib.format.open_memmap(kept, "w+", np.float16, shape)
    seen = np.load(kept, mmap_mode="r+")
    for number, path in enumerate(sidecars):
        if seen[number, 0].any():  # by a run before this one
            continue
        frames, _ = read_frames(path.with_suffix(".mp4"))
        frames = frames[np.linspace(0, len(frames) - 1, MOMENTS).round().astype(int)]
        if number % 3 == 0:
            frames = soften(frames, np.random.default_rng(number))
        # The first moment last: it says that the row is whole.
        seen[number, 1:] = (rows := net.look(pictures_of(frames)).half().numpy())[1:]
        seen[number, 0] = rows[0]
    return seen


class Teacher:
    """The net, a helper that names attributes of vectors of both sides (dropped afterwards), and how far they are."""

    def __init__(self, net: VideoTextNet, options: Options):
        torch.manual_seed(options.seed)
        self.net, self.options, self.names = net, options, nn.Linear(WIDTH, len(_NAMES))
        for layer in (net.video, net.text):  # drawn anew, after the seed
            layer.apply(_draw_anew)
        learnt = [p for part in (net.video, net.text, self.names) for p in part.parameters()] + [net.log_scale]
        self.learnt, self.done = learnt, 0
        self.optimizer = torch.optim.AdamW(learnt, lr=1e-3, weight_decay=0.05)
        self.kept = options.work / "progress.safetensors"

    def teach(self, seen: np.ndarray, graphs: list[SceneGraph]) -> None:
        """All steps that are left."""
        self._load()
        targets = torch.stack([attributes(graph) for graph in graphs])
        start, told = time.process_time(), dict[str, float]()
        for step in range(self.done, self.options.steps):
            rng = np.random.default_rng((self.options.seed, step))
            index = rng.integers(len(graphs), size=self.options.batch)
            texts, there = said(graphs, index, rng)
            parts = self.losses(torch.from_numpy(seen[index]).float(), texts, there, targets[index])
            rate = self.options.learning_rate * min(1.0, (step + 1) / 100)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * (0.02 + 0.98 * (1 + np.cos(np.pi * step / self.options.steps)) / 2)
            self.optimizer.zero_grad()
            torch.stack([parts[name] for name in ("contrast", "moments", "names")]).sum().backward()
            torch.nn.utils.clip_grad_norm_(self.learnt, 1.0)
            self.optimizer.step()
            told = {k: 0.95 * told.get(k, float(v.detach())) + 0.05 * float(v.detach()) for k, v in parts.items()}
            if (step + 1) % 50 == 0:
                line = " ".join(f"{name} {value:.3f}" for name, value in told.items())
                print(f"{step + 1} {line} {time.process_time() - start:.0f} s", flush=True)
            if (step + 1) % self.options.save_every == 0:
                self.done = step + 1
                self._save()

    def losses(self, seen: Tensor, texts: list[str], there: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """``texts``: b right ones, then b * _WRONG wrong ones, of which ``there`` (b _WRONG) are."""
        b = len(seen)
        clips, frames = self.net.see(seen)
        read = self.net.read(texts)
        scale = self.net.log_scale.exp().clamp(max=60)
        right, wrong = read[:b], read[b:].unflatten(0, (b, _WRONG))
        own = torch.arange(b)
        alike = scale * clips @ right.T
        mistaken = scale * torch.einsum("bd,bkd->bk", clips, wrong).masked_fill(~there, -1e4)
        both = torch.cat([alike, mistaken], dim=1)
        one = frames[own, torch.from_numpy(np.random.default_rng(b).integers(MOMENTS, size=b))]
        single = scale * one @ right.T
        known = targets >= 0
        named = [
            fn.binary_cross_entropy_with_logits(8 * self.names(side)[known], targets[known]) for side in (clips, right)
        ]
        return {
            "contrast": fn.cross_entropy(both, own) + fn.cross_entropy(alike.T, own),
            "moments": 0.3 * (fn.cross_entropy(single, own) + fn.cross_entropy(single.T, own)),
            "names": 8 * torch.stack(named).sum(),
            "first": (both.argmax(1) == own).float().mean(),
        }

    def _state(self) -> dict[str, Tensor]:
        state = {f"net.{key}": value for key, value in self.net.state_dict().items()}
        state |= {f"names.{key}": value for key, value in self.names.state_dict().items()}
        for i, parameter in enumerate(self.learnt):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                state[f"adam.{i}.{name}"] = value
        return state | {"done": torch.tensor(self.done)}

    def _save(self) -> None:
        half = self.kept.with_suffix(".part")
        save_file({key: value.detach().clone().contiguous() for key, value in self._state().items()}, half)
        half.replace(self.kept)

    def _load(self) -> None:
        if not self.kept.exists():
            return
        state = load_file(self.kept)
        for name, part in (("net.", self.net), ("names.", self.names)):
            part.load_state_dict({key.removeprefix(name): state[key] for key in state if key.startswith(name)})
        for key in state:
            if key.startswith("adam."):
                _, i, name = key.split(".")
                self.optimizer.state[self.learnt[int(i)]][name] = state[key]
        self.done = int(state["done"])


def _draw_anew(module: nn.Module) -> None:
    reset: Any = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()


def attributes(graph: SceneGraph) -> Tensor:
    """One number for each of _NAMES: 1 is said, 0 is not so, -1 nothing is said about it."""
    yes = {(node.color, node.shape) for node in graph.objects} | {event.action for event in graph.events}
    yes |= {graph.setting, graph.lighting, len(graph.objects)} | {(m.kind, m.direction) for m in graph.camera}
    silent = (set(SETTINGS) if graph.setting is None else set()) | (set(LIGHTINGS) if graph.lighting is None else set())
    # The word "studio" is both a place and a light, "wood" a place alone: taken by their places in the list.
    return torch.tensor([1.0 if name in yes else -1.0 if name in silent else 0.0 for name in _NAMES])


def said(graphs: list[SceneGraph], index: np.ndarray, rng: np.random.Generator) -> tuple[list[str], Tensor]:
    """Right captions of these clips, then wrong ones in the same words; b _WRONG: whether there is one."""
    right, wrong, there = [], [], torch.zeros(len(index), _WRONG, dtype=torch.bool)
    for i, number in enumerate(index.tolist()):
        graph = graphs[number]
        language = "en" if rng.random() < 0.6 else "ja"
        seed, family = int(rng.integers(2**31)), family_of(language, rng)
        right.append(captions.say(graph, language, family, np.random.default_rng(seed), "train"))
        for k, name in enumerate(rng.permutation(list(MISTAKES))[:_WRONG]):
            other = MISTAKES[name](graph, rng)
            text = captions.say(other, language, family, np.random.default_rng(seed), "train") if other else ""
            wrong.append(text or right[-1])
            there[i, k] = bool(text) and text != right[-1]
    return right + wrong, there


def family_of(language: captions.Language, rng: np.random.Generator) -> str:
    """One that the training split uses."""
    grammar = captions.GRAMMARS[language]
    return str(rng.choice([name for name in grammar.FAMILIES if name not in grammar.RESERVED]))
