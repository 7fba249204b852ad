"""The error tree. Every error says what happened, where, and what to do; a command prints it as one line.

KlingError
 ├─ ConfigError          a value a person set: preset, flag, config field         exit 2
 ├─ InputError           data a person brought: a video, a folder, a shard        exit 3
 ├─ CheckpointError      weights: missing, truncated, foreign, not finite         exit 4
 ├─ StorageError         a place: unreachable, not writable, no space             exit 5
 ├─ ServiceError         a running service: refused, unreachable, port in use     exit 6
 └─ InternalError        ours: counts that do not add up, a broken invariant      exit 70
"""

import contextlib
import errno
import sys
from collections.abc import Callable, Iterator


class KlingError(Exception):
    """An error a person can act on.

    Args:
        what: what happened, in one sentence without a full stop ("cannot read the video").
        where: the file, URI, field or address it happened at.
        fix: what to do now.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = ""):
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        """One line: ``what: where. fix``."""
        line = f"{self.what}: {self.where}" if self.where else self.what
        return " ".join((f"{line}. {self.fix}" if self.fix else line).split())

    def __reduce__(self):
        # Exceptions cross process borders (Ray pickles them); keyword-only fields need telling.
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(kind: type[KlingError], what: str, where: str, fix: str) -> KlingError:
    return kind(what, where=where, fix=fix)


class ConfigError(KlingError):
    """A value a person set is not possible."""

    exit_code = 2


class InputError(KlingError):
    """Data a person brought cannot be used."""

    exit_code = 3


class CheckpointError(KlingError):
    """Weights are missing, truncated, of another model, or not finite."""

    exit_code = 4


class StorageError(KlingError):
    """A place cannot be reached, read or written, or is full."""

    exit_code = 5


class ServiceError(KlingError):
    """A running service refused, failed or cannot be reached; or its port is taken."""

    exit_code = 6


class InternalError(KlingError):
    """An invariant of ours is broken: a bug, worth a report."""

    exit_code = 70


@contextlib.contextmanager
def starting(what: str, *, where: str, fix: str) -> Iterator[None]:
    """Whatever an outside engine raises while it starts becomes a ServiceError that keeps it as its cause: Ray raises
    bare Exceptions for a machine that is too busy, and ConnectionErrors for a cluster that is not there."""
    try:
        yield
    except KlingError:
        raise
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ServiceError(f"{what} did not start ({reason.rstrip('.')})", where=where, fix=fix) from error


RAY_FIX = "Is RAY_ADDRESS right, or the machine too busy? Ray's own logs: /tmp/ray/session_latest/logs"


# What the system says about a place that a person named.
_PLACES = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EROFS,
           errno.ENAMETOOLONG, errno.ELOOP}  # fmt: skip


def run_command(command: Callable[[], int | None]) -> None:
    """Run a command line's body; end the process with its exit code.

    A KlingError becomes one line on stderr and its ``exit_code``; so does an OSError that names a place which is full,
    missing, not ours or not of its kind. Ctrl-C exits 130. Any other exception is a bug and keeps its traceback.
    """
    try:
        code = command() or 0
    except KlingError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `... | head` closed our output; nothing is wrong
        code = 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = error.filename or "the output location"
            print(
                f"error: no space left on the disk: {place}. Free some space and run the command again", file=sys.stderr
            )
        elif error.errno in _PLACES and error.filename:
            print(f"error: cannot use this place ({error.strerror}): {error.filename}", file=sys.stderr)
        else:
            raise
        code = StorageError.exit_code
    sys.exit(code)
