"""`python -m serve PRESET` runs a service here; `serve keys ...` manages its keys, `serve bench` measures one."""

import contextlib
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from kling import storage
from kling.errors import ConfigError, ServiceError, run_command
from kling.presets import get_preset

console = Console(highlight=False)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Run a service: an HTTP API on 127.0.0.1 and replicas that make videos. Ctrl-C stops everything it started."""

    preset: Annotated[str, tyro.conf.Positional]
    checkpoint: str | None = None  # URI of a weights folder; default: the packaged weights
    port: int = 8000
    host: str = "127.0.0.1"
    state: str = "out/serve"  # tasks, keys and videos; a service started again on it goes on where it was
    database: str = ""  # SQLAlchemy URL (postgresql+psycopg://...); default: SQLite in the state folder
    replicas: int = 1  # with --min-replicas: at most
    min_replicas: int | None = None  # scale by the work that waits; 0: none while there is none
    idle_s: float = 120.0  # with --min-replicas: so long must fewer be enough before one is taken away
    ranks: int = 2  # processes that denoise one video together
    max_waiting: int = 1000  # tasks in the queue; what comes then is refused with 503


def main(arguments: list[str]) -> None:
    if arguments and arguments[0] == "keys":
        from .keys_command import command as keys_command

        return keys_command(arguments[1:])
    if arguments and arguments[0] == "bench":
        from .bench import command as bench_command

        return bench_command(arguments[1:])
    return serve(tyro.cli(Serve, args=arguments, prog="python -m serve", description=Serve.__doc__))


def serve(options: Serve) -> None:
    """Start, say how far it is, wait for ctrl-C or SIGTERM, and stop what was started.

    Raises:
        ServiceError: the port is taken.
        CheckpointError: the weights cannot be used.
    """
    get_preset(options.preset)  # before Ray is imported, which takes a while
    _check_port(options.host, options.port)
    from .app import ServiceSettings

    settings = ServiceSettings(
        preset=options.preset,
        state=storage.absolute(options.state),  # replicas run in another folder
        database=options.database,
        checkpoint=None if options.checkpoint is None else storage.absolute(options.checkpoint),
        num_replicas=options.replicas,
        min_replicas=options.min_replicas,
        idle_s=options.idle_s,
        num_ranks=options.ranks,
        max_waiting=options.max_waiting,
    )
    with _quiet_stop() as stopped:
        console.print(f"[1/4] weights: checking {settings.checkpoint or 'the packaged ones'}")
        _check_weights(settings.preset, settings.checkpoint)
        console.print(f"[2/4] state: {settings.state}")
        _open_state(settings.state, settings.database_url)
        _run(settings, options, stopped)


def _run(settings, options: Serve, stopped: threading.Event) -> None:
    from .app import connected, start

    address = os.environ.get("RAY_ADDRESS")
    console.print(f"[3/4] Ray: {'joining ' + address if address else 'starting a local cluster'}")
    with connected(settings):
        _catch_signals(stopped)  # Ray has put its own handlers there
        console.print(f"[4/4] replicas: {settings.num_replicas} of {settings.num_ranks} ranks, loading weights")
        start(settings, host=options.host, port=options.port)
        url = f"http://{options.host}:{options.port}"
        console.print(f"ready: {url}  (API {url}/docs; stop with ctrl-C)")
        stopped.wait()
        console.print("stopping: tasks in progress are saved and go on at the next start")


@contextlib.contextmanager
def _quiet_stop():
    """SIGINT and SIGTERM set an event; before the service waits for it they interrupt the start-up."""
    stopped = threading.Event()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    _catch_signals(stopped)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _catch_signals(stopped: threading.Event) -> None:
    def stop(number: int, frame: object) -> None:
        if stopped.is_set():
            return  # already stopping: what was started is being ended
        stopped.set()
        if not _waiting(frame):
            raise KeyboardInterrupt

    for number in _SIGNALS:
        signal.signal(number, stop)


def _waiting(frame) -> bool:
    """Whether the main thread stands in `stopped.wait()` of `_run`."""
    while frame is not None:
        if frame.f_code.co_name == "wait" and frame.f_back is not None and frame.f_back.f_code.co_name == "_run":
            return True
        frame = frame.f_back
    return False


def _check_port(host: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise ConfigError("a port is 1 to 65535", where=f"--port {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            fix = "Stop what listens there, or choose another --port"
            raise ServiceError(f"cannot listen ({error.strerror})", where=f"{host}:{port}", fix=fix) from None


def _check_weights(preset: str, checkpoint: str | None) -> None:
    """Load them once here: what is wrong with them is said in one line, before anything is started."""
    from kling.pipeline import build

    build(preset, weights=checkpoint)


def _open_state(state: str, database: str) -> None:
    from .keys import KeyStore, service_secret
    from .tasks import TaskStore

    pepper = service_secret(state)
    if not KeyStore(TaskStore(database).engine, pepper).list():
        console.print(f"      no keys yet; make one: python -m serve keys create --state {state}")


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
