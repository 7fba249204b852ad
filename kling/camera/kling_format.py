"""The `camera_control` object of Kling's API, to and from our moves.

    {"type": "simple", "config": {"horizontal": 0, "vertical": 0, "pan": -4, "tilt": 0, "roll": 0, "zoom": 0}}

For `simple` exactly one of the six axes is not zero, each in [-10, 10]; the other types are fixed and take no config.
Its words differ from a film crew's: its `pan` turns the camera up and down (our tilt), its `tilt` left and right (our
pan), and a negative `zoom` lengthens the focal length, so it narrows the view (our zoom in).
"""

from collections.abc import Mapping

from kling.camera.moves import Move
from kling.errors import ConfigError

# axis: (our kind, direction of negative values, direction of positive values)
AXES: dict[str, tuple[str, str, str]] = {
    "horizontal": ("dolly", "left", "right"),
    "vertical": ("crane", "down", "up"),
    "pan": ("tilt", "down", "up"),
    "tilt": ("pan", "left", "right"),
    "roll": ("roll", "left", "right"),
    "zoom": ("zoom", "in", "out"),
}
TYPES: dict[str, tuple[Move, ...]] = {
    "down_back": (
        Move(kind="crane", direction="down", aimed=False, strength=0.6),
        Move(kind="dolly", direction="out"),
    ),
    "forward_up": (Move(kind="dolly", direction="in"), Move(kind="tilt", direction="up")),
    "right_turn_forward": (Move(kind="pan", direction="right"), Move(kind="dolly", direction="in")),
    "left_turn_forward": (Move(kind="pan", direction="left"), Move(kind="dolly", direction="in")),
}
LIMIT = 10.0
_USUAL = 5.0  # the value that stands for a move's usual speed


def from_kling(control: Mapping[str, object] | None) -> tuple[Move, ...] | None:
    """Our moves for a `camera_control` object.

    Returns:
        None when the caller leaves the camera to us (no object, or no type).

    Raises:
        ConfigError: an unknown type or axis, a config where none may be, a value out of range, or not exactly one axis.
    """
    if control is None:
        return None
    unknown = sorted(set(control) - {"type", "config"})
    if unknown:
        raise ConfigError("unknown field", where=f"camera_control.{unknown[0]}", fix="Use type and config")
    kind, config = control.get("type"), control.get("config")
    if config is not None and not isinstance(config, Mapping):
        raise ConfigError("camera_control.config must be an object", where=repr(config))
    if kind is None and not config:
        return None
    if kind == "simple" or (kind is None and config):
        return (_simple(config or {}),)
    if not isinstance(kind, str) or kind not in TYPES:
        raise ConfigError(
            "unknown camera_control.type", where=repr(kind), fix=f"Choose one of: simple, {', '.join(TYPES)}"
        )
    if config and any(config.values()):
        raise ConfigError(f"camera_control.type {kind} takes no config", where="camera_control.config", fix="Drop it")
    return TYPES[kind]


def to_kling(move: Move) -> dict[str, object]:
    """The `simple` object for one of our moves (usual speeds only).

    Raises:
        ConfigError: the format has no such move (orbit, dolly in and out, static), or it has an explicit speed.
    """
    for axis, (kind, negative, positive) in AXES.items():
        if kind == move.kind and move.direction in (negative, positive) and move.speed is None:
            value = round(min(LIMIT, move.strength * _USUAL), 3) * (-1 if move.direction == negative else 1)
            return {"type": "simple", "config": {name: value if name == axis else 0.0 for name in AXES}}
    raise ConfigError("Kling's camera_control has no such move", where=move.name, fix=f"It has: {', '.join(AXES)}")


def _simple(config: Mapping[str, object]) -> Move:
    values: dict[str, float] = {}
    for axis, value in config.items():
        if axis not in AXES:
            raise ConfigError(
                "unknown camera axis", where=f"camera_control.config.{axis}", fix=f"Choose one of: {', '.join(AXES)}"
            )
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not -LIMIT <= value <= LIMIT:
            raise ConfigError("camera axes are numbers from -10 to 10", where=f"camera_control.config.{axis}={value!r}")
        if value:
            values[axis] = float(value)
    if len(values) != 1:
        raise ConfigError(
            "a simple camera_control moves exactly one axis",
            where=f"camera_control.config has {len(values)} that are not zero",
            fix="Leave one axis, set the others to 0",
        )
    axis, value = values.popitem()
    kind, negative, positive = AXES[axis]
    # Its vertical axis is a translation: the camera does not turn to keep its aim.
    return Move(
        kind=kind, direction=positive if value > 0 else negative, strength=abs(value) / _USUAL, aimed=kind != "crane"
    )
