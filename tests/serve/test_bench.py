"""The bench of a service, against a real one: what it counts, and where it writes."""

from pathlib import Path

import pytest

from kling.bench.page import replace_table
from kling.errors import ConfigError
from serve import bench
from serve.app import ServiceSettings

from .conftest import Service


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.ray
@pytest.mark.slow
def test_overload_loses_no_accepted_task(service: Service):
    settings = ServiceSettings(preset="tiny", state=service.state)
    running = bench.Running(url=service.url, key=service.new_key(), store=service.store, settings=settings)
    rows = [_cells(row) for row in bench.load(running, bench.Bench(load_s=1.0)) if row.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["1x", "2x", "10x"]
    for _, asked, accepted, refused, lost, p50, p99, rate in rows:
        assert int(asked) == int(accepted) + int(refused) and int(accepted) > 0
        assert int(lost) == 0
        assert 0 < float(p50) <= float(p99) and float(rate) > 0


def test_a_table_is_put_in_its_place(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- cmd: a -->\nold\n<!-- end: a -->\nafter\n")
    replace_table(page, "cmd", "a", "| new |")
    assert page.read_text() == "before\n<!-- cmd: a -->\n| new |\n<!-- end: a -->\nafter\n"
    with pytest.raises(ConfigError, match="the page has no place for this table"):
        replace_table(page, "cmd", "b", "| new |")
