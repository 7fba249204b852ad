"""`python -m train replay RUN/run.json --out NEW`: the run that an earlier one's record tells, from its beginning."""

import dataclasses
import json
from typing import Any

import tyro

from kling import storage
from kling.errors import ConfigError, InputError

from .stages import STAGES, start


def command(arguments: list[str]) -> None:
    """The subcommand's body. The record's settings are the defaults; what is given beside --out overrides them."""
    if not arguments or arguments[0].startswith("-"):
        raise ConfigError("nothing to replay", where="replay", fix="python -m train replay RUN/run.json --out NEW")
    stage, run = recorded(arguments[0], {name: settings for name, (settings, _) in STAGES.items()})
    default = dataclasses.replace(run, out=tyro.MISSING)
    settings, where = STAGES[stage]
    start(where, tyro.cli(settings, args=arguments[1:], prog="python -m train replay RUN/run.json", default=default))


def recorded(uri: str, stages: dict[str, type]) -> tuple[str, Any]:
    """(stage, settings) of a run.json, or of the folder that holds one. Settings added since take their defaults.

    Raises:
        InputError: no such file, or no record of a run.
        ConfigError: a setting that this version does not have.
    """
    where = uri if uri.endswith(".json") else storage.join(uri, "run.json")
    if not storage.exists(where):
        raise InputError("no record of a run", where=where, fix="Give the run.json that a run left in its --out")
    try:
        record = json.loads(storage.read_bytes(where))
        stage = record.pop("stage")
        kind = stages[stage]
    except (ValueError, KeyError, AttributeError) as error:
        fix = "Give the run.json that a run left in its --out"
        raise InputError(f"not the record of a run ({error!r})", where=where, fix=fix) from error
    record.pop("version", None)
    return stage, _made(kind, record, where)


def _made(kind: type, record: dict, where: str) -> Any:
    known = {field.name: field.type for field in dataclasses.fields(kind)}
    if unknown := sorted(record.keys() - known.keys()):
        raise ConfigError(
            f"this version has no setting {', '.join(unknown)}",
            where=where,
            fix="Replay it with the version that wrote it, or delete the setting from a copy of the record",
        )
    values = {}
    for name, value in record.items():
        if dataclasses.is_dataclass(known[name]):
            values[name] = _made(known[name], value, where)  # pyright: ignore[reportArgumentType]
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
