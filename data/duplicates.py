"""Near-duplicate clips across the whole data set: perceptual hashes in bands, never everything with everything.

A look is 192 bits; a re-encoded copy differs in up to about 16 of them, other footage in about 90. Two looks that
differ in up to 11 bits agree fully in at least one of 12 bands of 16 bits (pigeonhole); up to 16 they nearly always do.
So only clips that share a band need comparing, and only with the first of each group of duplicates.
"""

MAX_BITS = 16
CERTAIN_BITS = 11
_BAND_HEX = 4  # 16 bits
_MOST_COMPARED = 64  # of one band: plain pictures crowd some bands, and the other bands still find real duplicates


class Looks:
    """An index that grows: memory is a few hundred bytes a clip."""

    def __init__(self):
        self._bands: dict[tuple[int, str], list[tuple[str, int]]] = {}

    def add(self, clip_id: str, look: str) -> str | None:
        """The earlier clip that looks like this one, if any; a clip without a look has none.

        The answer depends on the order of adding, which is the order of the sources' names.
        """
        if not look:
            return None
        bits = int(look, 16)
        bands = [(at, look[at : at + _BAND_HEX]) for at in range(0, len(look), _BAND_HEX)]
        near = {
            (distance, other)
            for band in bands
            for other, other_bits in self._bands.get(band, ())[:_MOST_COMPARED]
            if (distance := (bits ^ other_bits).bit_count()) <= MAX_BITS
        }
        if near:
            return min(near)[1]
        for band in bands:
            self._bands.setdefault(band, []).append((clip_id, bits))
        return None
