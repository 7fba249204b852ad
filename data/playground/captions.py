"""SceneGraph -> captions in English and Japanese. Every caption says everything that its graph says."""

from typing import Any, Literal

import numpy as np

from data.playground import captions_en, captions_ja
from data.playground.words import Chooser
from kling.prompt.graph import SceneGraph
from kling.scene.plan import Caption

Language = Literal["en", "ja"]
_COUNT: dict[Language, int] = {"en": 3, "ja": 2}
GRAMMARS: dict[Language, Any] = {"en": captions_en, "ja": captions_ja}


def captions(graph: SceneGraph, *, seed: int, split: str) -> tuple[Caption, ...]:
    """Paraphrases of different families in both languages, drawn by seed.

    Families and words that are reserved never appear in the training split; in the other splits one caption of each
    language is of a reserved family.
    """
    made = []
    for language, grammar in GRAMMARS.items():
        rng = np.random.default_rng(np.random.SeedSequence([seed, 0xCA97, len(made)]))
        usual = [name for name in grammar.FAMILIES if name not in grammar.RESERVED]
        names = [str(name) for name in rng.permutation(usual)[: _COUNT[language]]]
        if split != "train":
            names[0] = str(rng.choice(grammar.RESERVED))
        for family in names:
            made.append(Caption(text=say(graph, language, family, rng, split), language=language, family=family))
    return tuple(made)


def say(graph: SceneGraph, language: Language, family: str, rng: np.random.Generator, split: str) -> str:
    """One caption."""
    grammar = GRAMMARS[language]
    return grammar.FAMILIES[family](grammar.Speaker(graph, Chooser(rng, split)))
