"""`kling scene "prompt"`: what a prompt is understood as, and what will happen, before anything is drawn."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from kling import storage
from kling.errors import ConfigError, InputError
from kling.prompt.understand import Understanding
from kling.scene.plan import ScenePlan, SceneTrack

_MOMENTS = 4  # columns of the trajectory table


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Show what a prompt is understood as: four levels, the plan, the trajectories.

    The plan can be saved (--json > plan.json), edited by hand, looked at (--plan plan.json --preview plan.mp4) and
    generated from.
    """

    prompt: Annotated[str, tyro.conf.Positional] = ""
    language: str | None = None  # en or ja; default: found from the script
    seed: int = 0  # what the prompt leaves open is drawn from it
    duration_s: float | None = None  # default: what the prompt says, else 2
    fps: float = 8.0
    aspect: float = 1.0  # width over height of the picture
    auto_camera: bool = False  # choose a camera move when the prompt names none
    json: bool = False  # print only the plan, as JSON
    preview: str | None = None  # write a wireframe animation to this mp4
    plan: str | None = None  # start from an edited plan (file or URI) instead of a prompt


def command(arguments: list[str]) -> None:
    """The subcommand's body.

    Raises:
        InputError: an empty or endless prompt, a plan that is none.
        ConfigError: impossible durations or frame rates.
    """
    asked = tyro.cli(Scene, args=arguments, prog="kling scene", description=Scene.__doc__)
    if asked.preview is not None:
        storage.check_file(asked.preview)
    understanding, plan, track = _decide(asked)
    if asked.preview is not None:
        from kling.scene.preview import write_preview

        write_preview(asked.preview, plan, aspect=asked.aspect)
    if asked.json:
        print(plan.model_dump_json(indent=1))
        return
    console = Console()
    if understanding is not None:
        show_levels(console, understanding)
    show_plan(console, plan, track)
    if asked.preview is not None:
        console.print(f"preview: {asked.preview}")


def _decide(asked: Scene) -> tuple[Understanding | None, ScenePlan, SceneTrack]:
    from kling.scene.simulate import simulate

    if asked.plan is not None:
        if asked.prompt:
            raise ConfigError("a prompt and a plan were given", where=asked.plan, fix="Give one of them")
        plan = read_plan(asked.plan)
        return None, plan, simulate(plan, aspect=asked.aspect)
    if asked.duration_s is not None and not 0 < asked.duration_s <= 60:
        raise ConfigError("a scene lasts more than 0 and at most 60 seconds", where=f"--duration-s {asked.duration_s}")
    if not 0 < asked.fps <= 120:
        raise ConfigError("frame rates are above 0 and at most 120", where=f"--fps {asked.fps}")
    if not 0.2 <= asked.aspect <= 5:
        raise ConfigError("pictures are between 1:5 and 5:1", where=f"--aspect {asked.aspect}")
    from kling.scene.direct import direct

    made = direct(
        asked.prompt, language=asked.language, seed=asked.seed, duration_s=asked.duration_s, fps=asked.fps,
        aspect=asked.aspect, auto_camera=asked.auto_camera,
    )  # fmt: skip
    return made.understanding, made.plan, made.track


def read_plan(uri: str | Path) -> ScenePlan:
    """A plan from JSON, as `kling scene --json` prints it.

    Raises:
        InputError: not JSON, or not a plan; names the first field that is wrong.
    """
    text = storage.read_bytes(uri)
    try:
        return ScenePlan.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise InputError(
            f"not a scene plan ({field}: {first['msg']})", where=str(uri), fix="Start from kling scene ... --json"
        ) from error


