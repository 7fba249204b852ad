"""Camera moves from what is said of them: "pans up" is a tilt, "moves closer" a dolly in, clockwise a side."""

from kling.prompt.graph import CAMERA_MOVES, CameraMove, Event

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


def followed(
    follows: list[tuple[list[str], str | None]], events: list[Event], camera: list[CameraMove]
) -> list[CameraMove]:
    """A camera that follows travels as its object does; ``follows``: the objects and the speed that was said."""
    moves: list[CameraMove] = []
    for names, speed in follows:
        directions = [e.direction for e in events if e.agent in names and e.direction]
        way = {"left": "left", "right": "right", "toward": "out", "away": "in"}.get(directions[0] if directions else "")
        if way or not (camera or moves):
            moves.append(CameraMove(kind="dolly", direction=way, speed=speed))
    return moves


def settled(camera: list[CameraMove]) -> tuple[tuple[CameraMove, ...], list[str]]:
    """Each move once, and the doubts: what moves is not static."""
    told = {move.kind for move in camera if move.direction}
    moves = tuple(dict.fromkeys(move for move in camera if move.direction or move.kind not in told))
    if len(moves) > 1 and any(m.kind == "static" for m in moves):
        moving = tuple(m for m in moves if m.kind != "static")
        return moving, ["the camera is static and moves: took the movement"]
    return moves, []
