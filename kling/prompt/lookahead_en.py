"""What comes later in the sentence, where that decides what a chunk is."""

from kling.prompt.verbs_en import Chunk

_FINITE = ("base", "s", "ed")
_BREAKS = ("stop", "colon", "comma", "conjunction", "subordinator", "relative")


def verb_ahead(chunks: list[Chunk], position: int) -> bool:
    """The phrase before ``position`` gets a verb of its own before the clause ends."""
    after_preposition = False
    for chunk in chunks[position:]:
        if chunk.kind in ("verb", "still"):
            return True
        if chunk.kind in _BREAKS or (chunk.kind == "np" and not after_preposition):
            return False
        after_preposition = chunk.kind in ("path", "relation")
    return False


def finite_ahead(chunks: list[Chunk], position: int) -> bool:
    """A later verb of the same segment could be the main verb: the one before it is a reduced relative clause."""
    for chunk in chunks[position:]:
        if chunk.kind == "verb" and (chunk.form in _FINITE or chunk.auxiliary):
            return True
        if chunk.kind in ("stop", "colon", "conjunction", "subordinator", "comma"):
            return False
    return False


def list_ahead(chunks: list[Chunk], position: int) -> bool:
    """ "a cube, a ball and a cone": an "and" with a phrase comes before the segment ends."""
    for this, following in zip(chunks[position:], chunks[position + 1 :], strict=False):
        if this.kind in ("stop", "colon", "verb", "subordinator"):
            return False
        if this.kind == "conjunction" and following.kind == "np":
            return True
    return False
