"""Chunk-causal roll-out: a video of any length, a few latent frames at a time, shown while the rest is made.

Each chunk is denoised from its own noise while it looks back at the clean chunks before it, through keys and values the
model keeps of them (Yin et al., CausVid, arXiv:2412.07772; Huang et al., Self Forcing, arXiv:2506.08009).
"""

from collections.abc import Callable, Iterable, Iterator

from jaxtyping import Float
from torch import Tensor

from kling.diffusion.samplers import State, get_sampler
from kling.errors import ConfigError
from kling.shapes import Latents

# (chunk x_t, t of shape (b,), latent frame the chunk starts at) -> velocity of the chunk
ChunkVelocity = Callable[[Tensor, Tensor, int], Tensor]


def roll_out(
    noise: Iterable[Latents],
    velocity: ChunkVelocity,
    remember: Callable[[Latents, int], None],
    times: Callable[[int], Float[Tensor, "s"]],
    *,
    sampler: str = "dpmpp_2m",
    start_frame: int = 0,
) -> Iterator[Latents]:
    """Yield each clean chunk as soon as it is finished; the next is not begun before it is asked for.

    Args:
        noise: one tensor a chunk, of any numbers of frames; an endless iterable makes an endless video.
        velocity: the model, reading the keys and values of the chunks remembered.
        remember: is told each clean chunk and its first latent frame, and keeps its keys and values.
        times: sampling times of the chunk that starts at a latent frame: fewer steps where a deadline presses.
        start_frame: latent frame of the first chunk, to go on after chunks remembered earlier.

    Raises:
        ConfigError: unknown sampler; times that do not fall.
    """
    run = get_sampler(sampler)
    frame = start_frame
    for chunk in noise:
        state = State(x=chunk)

        def at_frame(x: Tensor, t: Tensor, frame: int = frame) -> Tensor:
            return velocity(x, t, frame)

        for state in run(at_frame, state, times(frame)):  # noqa: B007, B020 (the last state is the chunk)
            pass
        remember(state.x, frame)
        yield state.x
        frame += chunk.shape[2]


def chunk_sizes(num_frames: int, chunk: int) -> list[int]:
    """Latent frames of each chunk of a video; the first is the short one, so that the first picture comes soonest.

    Raises:
        ConfigError: an empty video or chunk.
    """
    if num_frames < 1 or chunk < 1:
        raise ConfigError("chunks hold at least one latent frame", where=f"{num_frames} frames in chunks of {chunk}")
    first = num_frames % chunk
    return [first] * bool(first) + [chunk] * (num_frames // chunk)
