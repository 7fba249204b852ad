"""A page of docs/benchmarks: tables that a command writes between two comments, and words around them that it keeps."""

from pathlib import Path

from kling.errors import ConfigError


def replace_table(page: Path, command: str, name: str, table: str) -> None:
    """Put ``table`` between ``<!-- command: name -->`` and ``<!-- end: name -->``.

    Raises:
        ConfigError: the page has no such place.
    """
    start, end = f"<!-- {command}: {name} -->", f"<!-- end: {name} -->"
    text = page.read_text() if page.exists() else ""
    if start not in text or end not in text:
        raise ConfigError(
            "the page has no place for this table", where=str(page), fix=f"Add the lines {start} and {end}"
        )
    before, after = text[: text.index(start) + len(start)], text[text.index(end) :]
    page.write_text(f"{before}\n{table}\n{after}")
