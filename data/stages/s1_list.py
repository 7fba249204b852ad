"""Step 1: find the sources. Every file is accounted for; a sidecar belongs to the video beside it."""

import hashlib
import os
import posixpath
from pathlib import Path

from data.work import Source
from kling import storage
from kling.errors import ConfigError, InputError


def list_sources(inputs: tuple[str, ...]) -> list[Source]:
    """Every file under the inputs, sorted by name.

    A ``NAME.json`` beside ``NAME.mp4`` (or any other file of that stem) is its sidecar; hidden files are left out.

    Raises:
        InputError: an input does not exist, or there is no file in any of them.
        StorageError: an input cannot be reached.
        ConfigError: two inputs have the same last name, so their files could not be told apart.
    """
    roots = [_root(uri) for uri in inputs]
    if len({name for _, name in roots}) < len(roots):
        raise ConfigError("two inputs have the same last name", where=", ".join(inputs), fix="Rename one folder")
    sources = [source for uri, name in roots for source in _of(uri, name)]
    if not sources:
        raise InputError(
            "no files to curate", where=", ".join(inputs), fix="Put video files there (mp4, webm, mkv, ...)"
        )
    return sorted(sources, key=lambda source: source.name)


def _root(uri: str) -> tuple[str, str]:
    uri = str(Path(uri).absolute()) if storage.is_local(uri) and "://" not in uri else uri.rstrip("/")
    return uri, posixpath.basename(uri) or "input"


def _of(root: str, name: str) -> list[Source]:
    details = _details(root)
    stems: dict[str, list[str]] = {}
    for uri in details:
        stems.setdefault(posixpath.splitext(uri)[0], []).append(uri)
    sources = []
    for uri, fingerprint in details.items():
        stem, extension = posixpath.splitext(uri)
        beside = [other for other in stems[stem] if not other.endswith(".json")]
        if extension == ".json" and beside:
            continue
        sidecar = stem + ".json" if extension != ".json" and stem + ".json" in details else None
        if sidecar:
            fingerprint = hashlib.sha256((fingerprint + details[sidecar]).encode()).hexdigest()[:16]
        inner = uri[len(root) :].lstrip("/")
        called = _speakable(posixpath.join(name, inner) if inner else name)
        sources.append(Source(name=called, uri=uri, fingerprint=fingerprint, sidecar=sidecar))
    return sources


def _speakable(name: str) -> str:
    """The name as text that can be written: bytes that are not UTF-8 (names of other systems) as \\xff."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _details(root: str) -> dict[str, str]:
    """URI of each file > fingerprint: its size and its time or entity tag."""
    found: dict[str, str] = {}
    if storage.is_local(root):
        for uri in storage.list_files(root):
            if _hidden(uri[len(root) :]):
                continue
            try:
                state = os.stat(uri)  # noqa: PTH116
                found[uri] = _fingerprint(state.st_size, state.st_mtime_ns)
            except OSError as error:  # a link that points nowhere or at itself: the ledger will say so
                found[uri] = _fingerprint(-1, error.errno)
        return found
    fs, path = storage.resolve(root)
    files = storage.list_files(root)  # says in one line when the place cannot be reached
    table = fs.find(path, detail=True)
    for uri in files:
        info = table.get(fs._strip_protocol(uri), {})
        stamp = info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("created") or ""
        if not _hidden(uri[len(root) :]):
            found[uri] = _fingerprint(info.get("size", 0), stamp)
    return found


def _hidden(inner: str) -> bool:
    return any(part.startswith(".") for part in inner.split("/"))


def _fingerprint(size: int, stamp: object) -> str:
    return hashlib.sha256(f"{size}|{stamp}".encode()).hexdigest()[:16]
