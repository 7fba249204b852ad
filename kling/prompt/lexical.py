"""Level 1, words: tokens, lemmas, what each word can mean, numbers, units, misspellings.

    "Two blu balls roll at 2 m/s"  ->  number 2 · color blue · noun ball · verb roll · measure 2 m/s

Nothing is decided here: a word keeps every meaning it can have ("roll": an action, a camera move).
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from kling.prompt.lexicon_en import IRREGULAR, UNITS, WORDS
from kling.prompt.nouns import NOUNS

MAX_PHRASE = 7  # words of the longest entry


@dataclass(frozen=True, kw_only=True)
class Sense:
    """One meaning a word can have: a kind of lexicon_en.WORDS, and the value within it."""

    kind: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Token:
    """A word, or several that mean one thing ("in front of"). ``start`` and ``end`` are character positions."""

    text: str
    lemma: str
    form: str  # base, s, ing, ed, en (past participle), punct; Japanese: its part of speech
    senses: tuple[Sense, ...]
    start: int
    end: int
    capital: bool = False

    def value(self, kind: str) -> str | None:
        """The value of its sense of this kind; None when it has no such sense."""
        return next((sense.value for sense in self.senses if sense.kind == kind), None)

    def has(self, *kinds: str) -> bool:
        return any(sense.kind in kinds for sense in self.senses)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number with a unit, in SI: ("speed_m_s", 2.0) for "2 m/s"."""

    quantity: str
    value: float
    text: str
    start: int = 0  # where in the text it stands
    camera: bool = False  # said of the camera, not of a thing


@dataclass(frozen=True, kw_only=True)
class Lexical:
    """What level 1 found. ``doubts``: misspellings read as other words."""

    language: str
    tokens: tuple[Token, ...]
    measures: tuple[Measure, ...] = ()
    doubts: tuple[str, ...] = ()


_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+[kKpPdD]\b|\d+(?:[.,]\d+)?|°|[.!?;:,()\n&…—–/+]|\S")
_MEASURE = re.compile(
    r"(?<![\w.])(\d+(?:[.,]\d+)?)[ -]?(m/s|km/h|mph|cm/s|[a-z]+|°)"
    r"(/s(?:ec)?|/second| ?(?:per|a|each|every) sec(?:ond)?)?(?![\w/])",
    re.IGNORECASE,
)
_A_SECOND = {"length_m": "speed_m_s", "angle_deg": "turn_deg_s"}
_CLAUSE_ENDS = {"...": ".", "…": ".", "!": ".", "?": ".", ";": ".", "\n": ".", "—": ",", "–": ",", "(": ",", ")": ","}
_SHORT = re.compile(r"\b(?<=[a-z])'(d|ll)\b", re.IGNORECASE)  # "I'd", "you'll"
_ABBREVIATED = re.compile(r"\b(vs|approx|incl|resp)\.", re.IGNORECASE)  # no end of a sentence
_WITH = re.compile(r"\bw/(?=\s)", re.IGNORECASE)
_STRETCHED = re.compile(r"([a-z])\1{2,}")  # "huuuge"
_CONTRACTIONS = re.compile(r"\b(do|does|did|is|are|was|were|wo|ca|would|should|could)n['’]?t\b", re.IGNORECASE)


_STYLE_TAILS = ("style", "look", "feel", "aesthetic", "vibe", "mood", "footage", "quality")  # "retro look"


@cache
def table() -> dict[str, tuple[Sense, ...]]:
    """Phrase of lemmas -> its senses."""
    entries: dict[str, list[Sense]] = {}
    for kind, values in WORDS.items():
        for value, phrases in values.items():
            for phrase in phrases.split("|"):
                entries.setdefault(phrase, []).append(Sense(kind=kind, value=value))
    for value, phrases in WORDS["style"].items():
        for phrase, tail in itertools.product(phrases.split("|"), _STYLE_TAILS):
            entries.setdefault(f"{phrase} {tail}", []).append(Sense(kind="style", value=value))
    for noun in NOUNS:
        if not any(sense.kind in ("noun", "setting") for sense in entries.get(noun, ())):
            entries.setdefault(noun, []).append(Sense(kind="thing", value=noun))
    return {phrase: tuple(senses) for phrase, senses in entries.items()}


@cache
def _canonical() -> dict[str, tuple[Sense, ...]]:
    """The lexicon without synonyms or phrases: each value of the graph under its own name (the ablation's level 1)."""
    kinds = (
        "noun",
        "color",
        "size",
        "material",
        "finish",
        "setting",
        "lighting",
        "verb",
        "determiner",
        "camera",
        "move",
    )
    keep = {
        value: tuple(s for s in table().get(value, ()) if s.kind in kinds and s.value == value)
        for kind in kinds
        for value in WORDS[kind]
        if " " not in value
    }
    return {value: senses for value, senses in keep.items() if senses}


