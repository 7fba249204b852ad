"""The text stage: captions with their scene graphs in, a weights folder with a trained text encoder out. One process.

The encoder's states are worth something to the DiT when what the prompt says can be read off them. So that is what it
is trained for: from the states, a light head tells which facts hold (a red ball; the ball rolls to the left; dusk), in
both languages. The head reads them twice, from learned queries (as cross-attention will) and from the plain mean (as
object phrases will), and is thrown away at the end.
"""

import json
import time
import zlib
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from kling import __version__, storage
from kling.errors import InputError
from kling.model.checkpoint import load_part, save_part
from kling.model.text import TextEncoder, TextStates
from kling.presets import Preset
from kling.prompt.graph import ObjectNode, SceneGraph
from kling.scene.control import place_phrase
from kling.scene.plan import Environment

from .config import TextRun
from .optimizer import schedule
from .state import append_line, load_state, save_state

_console = Console()
_LEAST_SEEN = 5  # a fact of fewer training captions is not asked for
_PHRASES_A_CAPTION = 6  # single noun phrases, which condition painted objects; all of them cost half as much


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Captions and noun phrases, each with the facts it states."""

    captions: list[tuple[str, frozenset[str]]]
    phrases: list[tuple[str, frozenset[str]]]


def train_text(run: TextRun, preset: Preset) -> Path:
    """Train until ``run.steps``, continuing what is in ``run.out``; returns the weights folder."""
    out = Path(run.out)
    if run.threads:
        torch.set_num_threads(run.threads)
    train, val = read_examples(run.data)
    seen = Counter(fact for _, facts in train.captions + train.phrases for fact in facts)
    vocabulary = {fact: i for i, fact in enumerate(sorted(f for f, count in seen.items() if count >= _LEAST_SEEN))}
    if not vocabulary:
        raise InputError(f"too few captions ({len(train.captions)}) to learn from", where=run.data, fix="Render more")
    state = TextState(run, preset, vocabulary)
    state.load(out / "checkpoints" / "text.pt")
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps({"stage": "text", "version": __version__, **asdict(run)}, indent=1))
    _console.print(
        f"text: {len(train.captions)} captions, {len(train.phrases)} phrases, {len(vocabulary)} facts to tell; "
        f"from step {state.step} to {run.steps}",
        soft_wrap=True,
    )
    saved = time.monotonic()
    while state.step < run.steps:
        started = time.monotonic()
        record = state.update(train)
        record["step_s"] = time.monotonic() - started
        if state.step % run.evaluate_every == 0 or state.step == run.steps:
            record |= state.evaluate(val)
            told = "  ".join(f"{k} {v:.3g}" for k, v in record.items() if k != "step")
            _console.print(f"step {state.step}/{run.steps}  {told}", soft_wrap=True)
        append_line(out / "metrics.jsonl", record)
        if time.monotonic() - saved > 60 * run.checkpoint_minutes:
            state.save(out / "checkpoints" / "text.pt")
            saved = time.monotonic()
    state.save(out / "checkpoints" / "text.pt")
    note = f"kling {__version__}: {state.step} steps of {run.batch_size} captions"
    save_part(str(out / "weights"), "text", state.encoder, preset=preset.name, note=note)
    _console.print(f"weights: {out / 'weights'}")
    return out / "weights"


class TextState:
    """Everything that a continued run needs: encoder, head, optimizer, step."""

    def __init__(self, run: TextRun, preset: Preset, vocabulary: dict[str, int]):
        torch.manual_seed(run.seed)
        self.run, self.vocabulary, self.step = run, vocabulary, 0
        self.encoder = TextEncoder(preset.text)
        if run.start_from:
            load_part(run.start_from, "text", self.encoder)
        self.head = Head(preset.text.width, len(vocabulary))
        params = [*self.encoder.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(params, lr=run.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.rate = schedule("cosine", num_steps=run.steps, warmup=min(100, run.steps))

    def update(self, train: Examples) -> dict[str, float]:
        """One step on captions and phrases that (seed, step) name."""
        rng = np.random.default_rng((self.run.seed, self.step))
        num_phrases = self.run.batch_size * _PHRASES_A_CAPTION
        captions = [train.captions[i] for i in rng.integers(len(train.captions), size=self.run.batch_size)]
        phrases = [train.phrases[i] for i in rng.integers(len(train.phrases), size=num_phrases)]
        for group in self.optimizer.param_groups:
            group["lr"] = self.run.lr * self.rate(self.step)
        # Two batches: a phrase padded to a caption's length would cost as much as one.
        of_phrases = self.loss_of(phrases)
        loss = self.loss_of(captions) + of_phrases
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True))
        self.optimizer.step()
        self.step += 1
        return {"step": self.step, "loss": loss.item(), "loss_phrases": of_phrases.item(), "grad_norm": norm}

    def loss_of(self, chosen: list[tuple[str, frozenset[str]]]) -> Tensor:
        """Cross-entropy of the facts, summed over facts and both readings, a text."""
        from_queries, from_mean = self.head(self.encoder(*self.encoder.tokenize([text for text, _ in chosen])))
        wanted = self.targets([facts for _, facts in chosen])
        losses = [binary_cross_entropy_with_logits(x, wanted, reduction="sum") for x in (from_queries, from_mean)]
        return (losses[0] + losses[1]) / len(chosen)

    @torch.no_grad()
    def evaluate(self, val: Examples) -> dict[str, float]:
        """F1 of the facts over up to 512 held-out captions, of each reading; the share told without any error.

        And F1 of the facts of held-out phrases, read from the mean, as painted objects are.
        """
        wanted, queries, mean = [], [], []
        for start in range(0, min(512, len(val.captions)), self.run.batch_size):
            part = val.captions[start : start + self.run.batch_size]
            from_queries, from_mean = self.head(self.encoder.encode([text for text, _ in part]))
            wanted.append(self.targets([facts for _, facts in part]).bool())
            queries.append(from_queries > 0)
            mean.append(from_mean > 0)
        truth = torch.cat(wanted)
        exact = float((torch.cat(queries) == truth).all(dim=1).float().mean())
        told = {"f1": _f1(torch.cat(queries), truth), "f1_mean": _f1(torch.cat(mean), truth), "exact": exact}
        if val.phrases:
            phrases = val.phrases[:512]
            from_mean = self.head(self.encoder.encode([text for text, _ in phrases]))[1] > 0
            told["f1_phrases"] = _f1(from_mean, self.targets([facts for _, facts in phrases]).bool())
        return told

    def targets(self, facts: list[frozenset[str]]) -> Tensor:
        """b n, 1 where a fact holds."""
        table = torch.zeros(len(facts), len(self.vocabulary))
        for row, of_one in enumerate(facts):
            table[row, [self.vocabulary[fact] for fact in of_one if fact in self.vocabulary]] = 1
        return table

    def save(self, path: Path) -> None:
        content = {
            "step": self.step,
            "vocabulary": list(self.vocabulary),
            "encoder": self.encoder.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_state(path, content)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of this run if there is one.

        Raises:
            InputError: it was made from other captions.
        """
        content = load_state(path)
        if content is None:
            return
        if content["vocabulary"] != list(self.vocabulary):
            raise InputError(
                "this folder holds a run on other captions",
                where=str(path),
                fix="Give another --out, or the same --data",
            )
        self.step = content["step"]
        self.encoder.load_state_dict(content["encoder"])
        self.head.load_state_dict(content["head"])
        self.optimizer.load_state_dict(content["optimizer"])


