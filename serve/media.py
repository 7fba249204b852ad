"""What a task leaves in storage, under STATE/media/TASK_ID. Every file appears whole under its final name.

latent.safetensors     the sampler's state after the last saved step; kept until the video is safe
frames/00000.npy ...   decoded frames (f h w 3, uint8) as they come, for viewers; removed when the video is there
plan.json              the ScenePlan it is made from
first.png, last.png    the pictures it starts and ends with
before.mp4             the video it continues
chunks/00000.st ...    realtime tasks: clean latents chunk by chunk, with how each was made; kept like the latent
video.mp4              the result
"""

import io
import posixpath
from typing import TYPE_CHECKING, Literal

import numpy as np

from kling import storage
from kling.errors import InputError

if TYPE_CHECKING:  # the ingress reads frames without loading torch
    from kling.shapes import Frames

_LATENT, _FRAMES, _VIDEO = "latent.safetensors", "frames", "video.mp4"


class Media:
    """The files of one task.

    Args:
        state: URI of the service's state folder.
        task_id: made by the store; never a caller's string, so it cannot lead anywhere else.
    """

    def __init__(self, state: str, task_id: str):
        self.folder = storage.join(state, "media", task_id)

    @property
    def latent(self) -> str:
        return self._path(_LATENT)

    def save_frames(self, index: int, frames: "Frames") -> None:
        buffer = io.BytesIO()
        np.save(buffer, frames, allow_pickle=False)
        storage.write_bytes(self._chunk(index), buffer.getvalue(), lasting=False)  # made again if a node dies

    def load_frames(self, index: int) -> "Frames | None":
        """A chunk of frames, or None while it is not there (or no longer)."""
        if not storage.exists(self._chunk(index)):
            return None
        try:
            return np.load(io.BytesIO(storage.read_bytes(self._chunk(index))), allow_pickle=False)
        except InputError:  # removed between the two calls: the video is there
            return None
        except (ValueError, EOFError):  # cut off when a node lost its power: made again
            return None

    def save_picture(self, name: Literal["first", "last"], png: bytes) -> None:
        storage.write_bytes(self._path(f"{name}.png"), png)

    def load_picture(self, name: Literal["first", "last"]) -> bytes:
        """Raises InputError when there is none."""
        return storage.read_bytes(self._path(f"{name}.png"))

    def save_before(self, video: bytes) -> None:
        storage.write_bytes(self._path("before.mp4"), video)

    def load_before(self) -> bytes:
        return storage.read_bytes(self._path("before.mp4"))

    def save_plan(self, text: str) -> None:
        storage.write_bytes(self._path("plan.json"), text.encode())

    def load_plan(self) -> str | None:
        """None: not decided yet, or made from text alone."""
        where = self._path("plan.json")
        return storage.read_bytes(where).decode() if storage.exists(where) else None

    def save_chunk(self, index: int, data: bytes) -> None:
        storage.write_bytes(self._path(f"chunks/{index:05d}.st"), data)

    def load_chunk(self, index: int) -> bytes | None:
        where = self._path(f"chunks/{index:05d}.st")
        return storage.read_bytes(where) if storage.exists(where) else None

    def save_video(self, data: bytes) -> None:
        storage.write_bytes(self._path(_VIDEO), data)

    def load_video(self) -> bytes:
        """Raises InputError when it is gone."""
        return storage.read_bytes(self._path(_VIDEO))

    def tidy(self) -> None:
        """Remove what only an unfinished task needs."""
        self._remove(self._path(_FRAMES))
        self._remove(self._path(_LATENT))
        self._remove(self._path("chunks"))

    def remove(self) -> None:
        """Remove everything of this task."""
        self._remove(self.folder)

    def _path(self, name: str) -> str:
        return storage.join(self.folder, name)

    def _chunk(self, index: int) -> str:
        return posixpath.join(self._path(_FRAMES), f"{index:05d}.npy")

    def _remove(self, uri: str) -> None:
        fs, path = storage.resolve(uri)
        if fs.exists(path):
            fs.rm(path, recursive=True)
