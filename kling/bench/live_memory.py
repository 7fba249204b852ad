"""The peak of live tensor bytes while something runs, on any device, by watching every operation."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveMemory(TorchDispatchMode):
    """Counts storages that operations make while it is active, until they are freed: ``peak_bytes`` is the largest sum.

    What existed before (weights, inputs) is not counted, nor is scratch memory inside a kernel. Unlike the resident set
    of the process it does not depend on the allocator, so it is the same on every run.
    """

    def __init__(self):
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for value in tree_iter((args, kwargs)):
            self._meet(value, 0)
        result = func(*args, **kwargs)
        for value in tree_iter(result):
            self._meet(value, 1)
        return result

    def _meet(self, value: object, made: int) -> None:
        if not isinstance(value, torch.Tensor):
            return
        if value.is_meta:  # a shape, no bytes
            return
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes() * made
        if key in self._known:
            return

        def freed(_: weakref.ref) -> None:
            self.live_bytes -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