class Head(nn.Module):
    """Reads facts from token states, by learned queries and by the mean."""

    def __init__(self, width: int, num_facts: int, num_queries: int = 16):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries, width) / width**0.5)
        self.from_queries = nn.Linear(num_queries * width, num_facts)
        self.from_mean = nn.Linear(width, num_facts)

    def forward(self, encoded: TextStates) -> tuple[Tensor, Tensor]:
        """Logits b n of each reading."""
        states, mask = encoded
        scores = (self.queries @ states.mT).masked_fill(~mask[:, None], -torch.inf)  # b q l
        seen = (scores.softmax(dim=-1) @ states).flatten(1)  # b q*d
        mean = states.sum(dim=1) / mask.sum(dim=1, keepdim=True)  # b d
        return self.from_queries(seen), self.from_mean(mean)


def read_examples(data: str) -> tuple[Examples, Examples]:
    """Captions of the sidecars under ``data``: (training, held out). Benchmark clips are never read.

    Raises:
        InputError: no sidecar there.
    """
    found: dict[str, Examples] = {name: Examples(captions=[], phrases=[]) for name in ("train", "val", "bench")}
    phrases: dict[str, frozenset[str]] = {}
    for name in track(_sidecars(data), description="reading sidecars", transient=True):
        raw = json.loads(storage.read_bytes(name))
        graph = SceneGraph.from_json(raw["graph"])
        facts = facts_of(graph)
        found[raw["split"]].captions.extend((caption["text"], facts) for caption in raw["captions"])
        if raw["split"] == "train":
            phrases |= {o.phrase: frozenset(_object_facts(o)) for o in _described(raw, graph)}
            phrases |= _places(raw)
    # One phrase in sixteen is held out, by its own text: attributes have to be read, not combinations remembered.
    held_out = {text for text in phrases if zlib.crc32(text.encode()) % 16 == 0}
    train = Examples(
        captions=found["train"].captions,
        phrases=sorted((text, facts) for text, facts in phrases.items() if text not in held_out),
    )
    if not train.captions or not train.phrases:
        raise InputError(
            "no sidecars of the training split", where=data, fix="Render some: python -m data playground --out DIR"
        )
    return train, Examples(
        captions=found["val"].captions or train.captions[-256:],
        phrases=[(text, phrases[text]) for text in sorted(held_out)],
    )