@lru_cache(maxsize=4096)
def lemma(word: str) -> tuple[str, str]:
    """(lemma, form) of a lower-case English word: the first regular reading whose lemma the lexicon knows."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    known = _single_words()
    if word in table():
        return word, "base"
    for suffix, form in (("ies", "s"), ("es", "s"), ("s", "s"), ("ing", "ing"), ("ed", "ed"), ("'s", "poss")):
        if not word.endswith(suffix) or len(word) < len(suffix) + 2:
            continue
        stem = word[: -len(suffix)]
        doubled = [stem[:-1]] if len(stem) > 2 and stem[-1] == stem[-2] else []
        options = [stem + "y"] if suffix == "ies" else [stem, stem + "e", *doubled]
        for option in options:
            if option in known:
                return option, form
    if word in known:
        return word, "base"
    if word.endswith("s") and not word.endswith(("ss", "us")) and len(word) > 3:
        return word[:-1], "s"
    return word, "base"


@cache
def _single_words() -> frozenset[str]:
    return frozenset(word for phrase in table() for word in phrase.split())


@cache
def _correctable() -> tuple[str, ...]:
    kinds = {
        "noun",
        "color",
        "size",
        "material",
        "finish",
        "direction",
        "verb",
        "setting",
        "lighting",
        "camera",
        "speed",
    }
    return tuple(w for w, senses in table().items() if " " not in w and {s.kind for s in senses} & kinds)


@lru_cache(maxsize=4096)
def corrected(word: str) -> str | None:
    """The one word of the physical vocabulary that a slip away: two letters swapped, one lost, doubled or mistyped.

    Short words are corrected only when a letter is lost or swapped, else "bell" would become "ball".
    """
    if len(word) < 3 or not word.isascii() or not word.isalpha() or lemma(word)[0] in _single_words():
        return None
    found = {known for known in _correctable() if _slip(word, known)}
    if not found and word.endswith("s"):
        found = {known for known in _correctable() if _slip(word[:-1], known)}
    return found.pop() if len(found) == 1 else None


@lru_cache(maxsize=4096)
def _unstretched(word: str) -> str | None:
    """The known word of which some letter was held ("huuuge", "sloooow"), else None."""
    if not _STRETCHED.search(word):
        return None
    options = (_STRETCHED.sub(r"\1", word), _STRETCHED.sub(r"\1\1", word))
    return next((option for option in options if lemma(option)[0] in _single_words()), None)


def _slip(word: str, known: str) -> bool:
    if word[0] != known[0] or len(known) < 4:
        return False
    if len(word) == len(known):
        differ = [i for i in range(len(word)) if word[i] != known[i]]
        if len(differ) == 2 and differ[1] == differ[0] + 1:
            return word[differ[0]] == known[differ[1]] and word[differ[1]] == known[differ[0]]
        return len(differ) == 1 and len(word) >= 6
    longer, shorter = (word, known) if len(word) > len(known) else (known, word)
    if len(longer) != len(shorter) + 1 or (len(word) > len(known) and len(known) < 5):
        return False
    return any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))


def read_english(prompt: str, *, plain: bool = False) -> Lexical:
    """Level 1 for English. ``plain`` is the ablation: surface words, no lemmas, synonyms, phrases or corrections."""
    text = unicodedata.normalize("NFKC", prompt).replace("’", "'")
    text = _SHORT.sub(lambda m: {"d": " would", "ll": " will"}[m[1].lower()], text)
    text = _CONTRACTIONS.sub(lambda m: {"wo": "will", "ca": "can"}.get(m[1].lower(), m[1]) + " not", text)
    text = _WITH.sub("with", _ABBREVIATED.sub(r"\1", text))
    if plain:
        words = _split(text)
        return Lexical(language="en", tokens=tuple(_plain_token(w) for w in words))
    measures = tuple(found for found in map(_measure, _MEASURE.finditer(text)) if found)
    for measure in measures:  # a measure is no count of objects
        text = text.replace(measure.text, " " * len(measure.text), 1)
    doubts: list[str] = []
    words = [_lemmatised(word, doubts) for word in _split(text)]
    tokens: list[Token] = []
    position = 0
    while position < len(words):
        token, used = _longest(words, position)
        tokens.append(token)
        position += used
    return Lexical(language="en", tokens=tuple(tokens), measures=owned(measures, tokens), doubts=tuple(doubts))


def _split(text: str) -> list[Token]:
    words = []
    for match in _WORD.finditer(text):
        raw = _CLAUSE_ENDS.get(match[0], match[0])
        if raw == "-" and text[match.start() - 1 : match.start()] == " " == text[match.end() : match.end() + 1]:
            raw = ","  # a dash, not a hyphen
        if raw == "-":
            continue
        form = "punct" if raw in ".,:" else "base"
        capital = raw[0].isupper()
        words.append(
            Token(
                text=raw.lower(),
                lemma=raw.lower(),
                form=form,
                senses=(),
                start=match.start(),
                end=match.end(),
                capital=capital,
            )
        )
    return words


def _measure(match: re.Match[str]) -> Measure | None:
    unit = match[2].lower()
    known = UNITS.get(unit) or UNITS.get(unit.removesuffix("s"))
    if known is None or not known[0]:
        return None
    quantity = _A_SECOND.get(known[0], known[0]) if match[3] else known[0]
    value = float(match[1].replace(",", ".")) * known[1]
    return Measure(quantity=quantity, value=value, text=match[0], start=match.start())


def owned(measures: Iterable[Measure], tokens: Sequence[Token]) -> tuple[Measure, ...]:
    """Whose speed it is: a turn is the camera's, a speed the camera's where a camera is what moves before it."""

    def filmed(measure: Measure) -> bool:
        verb = False
        for token in reversed([token for token in tokens if token.end <= measure.start]):
            if token.has("camera"):
                return True
            if token.text == "." or (verb and token.has("noun", "thing", "pronoun")):
                return False
            if token.has("move") and not token.has("verb"):
                return True
            verb |= token.has("verb")
        return False

    return tuple(
        replace(m, camera=m.quantity == "turn_deg_s" or (m.quantity == "speed_m_s" and filmed(m))) for m in measures
    )


def _lemmatised(word: Token, doubts: list[str]) -> Token:
    if word.form == "punct":
        return word
    text = word.text
    right = _unstretched(text) or corrected(text)
    if right is not None:
        doubts.append(f'read "{text}" as "{right}"')
        text = right
    found, form = lemma(text)
    if text.endswith("'s") and form == "base":
        found, form = text[:-2], "poss"
    return Token(text=text, lemma=found, form=form, senses=(), start=word.start, end=word.end, capital=word.capital)


def _longest(words: list[Token], position: int) -> tuple[Token, int]:
    """The longest entry of the lexicon that starts here, else the word alone without a sense."""
    entries = table()
    for length in range(min(MAX_PHRASE, len(words) - position), 0, -1):
        part = words[position : position + length]
        if any(word.form == "punct" for word in part):
            continue
        lemmas, surfaces = [w.lemma for w in part], [w.text for w in part]
        mixed = [*surfaces[:-1], lemmas[-1]]
        for key in (surfaces, [lemmas[0], *surfaces[1:]], mixed, lemmas):
            senses = entries.get(" ".join(key))
            if senses is None:
                continue
            # The verb's form is that of its first word; a noun's that of its last.
            head = part[0] if any(s.kind in ("verb", "move", "auxiliary") for s in senses) and length > 1 else part[-1]
            return (
                Token(
                    text=" ".join(surfaces),
                    lemma=" ".join(key),
                    form=head.form if part[-1].form != "poss" else "poss",
                    senses=senses,
                    start=part[0].start,
                    end=part[-1].end,
                    capital=part[0].capital,
                ),
                length,
            )
    word = words[position]
    if word.text.replace(".", "").replace(",", "").isdecimal():
        number = Sense(kind="number", value=word.text)
        return replace(word, senses=(number,)), 1
    return word, 1


def _plain_token(word: Token) -> Token:
    return replace(word, senses=_canonical().get(word.text, ()))


def says_something(text: str) -> bool:
    """Letters, digits or pictures (emoji), not only punctuation."""
    return any(c.isalnum() or unicodedata.category(c) == "So" for c in text)


def as_count(number: str) -> int:
    """A whole number of things; what has too many digits is merely very many."""
    digits = number.replace(",", ".").partition(".")[0]
    return int(digits) if len(digits) < 7 else 10**6


def detect_language(prompt: str) -> str:
    """ "ja" when kana or kanji carry at least a fifth of the letters, else "en"."""
    letters = [c for c in prompt if c.isalpha()]
    japanese = sum(1 for c in letters if "぀" <= c <= "ヿ" or "一" <= c <= "鿿" or "ｦ" <= c <= "ﾟ")
    return "ja" if letters and japanese >= 0.2 * len(letters) else "en"
