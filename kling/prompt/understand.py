"""From words to a scene graph in four readable steps: words, sentences, meaning, world.

lexical   = read_english(prompt)          level 1
syntax    = read_syntax(lexical)          level 2
graph     = compose(syntax, CommonSense)  level 3
world     = settle(graph)                 level 4
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from kling.errors import ConfigError, InputError
from kling.prompt.graph import SceneGraph
from kling.prompt.lexical import Lexical, detect_language, read_english
from kling.prompt.semantic import compose
from kling.prompt.syntactic import Syntax
from kling.prompt.world import CommonSense, World, settle

MAX_CHARACTERS = 2500
LEVELS = ("lexical", "syntactic", "semantic", "world")


@dataclass(frozen=True, kw_only=True)
class Understanding:
    """What a prompt says (``graph``), what is assumed (``world``), and how sure that is.

    ``not_understood``: words that no level could use; they reach the model as text. ``doubts``: guesses and
    contradictions, each named. ``confidence`` in [0, 1]: the share of the prompt that was used, less a tenth a doubt.
    """

    prompt: str
    language: str
    lexical: Lexical
    syntactic: Syntax
    graph: SceneGraph
    world: World
    confidence: float
    not_understood: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def understand(prompt: str, *, language: str | None = None, skip: Collection[str] = ()) -> Understanding:
    """Read a prompt.

    ``language``: "en" or "ja"; None finds it from the script. ``skip``: levels to do without (for the ablation).

    Raises:
        InputError: the prompt is empty or longer than 2,500 characters.
        ConfigError: a Japanese prompt without SudachiPy installed; an unknown language or level.
    """
    language = check(prompt, language, skip)
    lexical = read_words(prompt, language, skip)
    syntax = _syntax(lexical, skip)
    knowledge = None if "world" in skip else CommonSense()
    graph, doubts = compose(syntax, knowledge, compose_events="semantic" not in skip)
    world = settle(graph, () if "world" in skip else lexical.measures)
    lost = tuple(dict.fromkeys((*syntax.not_understood, *graph.not_understood)))
    doubts = (*lexical.doubts, *doubts)
    return Understanding(
        prompt=prompt,
        language=language,
        lexical=lexical,
        syntactic=syntax,
        graph=replace(graph, not_understood=lost),
        world=world,
        confidence=confidence(lexical, graph, lost, doubts),
        not_understood=lost,
        doubts=doubts,
    )


def check(prompt: str, language: str | None, skip: Collection[str]) -> str:
    """The prompt's language, once everything asked for is possible (errors as ``understand``)."""
    if not prompt.strip():
        raise InputError(
            "the prompt is empty", where="prompt", fix="Say what happens: a red ball rolls across the grass"
        )
    if len(prompt) > MAX_CHARACTERS:
        raise InputError(
            f"the prompt has {len(prompt)} characters, {MAX_CHARACTERS} are possible", where="prompt", fix="Shorten it"
        )
    unknown = set(skip) - set(LEVELS)
    if unknown:
        raise ConfigError("unknown level", where=", ".join(sorted(unknown)), fix=f"Choose of {', '.join(LEVELS)}")
    if language not in (None, "en", "ja"):
        raise ConfigError("unknown language", where=str(language), fix="Choose en or ja, or leave it out")
    return language or detect_language(prompt)


def read_words(prompt: str, language: str, skip: Collection[str] = ()) -> Lexical:
    """Level 1 in either language."""
    plain = "lexical" in skip
    if language == "ja":
        from kling.prompt.lexical_ja import read_japanese

        return read_japanese(prompt, plain=plain)
    return read_english(prompt, plain=plain)


def _syntax(lexical: Lexical, skip: Collection[str]) -> Syntax:
    from kling.prompt.syntactic_flat import read_flat

    if "syntactic" in skip:
        return read_flat(lexical)
    free = "world" not in skip
    if lexical.language == "ja":
        from kling.prompt.syntactic_ja import read_syntax as read_japanese_syntax

        return read_japanese_syntax(lexical, unknown_nouns=free)
    from kling.prompt.syntactic_en import read_syntax

    return read_syntax(lexical, unknown_nouns=free)


def confidence(lexical: Lexical, graph: SceneGraph, lost: tuple[str, ...], doubts: tuple[str, ...]) -> float:
    """Share of the words that were used, less a tenth a doubt; little when nothing was found at all."""
    words = sum(1 for token in lexical.tokens if token.form != "punct")
    if not (graph.objects or graph.camera or graph.events):
        return 0.1 if words else 0.0
    missed = sum(len(text.split()) for text in lost)
    return round(min(1.0, max(0.05, 1 - missed / max(words, 1) - 0.1 * len(doubts))), 3)
