"""How many prompts are understood exactly: sets written by hand, most of them before the parser met them."""

import json
from pathlib import Path

import pytest

from kling.errors import ConfigError, InputError
from kling.prompt import study
from kling.prompt.graph import SceneGraph

HANDWRITTEN = Path(__file__).parent / "prompts" / "handwritten.jsonl"


def test_handwritten_file_is_whole():
    rows = [json.loads(line) for line in HANDWRITTEN.read_text().splitlines()]
    assert len(rows) == 150 and sum(row["language"] == "ja" for row in rows) == 40
    assert len({row["prompt"] for row in rows}) == 150
    for row in rows:
        graph = SceneGraph.from_json(row["graph"])
        assert 1 <= len(graph.objects) <= 8 and graph.matches(SceneGraph.from_json(graph.to_json()))


@pytest.mark.parametrize(("split", "floor"), [("dev", 0.95), ("test", 0.85)])
def test_handwritten_prompts(split, floor):
    rows = [e for e in study.read("handwritten", HANDWRITTEN) if e.set.endswith(split)]
    assert study.score(rows).share >= floor


@pytest.mark.parametrize(
    ("name", "total", "found"),
    [
        ("second", 60, 59),
        ("third", 133, 131),
        ("fourth", 40, 38),
        ("seventh", 120, 116),
        ("eighth", 120, 118),
        ("ninth", 120, 108),
    ],
)
def test_further_handwritten_sets(name, total, found):
    rows = study.read(name, HANDWRITTEN.with_name(f"{name}.jsonl"))
    assert len(rows) == total and study.score(rows).found >= found


@pytest.mark.parametrize("level", ["lexical", "syntactic", "semantic", "world"])
def test_every_level_adds(level):
    rows = study.read("handwritten", HANDWRITTEN)
    assert study.score(rows, skip=(level,)).found < study.score(rows).found


def test_study_writes_its_table_into_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Before\n<!-- table: begin -->\nold\n<!-- table: end -->\nAfter\n")
    rows = HANDWRITTEN.read_text().splitlines()[:6]
    (tmp_path / "some.jsonl").write_text("\n".join(rows))
    assert study.main([f"few={tmp_path / 'some.jsonl'}", "--out", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("# Before") and text.endswith("After\n") and "old" not in text and "few, dev, en" in text


@pytest.mark.parametrize("arguments", [[], ["file.jsonl"], ["--out"]])
def test_study_says_what_is_wrong(arguments):
    with pytest.raises(ConfigError):
        study.main(arguments)


def test_study_refuses_a_broken_file(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a ball"}\n')
    with pytest.raises(InputError, match=r"bad\.jsonl"):
        study.read("bad", tmp_path / "bad.jsonl")


def test_interval_contains_the_share():
    low, high = study.Score(found=85, total=100).interval()
    assert 0.76 < low < 0.85 < high < 0.92
    assert study.Score(found=0, total=0).interval() == (0.0, 0.0)
