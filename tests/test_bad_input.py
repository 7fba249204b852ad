"""What a person gets wrong, command by command: one line that says what and where, its exit code, nothing left behind.

All in this process, through the function that each command line runs; no cluster is started. What only shows in a real
process or on a full disk is tested beside the application.
"""

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import data.__main__
import serve.__main__
import train.__main__
from kling.client import command_line
from kling.errors import run_command

ROOT = Path(__file__).parent.parent
APPLICATIONS: dict[str, Callable[[list[str]], int | None]] = {
    "kling": command_line.dispatch,
    "data": data.__main__.dispatch,
    "train": train.__main__.main,
    "serve": serve.__main__.main,
}

# EMPTY, JUNK (a folder with an unreadable a.mp4), FILE, GONE, CARD (a folder of broken weights), PORT (taken), OUT
CASES = [
    ("data playground --num-clips 0 --out OUT", 2, "impossible number of clips"),
    ("data playground --num-clips 1 --workers 1 --out FILE/x", 5, "FILE"),
    ("data curate big --input JUNK --out OUT", 2, "unknown preset"),
    ("data curate tiny --input EMPTY --out OUT", 3, "no files to curate: EMPTY"),
    ("data curate tiny --input GONE --out OUT", 3, "no such folder or file: GONE"),
    ("data curate tiny --input JUNK --out FILE", 5, "FILE"),
    ("data curate tiny --input JUNK --out OUT --weights GONE", 4, "not a weights folder"),
    ("data curate 12b --input JUNK --out OUT", 4, "no weights come with this preset"),
    ("data curate tiny --input JUNK --out OUT --no-encode --embedder EMPTY", 4, "no *.safetensors there"),
    ("data retrieval EMPTY", 3, "no playground clips there"),
    ("data train-embedder --clips EMPTY --work OUT", 3, "no playground clips there"),
    ("data speed GONE --no-encode", 3, "no such folder"),
    ("data select GONE --where motion>0 --out OUT", 3, "not a finished data set"),
    ("data report EMPTY", 3, "not a finished data set"),
    ("data nonsense", 2, "unknown command"),
    ("train big --data EMPTY --out OUT", 2, "unknown preset"),
    ("train tiny --data EMPTY --out OUT", 3, "not a finished data set"),
    ("train tiny --stage vae --data EMPTY --out OUT", 3, "no clip to train on: EMPTY"),
    ("train tiny --stage vae --data JUNK --out OUT", 3, "cannot read the video"),
    ("train tiny --stage text --data GONE --out OUT", 3, "no such folder or file: GONE"),
    ("train plan big", 2, "unknown preset"),
    ("train pack tiny GONE --out OUT", 4, "not a weights folder"),
    ("serve big --state OUT", 2, "unknown preset"),
    ("serve tiny --state OUT --port PORT", 6, "127.0.0.1:PORT"),
    ("serve tiny --state OUT --port 70000", 2, "1 to 65535"),
    ("serve tiny --state OUT --checkpoint GONE", 4, "GONE"),
    ("serve tiny --state OUT --checkpoint CARD", 4, "CARD"),
    ("serve tiny --state FILE", 5, "FILE"),
    ("serve keys create --state FILE", 5, "FILE"),
    ("kling generate ball --out OUT/x.mp4", 2, "no API key"),
    ("kling generate ball --out EMPTY --key k", 5, "a folder: EMPTY"),
    ("kling generate ball --out FILE/x.mp4 --key k", 5, "FILE"),
    ("kling sample ball --preset big --out OUT/x.mp4", 2, "unknown preset"),
    ("kling sample ball --weights GONE --out OUT/x.mp4", 4, "GONE"),
    ("kling sample ball --weights CARD --out OUT/x.mp4", 4, "CARD"),
    ("kling sample ball --out EMPTY", 5, "a folder: EMPTY"),
    ("kling sample ball --out FILE/x.mp4", 5, "FILE"),
    ("kling sample  --out OUT/x.mp4", 3, "the prompt is empty"),
    ("kling inspect big", 2, "unknown preset"),
    ("kling scene --plan GONE", 3, "no such file: GONE"),
    ("kling scene --plan FILE", 3, "not a scene plan"),
    ("kling scene ball --preview FILE/x.mp4", 5, "FILE"),
    ("kling bench --preset big --num-prompts 1 --out OUT", 2, "unknown preset"),
    ("kling bench --weights GONE --num-prompts 1 --out OUT", 4, "GONE"),
    ("kling bench --truth GONE --ceilings-only --out OUT", 3, "GONE"),
    ("kling batch GONE --key k", 3, "GONE"),
    ("kling import-weights GONE --preset 300m --out OUT", 4, "GONE"),
    ("kling demo --videos GONE --out OUT", 3, "no such folder: GONE"),
    ("kling demo --videos EMPTY --out OUT", 3, "the folder has no files: EMPTY"),
    ("kling demo --out FILE", 5, "FILE"),
    ("kling demo --num-clips 1 --out OUT", 2, "at least 8 clips"),
    ("kling nonsense", 2, "unknown command"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory):
    base = tmp_path_factory.mktemp("x") / "動画 1"  # neither ASCII nor without spaces
    found = {name: base / name.lower() for name in ("EMPTY", "JUNK", "FILE", "GONE", "CARD", "OUT")}
    for name in ("EMPTY", "JUNK", "CARD"):
        found[name].mkdir(parents=True)
    found["FILE"].write_text("x")
    (found["JUNK"] / "a.mp4").write_bytes(b"not a video")
    (found["CARD"] / "kling.json").write_text("{")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield {name: str(path) for name, path in found.items()} | {"PORT": str(taken.getsockname()[1])}


def put(places: dict[str, str], text: str) -> str:
    for name, place in places.items():
        text = text.replace(name, place)
    return text


@pytest.mark.parametrize(("line", "code", "words"), CASES, ids=[line for line, _, _ in CASES])
def test_one_line_and_a_code(places, capsys, monkeypatch, line: str, code: int, words: str):
    monkeypatch.delenv("KLING_API_KEY", raising=False)
    monkeypatch.chdir(ROOT)
    application, *arguments = [put(places, word) for word in line.split(" ")]
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: APPLICATIONS[application](arguments))
    told = capsys.readouterr().err
    errors = [said for said in told.splitlines() if said.startswith("error: ")]
    assert ended.value.code == code, told
    assert told.splitlines()[-1:] == errors and put(places, words) in errors[0], told
    assert [path for path in Path(places["OUT"]).rglob("*") if path.is_file()] == []


FULL = """
import contextlib, subprocess, sys
from pathlib import Path
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", sys.argv[1]], check=True)
import tests.test_bad_input as bad
for line in sys.argv[2:]:
    application, *arguments = line.split(" ")
    try:
        bad.run_command(lambda: bad.APPLICATIONS[application](arguments))
    except SystemExit as ended:
        print(ended.code, [str(p) for p in Path(sys.argv[1]).rglob("*") if p.is_file()], flush=True)
"""


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path):
    """A real one: a file system of one page, 4 kB in a mount name space of its own."""
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("name spaces are not allowed here")
    lines = [
        f"data playground --num-clips 1 --workers 1 --out {full}/clips",
        f"kling sample ball --steps 1 --out {full}/x.mp4",
        f"kling scene ball --preview {full}/x.mp4",
        f"kling demo --out {full}/demo",
    ]
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", FULL, str(full), *lines],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-len(lines) :] == ["5 []"] * len(lines), done.stdout + done.stderr
    assert done.stderr.count("error: no space") == len(lines) and "Traceback" not in done.stderr, done.stderr
