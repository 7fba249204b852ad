"""Admission: from what was asked to an order that this service can finish, with every change told and explained.

A request gets the preset's values where it has none and sizes the model can make. Then its memory and seconds are
predicted. What does not fit goes down the ladder of sizes, then of durations, only if the caller allows it.
"""

import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from kling.errors import KlingError
from kling.presets import Preset
from kling.schema import MAX_SEED, Adjustment, CameraControl, GenerateRequest

from .orders import Order, OrderedMove

# Width x height in pixels, largest first; upright ones are mirrored.
LADDER: tuple[tuple[int, int], ...] = ((1920, 1080), (1280, 720), (1024, 576), (512, 512))
# Sides of squares of the areas below it.
_OWN_SIDES: dict[str, tuple[int, ...]] = {"tiny": (256, 128, 96, 64)}
_QUALITY_STEPS = {"draft": 0.5, "standard": 1.0, "high": 2.0}
_MIN_DURATION_S, _DURATION_STEP_S = 3.0, 2.0
MAX_EXTENDED_S = 180.0
_REALTIME_CHUNK = 1  # latent frames; the shorter, the sooner the first picture
_MEMORY_MARGIN = 1.15  # on what was measured
_PACED_STEPS = 2  # the fewest a pace is held with (pace.py)
_MOVES = {
    "static": "the camera does not move",
    "dolly": "the camera dollies",
    "pan": "the camera pans",
    "tilt": "the camera tilts",
    "zoom": "the camera zooms",
    "orbit": "the camera orbits",
    "crane": "the camera cranes",
    "roll": "the camera rolls",
}


