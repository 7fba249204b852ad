"""`kling bench`: intervals, prompts, a whole run with its report, bad input."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.playground import splits
from data.playground.clip import Format, make
from kling.bench import contestants, intervals, prompts
from kling.bench.command import Bench, run
from kling.errors import CheckpointError, ConfigError, InputError, ServiceError
from kling.media.video import write_mp4
from kling.pipeline import PACKAGED_WEIGHTS


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_wilson_holds_the_share_and_stays_inside(values: list[bool]):
    found = intervals.share(values)
    assert 0 <= found.low <= found.value <= found.high <= 1
    more = intervals.share(values * 4)
    assert more.value == pytest.approx(found.value) and more.high - more.low < found.high - found.low
    mirrored = intervals.share([not value for value in values])
    assert mirrored.low == pytest.approx(1 - found.high) and mirrored.value == pytest.approx(1 - found.value)


def test_wilson_known_value():
    found = intervals.share([True] * 8 + [False] * 2)  # Wilson 1927, as R's binom.confint says
    assert (round(found.low, 4), round(found.high, 4)) == (0.4902, 0.9433)


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truths = rng.uniform(0.1, 0.9, 600)  # over many shares: at one of them, few values make the coverage jump about
    shares = [intervals.share(list(rng.random(40) < p)) for p in truths]
    assert 0.92 <= np.mean([s.low <= p <= s.high for s, p in zip(shares, truths, strict=True)]) <= 0.98
    means = [intervals.mean(row, draws=300) for row in rng.normal(3, 1, (150, 40))]
    assert 0.88 <= np.mean([m.low <= 3 <= m.high for m in means]) <= 0.99


def test_results_of_one_clip_count_once():
    found = intervals.clustered([[True, False], [True, True], []])
    assert (found.value, found.n) == (0.75, 2)
    assert found.high - found.low > (alone := intervals.share([True, True, True, False])).high - alone.low
    assert intervals.clustered([]).n == 0


def test_the_packaged_prompts_are_what_the_docs_say():
    chosen = prompts.load(prompts.PACKAGED)
    assert len(chosen) == 200 and len({p.id for p in chosen}) == 200
    assert sum(p.held_out for p in chosen) == 100
    assert sum(p.language == "ja" for p in chosen) == 20
    assert {splits.split_of(p.seed) for p in chosen} == {"bench"}
    for p in chosen:
        assert splits.shows_held_out(p.graph) == p.held_out
    groups = [group for p in chosen for group in p.groups]
    for kind, least in (("objects", 20), ("action", 12), ("camera", 4)):
        counts = {value: groups.count((kind, value)) for k, value in groups if k == kind}
        assert min(counts.values()) >= least, counts
    assert len(prompts.load(prompts.PACKAGED, 12)) == 12


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Path:
    """The clips of three prompts."""
    folder = tmp_path_factory.mktemp("truth")
    for prompt in prompts.load(prompts.PACKAGED, 3):
        frames, sidecar = make(prompt.seed, Format())
        write_mp4(folder / f"{prompt.id}.mp4", frames, fps=sidecar.fps)
    return folder


def test_a_run_writes_its_report_and_goes_on_where_it_was(truth: Path, tiny_weights: str, tmp_path: Path):
    asked = Bench(
        out=str(tmp_path), truth=str(truth), weights=tiny_weights, steps="1,2", num_prompts=3, mode="text",
        sheet=str(tmp_path / "sheet.png"),
    )  # fmt: skip
    page = run(asked)
    told = json.loads((tmp_path / "report.json").read_text())
    names = [contestants.TRUTH, contestants.RECONSTRUCTED, "tiny, text alone, 1 steps", "tiny, text alone, 2 steps"]
    assert list(told["contestants"]) == names
    assert told["contestants"][contestants.TRUTH]["scores"]["color"]["value"] >= 0.8
    made = told["contestants"][names[2]]
    assert made["seconds_per_clip"]["value"] > 0 and made["scores"]["adherence"]["n"] == 3
    text = page.read_text()
    assert all(name in text for name in names) and text.count("<video") == 12 and "<svg" in text
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    run(asked)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}


def test_bad_input_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="no clip for this prompt"):
        run(Bench(out=str(tmp_path), folders=(f"x={tmp_path}",), num_prompts=1))
    with pytest.raises(CheckpointError, match=r"kling\.json"):
        run(Bench(out=str(tmp_path), weights=str(tmp_path / "none"), num_prompts=1))
    with pytest.raises(ConfigError, match="whole numbers"):
        run(Bench(out=str(tmp_path), steps="4,many"))
    with pytest.raises(ConfigError, match="nothing to judge"):
        run(Bench(out=str(tmp_path), ceilings_only=True))
    monkeypatch.delenv("KLING_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="no API key"):
        run(Bench(out=str(tmp_path), services=("a=http://127.0.0.1:9",)))
    bad = tmp_path / "prompts.json"
    bad.write_text('[{"id": 1}]')
    with pytest.raises(InputError, match="not a list of benchmark prompts"):
        run(Bench(out=str(tmp_path), prompts=str(bad)))


def test_an_unreachable_service_is_one_line(monkeypatch: pytest.MonkeyPatch):
    from kling.client import client as module

    monkeypatch.setattr(module, "Client", partial(module.Client, sleep=lambda _: None))
    with pytest.raises(ServiceError):
        contestants.service("x", "http://127.0.0.1:9", "key", steps=1, plan=True)


def test_services_are_named():
    assert contestants.parse_service("ours=http://h:1") == ("ours", "http://h:1")
    assert contestants.parse_service("https://h/v?a=b") == ("h/v?a=b", "https://h/v?a=b")
    with pytest.raises(ConfigError, match="NAME=URL"):
        contestants.parse_service("nothing")


def test_the_packaged_vae_is_measured(truth: Path, tmp_path: Path):
    """The whole path of `python -m kling.bench reconstruct`, on one clip with its sidecar."""
    from kling.bench.reconstruct import clips, load_vae, measure

    seed = prompts.load(prompts.PACKAGED, 3)[0].seed
    _, sidecar = make(seed, Format())
    (tmp_path / "a.json").write_text(sidecar.model_dump_json())
    shutil.copy(next(iter(sorted(truth.glob("*.mp4")))), tmp_path / "a.mp4")
    found = measure(load_vae(str(PACKAGED_WEIGHTS / "tiny")), clips(str(tmp_path), 0))
    assert found.original["color"].value == 1.0 and found.psnr_db > 10
    assert found.kept["color"].n == found.original["color"].n
