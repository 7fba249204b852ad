"""The rules of the house that a linter does not know (CONTRIBUTING.md lists them)."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from kling.errors import ServiceError, starting

ROOT = Path(__file__).parent.parent
TRACKED = [
    ROOT / line
    for line in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()
    if (ROOT / line).is_file()
]  # fmt: skip
SOURCES = [
    p for p in TRACKED if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in ("kling", "data", "train", "serve")
]
TOP = {
    "pyproject.toml", "constraints.txt", "cluster.yaml", "Makefile", "README.md", "CONTRIBUTING.md", "CHANGELOG.md",
    "LICENSE", ".gitignore", ".gitattributes", ".ci", "kling", "data", "train", "serve", "tests", "docs",
}  # fmt: skip
MAX_FILE, MAX_FUNCTION, MAX_DIT = 500, 60, 450


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def num_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of code: a docstring that tells much does not crowd a function."""
    first = function.body[0]
    told = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - told


def test_the_top_level_is_fixed():
    assert {p.relative_to(ROOT).parts[0] for p in TRACKED} <= TOP


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_rooms_are_not_crowded(path: Path):
    lines = path.read_text().count("\n")
    limit = MAX_DIT if relative(path) == "kling/model/dit.py" else MAX_FILE
    assert lines <= limit, f"{lines} lines; move a wall"
    long = {f.name: num_lines(f) for f in functions(path) if num_lines(f) > MAX_FUNCTION}
    assert not long, f"functions over {MAX_FUNCTION} lines: {long}"
    assert len(path.relative_to(ROOT).parts) <= 4, "packages at most three deep"


def test_no_room_without_a_name():
    banned = re.compile(r"(^|_)(utils?|common|core|helpers?|misc|v2|new|legacy|old)(_|$)")
    assert [relative(p) for p in SOURCES if banned.search(p.stem)] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_says_what_it_is(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text())), "a module docstring"


def test_every_public_function_of_the_library_says_what_it_does():
    silent = [
        f"{relative(path)}:{node.name}"
        for path in SOURCES
        if relative(path).startswith("kling/")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and node.end_lineno - node.lineno > 3
    ]
    assert silent == []


def test_signatures_have_at_most_two_booleans():
    crowded = [
        f"{relative(path)}:{node.name}"
        for path in SOURCES
        for node in functions(path)
        if sum(isinstance(getattr(d, "value", None), bool) for d in node.args.defaults + node.args.kw_defaults) > 2
    ]
    assert crowded == []


def test_nothing_unpickles_what_a_person_brings():
    loads = re.compile(r"\b(pickle\.loads?|torch\.load|joblib\.load|allow_pickle=True|weights_only=False)\b")
    # A training run's own state is the one exception, inside train/, and there only as plain tensors.
    found = [relative(p) for p in SOURCES if loads.search(p.read_text()) and not relative(p).startswith("train/")]
    assert found == []
    for path in (p for p in SOURCES if relative(p).startswith("train/")):
        for line in path.read_text().splitlines():
            assert not loads.search(line) or "weights_only=True" in line, f"{relative(path)}: {line.strip()}"


def test_the_tree_speaks_only_of_the_project():
    places = (
        r"/work/(main|shared|scratch)",
        r"/root/",
        r"/opt/(wheels|pypi)",
        r"\.pyenv",
        "index-url",
        r"files\.python",
    )
    machine = re.compile("|".join(places))
    text = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".jsonl", ".html", ".js", ".css", ""}
    found = [
        f"{relative(p)}: {match.group()}"
        for p in TRACKED
        if p.suffix in text and p != Path(__file__)
        for match in machine.finditer(p.read_text(errors="ignore"))
    ]
    assert found == []


def test_weights_fit_the_repository():
    sizes = [p.stat().st_size for p in TRACKED if p.suffix == ".safetensors"]
    assert sum(sizes) <= 40 * 2**20


def test_the_readme_maps_every_folder():
    readme = (ROOT / "README.md").read_text()
    folders = {relative(p.parent) for p in SOURCES} | {"tests", "docs"}
    assert sorted(f for f in folders if f"{f}/" not in readme) == []


def test_help_lists_at_most_twelve_targets():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^  make (\S+)", shown, re.M)
    assert {"setup", "test", "demo"} <= set(targets) and len(targets) <= 12


def test_ray_is_started_at_a_named_address():
    """Without one, ``ray.init`` joins whatever cluster was last started on the machine, also one that is gone."""
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "ray.init":
                assert "address" in {k.arg for k in call.keywords}, f"{relative(path)}:{call.lineno}"


def test_a_ray_that_does_not_start_is_told_in_one_line():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        told = [
            node for node in ast.walk(tree) if isinstance(node, ast.With) and "starting(" in ast.unparse(node.items[0])
        ]
        inside = {id(call) for node in told for call in ast.walk(node)}
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "ray.init":
                assert id(call) in inside, f"{relative(path)}:{call.lineno}"

    def too_busy():
        with starting("Ray", where="local", fix="Try again"):
            raise Exception("\nThe current node timed out during startup.\nThis could happen because")

    with pytest.raises(
        ServiceError, match=r"^Ray did not start \(The current node timed out.*\): local. Try again$"
    ) as told:
        too_busy()
    assert str(told.value.__cause__).startswith("\nThe current")


def test_lanes_reach_the_processes_of_tests(request: pytest.FixtureRequest):
    """What pytest-xdist schedules by is the name after the last "@": without it lanes mix, and each process makes a
    cluster and a service of its own (pytest 9.2 with pytest-xdist 3.8)."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("one process")
    assert request.node.nodeid.endswith("@tests/test_house.py")
