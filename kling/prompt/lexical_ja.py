"""Level 1 for Japanese: SudachiPy splits the text into morphemes, our lexicon gives them meaning."""

import itertools
import re
import unicodedata
from dataclasses import replace
from functools import cache
from typing import Any

from kling.errors import ConfigError
from kling.prompt.kana import from_kana
from kling.prompt.lexical import Lexical, Measure, Sense, Token, lemma, owned
from kling.prompt.lexical import table as english
from kling.prompt.lexicon_ja import WORDS
from kling.prompt.nouns_ja import NOUNS_JA
from kling.prompt.state_ja import HELPERS

MAX_MORPHEMES = 9
_MEASURE = re.compile(
    r"(毎秒|秒速|時速)?(\d+(?:\.\d+)?) ?"
    r"(秒|メートル|m|キロメートル|キロ|センチ|kg|キログラム|グラム|度|m/s)(/秒|毎秒)?(?![a-z])"
)
_UNITS = {
    "秒": ("time_s", 1.0),
    "メートル": ("length_m", 1.0),
    "m": ("length_m", 1.0),
    "センチ": ("length_m", 0.01),
    "キロメートル": ("length_m", 1000.0),
    "キロ": ("mass_kg", 1.0),
    "kg": ("mass_kg", 1.0),
    "キログラム": ("mass_kg", 1.0),
    "グラム": ("mass_kg", 0.001),
    "度": ("angle_deg", 1.0),
    "m/s": ("speed_m_s", 1.0),
}
_PUNCTUATION = {"。": ".", "．": ".", ".": ".", "!": ".", "?": ".", "\n": ".", "、": ",", ",": ",", "，": ",", ";": ".",
                ":": ":", "「": ",", "」": ",", "・": ",", "(": ",", ")": ",", "…": ".", "~": ","}  # fmt: skip


_STYLE_TAILS = ("っぽい", "っぽく", "みたいな", "みたいに", "風に", "風の", "調の")  # アニメっぽく


@cache
def table() -> dict[str, tuple[Sense, ...]]:
    """Written form -> its senses."""
    entries: dict[str, list[Sense]] = {}
    for kind, values in WORDS.items():
        for value, phrases in values.items():
            for phrase in phrases.split("|"):
                entries.setdefault(unicodedata.normalize("NFKC", phrase), []).append(Sense(kind=kind, value=value))
    for value, phrases in WORDS["style"].items():
        for phrase, tail in itertools.product(phrases.split("|"), _STYLE_TAILS):
            entries.setdefault(phrase.removesuffix("風") + tail, []).append(Sense(kind="style", value=value))
    for word, noun in NOUNS_JA.items():
        entries.setdefault(word, []).append(Sense(kind="thing", value=noun))
    return {phrase: tuple(senses) for phrase, senses in entries.items()}


@cache
def _canonical() -> dict[str, tuple[Sense, ...]]:
    """The first word of each value only (the ablation's level 1)."""
    first: dict[str, tuple[Sense, ...]] = {}
    for kind, values in WORDS.items():
        if kind in ("order", "subordinator", "conjunction", "filler"):
            continue
        for value, phrases in values.items():
            word = phrases.split("|")[0]
            first[word] = (*first.get(word, ()), Sense(kind=kind, value=value))
    return first


@cache
def _tokenizer() -> Any:
    """SudachiPy's tokenizer, loaded once, when the first Japanese prompt comes.

    Raises:
        ConfigError: SudachiPy or its dictionary is not installed.
    """
    try:
        from sudachipy import Dictionary, SplitMode
    except ImportError as error:
        raise ConfigError(
            "Japanese prompts need SudachiPy", where="language ja", fix="Install the extra: pip install 'kling[ja]'"
        ) from error
    return Dictionary().tokenizer(mode=SplitMode.C)


def read_japanese(prompt: str, *, plain: bool = False) -> Lexical:
    """Level 1 for Japanese.

    Raises:
        ConfigError: SudachiPy is not installed.
    """
    text = unicodedata.normalize("NFKC", prompt).replace("\r", "\n")
    text = text if plain else from_kana(text)
    measures = []
    for match in () if plain else _MEASURE.finditer(text):
        quantity, factor = _UNITS[match[3]]
        value = float(match[2]) * factor
        if quantity == "angle_deg" and (match[1] or match[4]):  # 毎秒30度
            quantity = "turn_deg_s"
        if match[1] and quantity in ("length_m", "mass_kg"):  # 秒速2メートル, 時速5キロ
            metres = value * 1000 if match[3] == "キロ" else value
            quantity, value = "speed_m_s", metres / (3600 if match[1] == "時速" else 1)
        measures.append(Measure(quantity=quantity, value=value, text=match[0], start=match.start()))
        text = text.replace(match[0], " " * len(match[0]), 1)
    entries = _canonical() if plain else table()
    words = [part for morpheme in _tokenizer().tokenize(text) for part in _parts(morpheme, entries)]
    tokens: list[Token] = []
    position = 0
    while position < len(words):
        token, used = _longest(words, position, entries, MAX_MORPHEMES if not plain else 1)
        tokens.append(token)
        position += used
    return Lexical(language="ja", tokens=tuple(tokens), measures=owned(measures, tokens))


