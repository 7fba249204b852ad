"""Model FLOPs utilisation: operations a second that the model needs (kling.model.flops; recomputation is not counted),
over what the devices could do."""

import time

import torch

from kling.model.attention import Grid
from kling.model.flops import Workload, training_flops
from kling.presets import Preset

from .objective import Draw
from .plan import GPUS

_SIDE = 1024  # of the matrices that are multiplied where no peak is published


def step_flops(preset: Preset, drawn: Draw, times: int) -> int:
    """Operations of this step: of as many forward and backward passes like this one over all ranks."""
    frames, height, width = (n // p for n, p in zip(drawn.noisy.shape[2:], preset.dit.patch, strict=True))
    work = Workload(
        grid=Grid(frames=frames, height=height, width=width),
        batch=len(drawn.noisy),
        text_tokens=drawn.text.shape[1],
        chunk=drawn.chunk,
        controls=True,
        time_per_frame=True,
    )
    return training_flops(preset.dit, work) * times


def peak_flops(device: torch.device) -> tuple[float, str]:
    """(operations a second of one rank's device, where the number is from).

    Published for the GPUs of `plan.GPUS` (dense bf16); measured for others and for CPUs: the best of 5 products of
    matrices, with the threads of this process and whatever else the machine is doing.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device).lower()
        for known, gpu in GPUS.items():
            if known.split("-")[0] in name:
                return gpu.flops, f"published, {known}"
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.ones(_SIDE, _SIDE, device=device, dtype=dtype)
    best_s = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        _ = (matrix @ matrix)[0, 0].item()  # waits for the device
        best_s = min(best_s, time.perf_counter() - started)
    return 2 * _SIDE**3 / best_s, f"measured, {_SIDE} x {_SIDE} matrices, {str(dtype).removeprefix('torch.')}"
