"""Camera moves from what is said of them: "pans up" is a tilt, "moves closer" a dolly in, clockwise a side."""

from kling.prompt.graph import CAMERA_MOVES, CameraMove

# Clockwise is seen from above for an orbit (the camera starts at the near side), and in the picture for a roll.
_TURNS = {
    "orbit": {"clockwise": "left", "counterclockwise": "right"},
    "roll": {"clockwise": "right", "counterclockwise": "left"},
}
_DEPTH = {"toward": "in", "away": "out", "back": "out"}


def directed(kind: str, direction: str, said: str, speed: str | None) -> CameraMove:
    """The move of this kind. ``direction`` is part of the verb ("push in"), ``said`` a word beside it ("left")."""
    way = direction or _TURNS.get(kind, {}).get(said, said)
    if kind in ("dolly", "zoom"):
        way = _DEPTH.get(way, way)
    if kind == "pan" and way in ("up", "down"):
        kind = "tilt"
    if kind == "dolly" and way in ("up", "down"):
        kind = "crane"
    possible = way if way in CAMERA_MOVES[kind] else None
    return CameraMove(kind=kind, direction=possible, speed=None if kind == "static" else speed)