def _parts(morpheme: Any, entries: dict[str, tuple[Sense, ...]]) -> list[Token]:
    """The morpheme, or two known words that it is made of (ゴムボール). Blanks vanish."""
    word = _known(_word(morpheme), morpheme.normalized_form(), entries)
    surface = word.text
    if not surface.strip(" \t　"):
        return []
    if word.form == "punct" or surface in entries or word.lemma in entries:
        return [word]
    first = _first_verb(word.lemma, entries) if word.form.startswith("動詞") else None
    if first is not None:
        return [replace(word, text=first, lemma=first)]
    for cut in range(len(surface) - 1, 0, -1):
        halves = entries.get(surface[:cut]), entries.get(surface[cut:])
        if not (halves[0] and halves[1]) or any(s.kind == "noun" and not s.value for s in halves[0]):
            continue
        made = any(s.kind in ("material", "color", "size") for s in halves[0]) and any(
            s.kind == "noun" for s in halves[1]
        )
        made |= halves[0][0].kind == "number" and halves[1][0].kind == "counter"  # 五本, a name elsewhere
        if made or len(surface) > 2:  # 鉄球, ゴムボール
            middle = word.start + cut
            first = replace(word, text=surface[:cut], lemma=surface[:cut], end=middle)
            return [first, replace(word, text=surface[cut:], lemma=surface[cut:], start=middle)]
    return [word]


def _known(word: Token, normal: str, entries: dict[str, tuple[Sense, ...]]) -> Token:
    """The word in its usual spelling, when only that is in the lexicon: はこ is 箱, うごく 動く."""
    part = word.form.split()[0]
    if word.text in entries or word.lemma in entries or word.form == "punct" or word.lemma in HELPERS:
        return word
    if word.text.isascii() and len(word.text) > 1:  # but 球A
        return replace(word, text=word.text.lower(), lemma=lemma(word.text.lower())[0])
    if normal not in entries or part not in ("名詞", "代名詞", "動詞", "形容詞", "形状詞", "副詞", "連体詞"):
        return word
    if part not in ("動詞", "形容詞"):
        return replace(word, text=normal, lemma=normal)
    pairs = zip(reversed(word.lemma), reversed(normal), strict=False)
    ending = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
    stem = word.lemma[: len(word.lemma) - ending]
    text = normal[: len(normal) - ending] + word.text.removeprefix(stem) if word.text.startswith(stem) else word.text
    return replace(word, text=text, lemma=normal)


# Verbs that follow another one and only say how it goes on: 動き出す, 転がり続ける.
_SECOND = ("出す", "始める", "続ける", "終わる", "切る", "回る", "去る", "かける", "まくる", "抜ける", "過ぎる")
_LAST_VOWEL = {
    "い": "う",
    "き": "く",
    "ぎ": "ぐ",
    "し": "す",
    "ち": "つ",
    "に": "ぬ",
    "び": "ぶ",
    "み": "む",
    "り": "る",
}


def _first_verb(lemma: str, entries: dict[str, tuple[Sense, ...]]) -> str | None:
    """The first verb of a compound that is in no lexicon: 動き出す is 動く."""
    for second in _SECOND:
        stem = lemma.removesuffix(second)
        if stem == lemma or not stem:
            continue
        for first in (stem[:-1] + _LAST_VOWEL.get(stem[-1], ""), stem + "る"):
            if any(sense.kind in ("verb", "move") for sense in entries.get(first, ())):
                return first
    return None


def _word(morpheme: Any) -> Token:
    surface = morpheme.surface()
    part, detail, inflection = (morpheme.part_of_speech()[i] for i in (0, 1, 5))
    punctuation = _PUNCTUATION.get(surface)
    return Token(
        text=punctuation or surface,
        lemma=morpheme.dictionary_form(),
        form="punct" if punctuation else f"{part} {detail} {inflection}",
        senses=(),
        start=morpheme.begin(),
        end=morpheme.end(),
    )


def _english(word: Token) -> tuple[Sense, ...]:
    """red ball: English words between Japanese ones, as far as they are things or say what things are like."""
    kinds = ("noun", "thing", "color", "size", "material", "finish", "setting", "lighting", "style")
    return tuple(sense for sense in english().get(word.lemma, ()) if sense.kind in kinds)


def _longest(words: list[Token], position: int, entries: dict[str, tuple[Sense, ...]], limit: int) -> tuple[Token, int]:
    for length in range(min(limit, len(words) - position), 0, -1):
        part = words[position : position + length]
        if any(word.form == "punct" for word in part):
            continue
        surface = "".join(word.text for word in part)
        plain = "".join(w.text for w in part[:-1]) + part[-1].lemma
        senses = entries.get(surface) or entries.get(plain)
        verbal = part[-1].form.startswith("動詞") and any(s.kind in ("verb", "move") for s in entries.get(plain, ()))
        senses = entries[plain] if verbal else senses  # 動き出す begins with a verb, not with "the movement"
        if senses:
            last = part[-1]
            return (
                Token(text=surface, lemma=last.lemma, form=last.form, senses=senses, start=part[0].start, end=last.end),
                length,
            )
    word = words[position]
    if word.text.isascii() and limit > 1:
        word = replace(word, senses=_english(word))
    if word.text.replace(".", "").isdecimal():
        word = Token(
            text=word.text, lemma=word.lemma, form=word.form, senses=(Sense(kind="number", value=word.text),),
            start=word.start, end=word.end,
        )  # fmt: skip
    return word, 1