def facts_of(graph: SceneGraph) -> frozenset[str]:
    """What the prompt states, as short strings. Pairs of attributes bind them: "red" and "ball" of one object."""
    facts: set[str] = set()
    names = {o.id: o for o in graph.objects}
    for node in graph.objects:
        facts |= _object_facts(node)
    for event in graph.events:
        agent = names.get(event.agent)
        who = (agent.color, agent.shape) if agent else (None, None)
        for word in who:
            facts |= {f"event {event.action} {word}"} if word else set()
        for detail in (event.direction, event.speed):
            facts |= {f"event {event.action} {detail}"} if detail else set()
        if (patient := names.get(event.patient or "")) is not None:
            facts |= {f"patient {event.action} {word}" for word in (patient.color, patient.shape) if word}
    for relation in graph.relations:
        for side, node in (("of", names.get(relation.subject)), ("to", names.get(relation.object))):
            words = (node.color, node.shape) if node else ()
            facts |= {f"{relation.kind} {side} {word}" for word in words if word}
    for move in graph.camera:
        facts |= {f"camera {move.kind}", f"camera {move.kind} {move.direction}", f"camera speed {move.speed}"}
    facts |= {f"{name} {getattr(graph, name)}" for name in ("setting", "lighting", "gravity", "style")}
    facts.add(f"objects {len(graph.objects)}")
    return frozenset(fact for fact in facts if not fact.endswith("None"))


def _object_facts(node: ObjectNode) -> set[str]:
    said = [word for word in (node.size, node.finish, node.color, node.material, node.shape) if word]
    return {*said, *(f"{a} {b}" for a, b in combinations(said, 2))}


def _described(raw: dict, graph: SceneGraph) -> list[ObjectNode]:
    """The objects as said, and as planned: painted objects carry the plan's phrases, which say more."""
    fields = ("id", "shape", "color", "size", "material", "finish")
    planned = [ObjectNode(**{name: item.get(name) for name in fields}) for item in raw["plan"]["objects"]]
    return [*graph.objects, *planned]


def _places(raw: dict) -> dict[str, frozenset[str]]:
    """The planned place as it is painted."""
    place = Environment.model_validate(raw["plan"]["environment"])
    return {place_phrase(place): frozenset({f"setting {place.setting}", f"lighting {place.lighting}"})}


def _sidecars(data: str) -> list[str]:
    return [name for name in storage.list_files(data) if name.endswith(".json") and storage.exists(name[:-5] + ".mp4")]


def _f1(told: Tensor, truth: Tensor) -> float:
    hits = (told & truth).sum()
    return float(2 * hits / (told.sum() + truth.sum()).clamp_min(1))