class NotAdmittedError(KlingError):
    """The request cannot be taken. ``status`` is HTTP's, ``code`` ours; ``retry_after_s`` where waiting helps."""

    exit_code = 6

    def __init__(self, what: str, *, status: int, code: str, field: str | None = None, retry_after_s: float = 0.0):
        super().__init__(what, where=field or "")
        self.status, self.code, self.field, self.retry_after_s = status, code, field, retry_after_s


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What one replica measured of itself when it started; predictions scale from it."""

    token_step_s: float  # seconds of one sampling step per token, all branches, on this replica's ranks
    decode_px_s: float  # seconds to decode one pixel of one frame
    base_bytes: int  # of all processes of the replica, loaded and idle, with what each may keep of its last task
    token_bytes: float  # extra at the peak of denoising, per token
    decode_px_bytes: float  # extra at the peak of decoding, per pixel of one frame
    budget_bytes: int  # what the replica may use
    fixed_bytes: float = 0.0  # extra at the peak of any task

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        return cls(**json.loads(text))


# Before any replica has measured itself: two laptop cores, on the slow side.
NOMINAL = Calibration(
    token_step_s=1.5e-3,
    decode_px_s=4e-6,
    base_bytes=1_500_000_000,
    token_bytes=600_000.0,
    decode_px_bytes=12_000.0,
    budget_bytes=8_000_000_000,
)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    seconds: float
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Admitted:
    order: Order
    adjustments: tuple[Adjustment, ...]
    prediction: Prediction


@dataclass(frozen=True, kw_only=True)
class Admission:
    """The rules of one service."""

    preset: Preset
    max_task_s: float = 900.0  # predicted; longer work is made smaller, like work that is too large

    def admit(self, request: GenerateRequest, calibration: Calibration, *, continued: Order | None = None) -> Admitted:
        """Decide what will be made.

        Args:
            continued: the order whose video the request extends.

        Raises:
            NotAdmittedError: 409 when it does not fit and may not be made smaller, or does not fit at all.
        """
        order, changes = self._resolve(request)
        if continued is not None:
            order, more = self._continuing(order, request, continued)
            changes += more
        prediction = self.predict(order, calibration)
        if not self._fits(prediction, calibration):
            reason = self._reason(prediction, calibration)
            if not request.config.allow_downgrade:
                raise NotAdmittedError(f"{reason}; allow_downgrade is false", status=409, code="does_not_fit")
            for smaller in self._smaller(order):
                prediction = self.predict(smaller, calibration)
                if self._fits(prediction, calibration):
                    changes = [*changes, *_differences(order, smaller, reason)]
                    order = smaller
                    break
            else:
                raise NotAdmittedError(f"{reason}, even at the smallest size", status=409, code="does_not_fit")
        if order.target_ms_per_frame is not None and request.config.allow_downgrade:
            order, paced = self._paced(order, calibration)
            prediction, changes = self.predict(order, calibration), [*changes, *paced]
        return Admitted(order=order, adjustments=tuple(changes), prediction=prediction)

    def _paced(self, order: Order, calibration: Calibration) -> tuple[Order, list[Adjustment]]:
        """The largest size at which the fewest steps should hold the target; the smallest if none does."""
        target_s = (order.target_ms_per_frame or 0.0) / 1000
        made = order
        for smaller in (order, *self._sizes(order)):
            made = smaller
            fastest = self.predict(replace(smaller, num_steps=_PACED_STEPS), calibration)
            if fastest.seconds / smaller.num_frames <= target_s:
                break
        return made, _differences(order, made, f"to hold {order.target_ms_per_frame:g} ms a frame")

    def predict(self, order: Order, calibration: Calibration) -> Prediction:
        """Seconds on an idle replica, and bytes at the peak. Denoising grows with tokens, decoding with pixels."""
        vae = self.preset.vae
        latent_frames, clip = vae.latent_frames(order.num_frames), self.preset.clip
        each = self._frame_tokens(order.width_px, order.height_px)
        tokens = each * latent_frames
        window = min(self.preset.dit.window or latent_frames, latent_frames) * each
        # Attention's share grows with the tokens each token sees; at the preset's own clip it is `base`.
        base = self._frame_tokens(clip.width_px, clip.height_px) * vae.latent_frames(clip.num_frames)
        width, mlp = self.preset.dit.width, self.preset.dit.mlp_dim
        linear, attended = 8 * width * width + 4 * width * mlp, 4 * width
        growth = (linear + attended * window) / (linear + attended * base)
        pixels = order.width_px * order.height_px
        seconds = order.num_steps * tokens * calibration.token_step_s * growth
        seconds += pixels * order.num_frames * calibration.decode_px_s
        held = tokens
        if order.chunk:  # of a chunk, and the whole clip's controls; keys and values follow
            held = min(latent_frames, 2 * order.chunk) * each + tokens / 2
            seconds *= (order.num_steps + 1) / order.num_steps  # every chunk is looked at once more
        extra = calibration.fixed_bytes + held * calibration.token_bytes + pixels * calibration.decode_px_bytes
        if order.chunk:
            extra += 2 * 2 * 4.0 * window * self.preset.dit.width * self.preset.dit.num_layers
        return Prediction(seconds=seconds, num_bytes=int(calibration.base_bytes + _MEMORY_MARGIN * extra))

    def _frame_tokens(self, width_px: int, height_px: int) -> int:
        """Of one latent frame."""
        _, rows, columns = self.preset.dit.patch
        stride = self.preset.vae.stride_px
        return (height_px // (stride * rows)) * (width_px // (stride * columns))

    def _fits(self, prediction: Prediction, calibration: Calibration) -> bool:
        return prediction.num_bytes <= calibration.budget_bytes and prediction.seconds <= self.max_task_s

    def _reason(self, prediction: Prediction, calibration: Calibration) -> str:
        if prediction.num_bytes > calibration.budget_bytes:
            need, have = prediction.num_bytes / 2**30, calibration.budget_bytes / 2**30
            return f"needs about {need:.1f} GiB of memory, a replica has {have:.1f}"
        return f"would take about {prediction.seconds:.0f} s, the limit is {self.max_task_s:.0f}"

    def _resolve(self, request: GenerateRequest) -> tuple[Order, list[Adjustment]]:
        """The preset's values where nothing was asked, and the nearest sizes the model can make."""
        config, clip, changes = request.config, self.preset.clip, []
        unit = self.preset.vae.stride_px * self.preset.dit.patch[2]
        width, height = clip.width_px, clip.height_px
        if config.resolution is not None:
            asked = tuple(int(side) for side in config.resolution.split("x"))
            if max(asked) > 4096:
                raise NotAdmittedError("no side is longer than 4096 px", status=422, code="invalid", field="resolution")
            width, height = (max(unit, round(side / unit) * unit) for side in asked)
            if (width, height) != asked:
                reason = f"sides are multiples of {unit} px here"
                changes.append(
                    Adjustment(field="resolution", asked=config.resolution, granted=f"{width}x{height}", reason=reason)
                )
        fps = config.fps or clip.fps
        num_frames = clip.num_frames
        if config.duration is not None or config.fps is not None:
            asked_s = config.duration if config.duration is not None else (clip.num_frames - 1) / clip.fps
            stride = self.preset.vae.stride_frames
            num_frames = max(1, round(asked_s * fps / stride)) * stride + 1
            granted_s = (num_frames - 1) / fps
            if abs(granted_s - asked_s) > 1e-6:
                reason = f"the model makes {stride}k+1 frames"
                changes.append(
                    Adjustment(field="duration", asked=f"{asked_s:g}", granted=f"{granted_s:g}", reason=reason)
                )
        steps = config.steps or max(1, round(self.preset.num_steps * _QUALITY_STEPS[config.quality]))
        camera = config.camera_control
        asked_move = camera if isinstance(camera, CameraControl) else None
        moves = () if asked_move is None else (_ordered(asked_move),)
        order = Order(
            prompt=_in_words(request.prompt, config.style, asked_move),
            negative_prompt=config.negative_prompt,
            width_px=width,
            height_px=height,
            num_frames=num_frames,
            fps=fps,
            num_steps=steps,
            guidance=self.preset.guidance if config.guidance is None else config.guidance,
            seed=secrets.randbelow(MAX_SEED + 1) if config.seed is None else config.seed,
            use_plan=config.use_plan,
            understanding=config.understanding,
            physics=config.physics,
            camera=camera is not False,
            auto_camera=camera is True,
            moves=moves,
            plan=None if request.plan is None else request.plan.model_dump(mode="json"),
            chunk=_REALTIME_CHUNK if config.realtime else 0,
            target_ms_per_frame=config.target_ms_per_frame,
        )
        return order, changes

    def _continuing(self, order: Order, request: GenerateRequest, before: Order) -> tuple[Order, list[Adjustment]]:
        """An extension has the size and rate of what it continues."""
        made = replace(
            order, width_px=before.width_px, height_px=before.height_px, fps=before.fps,
            before_frames=before.total_frames,
        )  # fmt: skip
        if request.config.duration is not None:
            stride = self.preset.vae.stride_frames
            frames = max(1, round(request.config.duration * before.fps / stride)) * stride + 1
            made = replace(made, num_frames=frames)
        if (made.total_frames - 1) / made.fps > MAX_EXTENDED_S:
            message = f"a video is extended to {MAX_EXTENDED_S:g} s at most"
            raise NotAdmittedError(message, status=422, code="invalid", field="extend")
        reason, changes = "as the video that is continued", []
        if request.config.resolution is not None:
            changes = _differences(replace(order, num_frames=made.num_frames), made, reason)
        if request.config.fps not in (None, made.fps):
            changes.append(Adjustment(field="fps", asked=str(request.config.fps), granted=str(made.fps), reason=reason))
        return made, changes

    def _smaller(self, order: Order) -> Iterator[Order]:
        """Down the ladder of sizes, then of durations at the smallest size. What is continued keeps its size."""
        smallest = order
        for smallest in () if order.before_frames else self._sizes(order):
            yield smallest
        stride = self.preset.vae.stride_frames
        duration = order.duration_s
        while duration > _MIN_DURATION_S:
            duration = max(_MIN_DURATION_S, duration - _DURATION_STEP_S)
            frames = max(1, round(duration * order.fps / stride)) * stride + 1
            yield replace(smallest, num_frames=frames)

    def _sizes(self, order: Order) -> Iterator[Order]:
        size = order.width_px, order.height_px
        aspect = order.width_px / order.height_px
        while (size := next_smaller(self.preset, *size, aspect=aspect)) is not None:
            yield replace(order, width_px=size[0], height_px=size[1])