def show_levels(console: Console, read: Understanding) -> None:
    """The four levels of understanding."""
    table = _table("1  words", "word", "lemma", "form", "may mean")
    for token in read.lexical.tokens:
        meanings = ", ".join(f"{sense.kind} {sense.value}" for sense in token.senses)
        table.add_row(token.text, token.lemma, token.form, meanings or "-")
    console.print(table)
    for measure in read.lexical.measures:
        console.print(f"   measure: {measure.quantity} = {measure.value:g} ({measure.text})")

    table = _table("2  sentences", "phrase", "text", "what it is")
    for phrase in read.syntactic.phrases:
        details = [f"{count_of(phrase.count)}{phrase.head}"]
        details += [" ".join(attribute) for attribute in phrase.attributes]
        table.add_row(f"{phrase.id} {phrase.kind}", phrase.text, ", ".join(filter(None, details)))
    for clause in read.syntactic.clauses:
        parts = {
            "who": clause.subjects, "whom": clause.objects, "where to": clause.direction, "how": clause.speed,
            "order": clause.order, "beside": clause.subordinate, "not": clause.negated or None,
        }  # fmt: skip
        said = ", ".join(f"{name} {_words(value)}" for name, value in parts.items() if value)
        table.add_row(f"clause {clause.kind}", clause.text, f"{clause.verb}: {said}" if said else clause.verb)
    console.print(table)

    graph = read.graph
    table = _table("3  meaning", "", "")
    for node in graph.objects:
        table.add_row(node.id, node.phrase)
    for relation in graph.relations:
        table.add_row("relation", f"{relation.subject} {relation.kind.replace('_', ' ')} {relation.object}")
    for event in graph.events:
        said = (event.agent, event.action, event.patient, event.direction, event.speed)
        table.add_row(f"event {event.order}", " ".join(word for word in said if word))
    for step in graph.camera:
        table.add_row("camera", " ".join(word for word in (step.kind, step.direction, step.speed) if word))
    for name in ("setting", "lighting", "gravity", "style"):
        if getattr(graph, name):
            table.add_row(name, getattr(graph, name))
    console.print(table)

    table = _table("4  world", "object", "as", "half size m", "mass kg", "friction", "restitution", "assumed")
    for item in read.world.objects:
        half = " ".join(f"{side:.2f}" for side in item.half_size_m)
        numbers = (f"{item.mass_kg:.2f}", f"{item.friction:.2f}", f"{item.restitution:.2f}")
        table.add_row(item.id, item.proxy, half, *numbers, ", ".join(item.assumed))
    console.print(table)
    gravity = f"gravity {read.world.gravity_m_s2:g} m/s2, {read.world.setting}, {read.world.lighting} light"
    assumed = f" (assumed: {', '.join(read.world.assumed)})" if read.world.assumed else ""
    console.print(f"   {gravity}{assumed}", highlight=False)


def show_plan(console: Console, plan: ScenePlan, track: SceneTrack) -> None:
    """The plan, where everything goes, what meets, and what is doubtful."""
    table = _table(f"plan  {plan.duration_s:g} s at {plan.fps:g} fps", "object", "phrase", "at m", "velocity m/s", "")
    for item in plan.objects:
        notes = [f"simulated as a {item.proxy}"] if item.shape != item.proxy else []
        notes += ["fixed"] * item.fixed + ["hangs"] * (item.pivot_m is not None)
        notes += [f"released at {item.release_s:g} s"] if item.release_s else []
        table.add_row(item.id, item.phrase, _vector(item.position_m), _vector(item.velocity_m_s), ", ".join(notes))
    for event in plan.events:
        said = (event.action, event.patient, event.direction, event.speed)
        table.add_row(event.agent, " ".join(word for word in said if word), f"from {event.start_s:g} s", "", "event")
    console.print(table)
    console.print(f"   camera: {', '.join(plan.camera.moves)} ({len(plan.camera.keys)} keys)", highlight=False)

    frames = len(track.camera.fov_y_deg)
    moments = sorted({round(i * (frames - 1) / (_MOMENTS - 1)) for i in range(_MOMENTS)})
    table = _table("trajectories (m)", "object", *(f"{frame / plan.fps:.2f} s" for frame in moments), "seen")
    for item in track.objects:
        seen = sum(item.visibility) / len(item.visibility)
        table.add_row(item.id, *(_vector(item.position_m[frame]) for frame in moments), f"{seen:.0%}")
    console.print(table)
    met = {(contact.a, contact.b): contact for contact in reversed(track.contacts) if contact.b != "floor"}
    for contact in sorted(met.values(), key=lambda contact: contact.frame):  # the first time that each pair meets
        console.print(f"   {contact.a} meets {contact.b} at {contact.frame / plan.fps:.2f} s", highlight=False)
    console.print(f"   confidence {plan.confidence:.0%}", highlight=False)
    for doubt in plan.doubts:
        console.print(f"   doubt: {doubt}", highlight=False, markup=False, style="yellow")
    if plan.not_understood:
        console.print(
            f"   not understood, passed on as text: {json.dumps(plan.not_understood, ensure_ascii=False)}",
            highlight=False, markup=False, style="yellow",
        )  # fmt: skip


def count_of(count: int | None) -> str:
    return f"{count} x " if count not in (None, 1) else ""


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, header_style="dim", padding=(0, 1),
        show_header=any(columns),
    )  # fmt: skip
    for column in columns:
        numeric = column.endswith((" m", " s", " kg", "m/s", "friction", "restitution", "as"))
        table.add_column(column, overflow="fold", no_wrap=numeric or column in ("object", "seen"))
    return table


def _vector(values: Iterable[float]) -> str:
    return " ".join(f"{value + 0.0:.2f}" for value in values)


def _words(value: object) -> str:
    return " ".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
