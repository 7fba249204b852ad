"""`python -m serve keys create|list|revoke`: works on the state folder; the service need not run."""

import datetime as dt
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from .app import ServiceSettings
from .keys import KeyStore, Limits, service_secret
from .tasks import connect
from .webhooks import webhook_secret


@dataclass(frozen=True, kw_only=True)
class Create:
    """Make a key and print it, the only time it is shown. The last line of the output is the key."""

    state: str = "out/serve"
    database: str = ""
    name: str = ""
    scopes: tuple[str, ...] = ("generate", "read")
    hour_s: float | None = None  # seconds of video an hour; default: no limit
    day_s: float | None = None
    month_s: float | None = None
    requests_per_minute: int = 600
    webhooks: bool = False  # also print the secret that signs this key's callbacks
    jwt: bool = False  # also print the access and secret key for callers that sign JWTs


@dataclass(frozen=True, kw_only=True)
class List:
    """Keys of a service, without their secrets."""

    state: str = "out/serve"
    database: str = ""


@dataclass(frozen=True, kw_only=True)
class Revoke:
    """Refuse a key from now on."""

    id: Annotated[str, tyro.conf.Positional]
    state: str = "out/serve"
    database: str = ""


def command(arguments: list[str]) -> None:
    action = tyro.extras.subcommand_cli_from_dict(
        {"create": Create, "list": List, "revoke": Revoke}, args=arguments, prog="python -m serve keys"
    )
    settings = ServiceSettings(preset="tiny", state=action.state, database=action.database)
    pepper = service_secret(action.state)
    keys = KeyStore(connect(settings.database_url), pepper)
    if isinstance(action, Create):
        _create(keys, action, pepper)
    elif isinstance(action, Revoke):
        keys.revoke(action.id)
    else:
        _list(keys)


def _create(keys: KeyStore, action: Create, pepper: bytes) -> None:
    limits = Limits(
        hour_s=action.hour_s,
        day_s=action.day_s,
        month_s=action.month_s,
        requests_per_minute=action.requests_per_minute,
    )
    made = keys.create(name=action.name, scopes=frozenset(action.scopes), limits=limits)
    if action.webhooks:
        print(f"webhook_secret {webhook_secret(pepper, made.id)}")
    if action.jwt:
        print(f"access_key {made.id}\nsecret_key {made.jwt_secret}")
    print(made.bearer)


def _list(keys: KeyStore) -> None:
    table = Table("id", "name", "scopes", "created", "revoked", "s/hour", "s/day", "s/month", "requests/min")
    for row in keys.list():
        times = (
            "" if at is None else dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M")
            for at in (row["created_at"], row["revoked_at"])
        )
        limits = ("-" if row[name] is None else f"{row[name]:g}" for name in ("hour_s", "day_s", "month_s"))
        table.add_row(row["id"], row["name"], row["scopes"], *times, *limits, str(row["requests_per_minute"]))
    Console().print(table)