def next_smaller(preset: Preset, width_px: int, height_px: int, *, aspect: float) -> tuple[int, int] | None:
    """The next size down the ladder; None at the preset's smallest. ``aspect`` is what was asked for."""
    unit = preset.vae.stride_px * preset.dit.patch[2]
    rungs: list[tuple[float, float]] = [(w, h) if width_px >= height_px else (h, w) for w, h in LADDER]
    # Below the common ladder a preset's own sizes keep the shape that was asked for.
    rungs += [(side * aspect**0.5, side / aspect**0.5) for side in _OWN_SIDES.get(preset.name, ())]
    for rung in rungs:
        width, height = (max(unit, round(side / unit) * unit) for side in rung)
        if width * height < width_px * height_px:
            return width, height
    return None


def _differences(asked: Order, granted: Order, reason: str) -> list[Adjustment]:
    changes = []
    if (asked.width_px, asked.height_px) != (granted.width_px, granted.height_px):
        sizes = (f"{order.width_px}x{order.height_px}" for order in (asked, granted))
        changes.append(Adjustment(field="resolution", asked=next(sizes), granted=next(sizes), reason=reason))
    if asked.num_frames != granted.num_frames:
        changes.append(
            Adjustment(
                field="duration", asked=f"{asked.duration_s:g}", granted=f"{granted.duration_s:g}", reason=reason
            )
        )
    return changes


def _ordered(camera: CameraControl) -> OrderedMove:
    return OrderedMove(kind=camera.type, direction=camera.direction, word=camera.speed, strength=camera.strength)


def _in_words(prompt: str, style: str | None, camera: CameraControl | None) -> str:
    """Style and camera move reach the model the way it was taught: in words."""
    words = prompt.rstrip(" .")
    if style:
        words += f", in {style} style"
    if camera:
        move = " ".join(part for part in (_MOVES[camera.type], camera.direction) if part)
        words += f". {move[0].upper()}{move[1:]}" + (f" {camera.speed}ly." if camera.speed == "slow" else ".")
        words = words.replace("..", ".")
    return words
