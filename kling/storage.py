"""Places: every location is an fsspec URI (a local path, file://, s3://bucket/prefix, memory://).

A file appears under its final name only when it is whole: `write_bytes` writes beside it and renames (local), or relies
on the object store's atomic put. Failures become StorageError with the place named.
"""

import contextlib
import errno
import os
import posixpath
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from kling.errors import InputError, StorageError


def resolve(uri: str | os.PathLike) -> tuple[Any, str]:
    """The fsspec file system and the path inside it.

    Raises:
        StorageError: unknown protocol or missing driver.
    """
    with _named(str(uri)):
        fs, path = fsspec.core.url_to_fs(str(uri))
        return fs, path


def join(uri: str | os.PathLike, *parts: str) -> str:
    """Append path parts to a URI; a local path stays a local path; a last part that is a whole URI is the answer."""
    if parts and "://" in parts[-1]:
        return parts[-1]
    return posixpath.join(str(uri).rstrip("/") or "/", *parts) if parts else str(uri)


def is_local(uri: str | os.PathLike) -> bool:
    return "://" not in str(uri) or str(uri).startswith("file://")


def absolute(uri: str | os.PathLike) -> str:
    """The same place for a process that works in another folder."""
    return str(Path(str(uri).removeprefix("file://")).absolute()) if is_local(uri) else str(uri).rstrip("/")


def exists(uri: str | os.PathLike) -> bool:
    fs, path = resolve(uri)
    with _named(str(uri)):
        return bool(fs.exists(path))


def read_bytes(uri: str | os.PathLike) -> bytes:
    """Raises InputError when the file does not exist, StorageError when the place cannot be read."""
    fs, path = resolve(uri)
    with _named(str(uri)):
        try:
            return fs.cat_file(path)
        except FileNotFoundError:
            raise InputError("no such file", where=str(uri)) from None


def write_bytes(uri: str | os.PathLike, data: bytes, *, lasting: bool = True) -> None:
    """Write a whole file or nothing: readers never see half of it.

    Args:
        lasting: wait until the disk has it. False for what can be made again: should the machine lose its power soon
            after, the file may be there and empty.
    """
    fs, path = resolve(uri)
    with _named(str(uri)):
        if not is_local(uri):
            fs.pipe_file(path, data)
            return
        with whole_file(path) as part, part.open("wb") as file:
            file.write(data)
            if lasting:
                file.flush()
                os.fsync(file.fileno())


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """A new file beside a local path, to be written in the block: it takes the path's name when the block ends well,
    and is gone otherwise."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def check_file(path: str | os.PathLike) -> None:
    """Before long work whose result goes into this local file.

    Raises:
        StorageError: it is a folder, or its folder cannot be made or written.
    """
    target = Path(path)
    if target.is_dir():
        raise StorageError("this is a folder", where=str(path), fix="Give the name of a file")
    with _named(str(path)):
        target.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(target.parent, os.W_OK):
        raise StorageError("cannot write in this folder", where=str(target.parent))


def list_files(uri: str | os.PathLike) -> list[str]:
    """Every file under a URI, recursively and sorted, as URIs of the same protocol; links are not followed in circles.

    Raises:
        InputError: the place does not exist.
    """
    fs, path = resolve(uri)
    with _named(str(uri)):
        if not fs.exists(path):
            raise InputError("no such folder or file", where=str(uri))
        if fs.isfile(path):
            return [str(uri)]
        if is_local(uri):  # os.walk does not follow directory links: a loop of links cannot hold us
            found = [os.path.join(root, name) for root, _, names in os.walk(path) for name in names]  # noqa: PTH118
            return sorted(found)
        return sorted(fs.unstrip_protocol(name) for name in fs.find(path))


@contextlib.contextmanager
def _named(place: str) -> Iterator[None]:
    """Turn a driver's exceptions into a StorageError that names the place."""
    try:
        yield
    except (InputError, StorageError):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError("no space left", where=place, fix="Free some space and run it again") from error
        reason = error.strerror or str(error) or type(error).__name__
        raise StorageError(f"cannot use this place ({reason})", where=place) from error
    except (ValueError, ImportError) as error:  # fsspec: unknown protocol, driver not installed
        raise StorageError(f"cannot use this place ({error})", where=place) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore", "aiohttp"):
            raise StorageError(f"cannot reach this place ({type(error).__name__}: {error})", where=place) from error
        raise
