"""The library's own small networks (readers, labels, embedder), filled from the safetensors files beside them."""

from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from kling.errors import CheckpointError

_Net = TypeVar("_Net", bound=nn.Module)


def filled(net: _Net, path: Path, *, what: str, teach: str) -> _Net:
    """The network with a file's weights, ready to use: evaluating, without gradients.

    Args:
        what: is in the file, for the error.
        teach: the command that makes such a file.

    Raises:
        CheckpointError: no such file, or the weights of another network.
    """
    try:
        net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot load {what} ({str(error).splitlines()[0]})",
            where=str(path),
            fix=f"Reinstall kling, or train them: python -m {teach} --help",
        ) from error
    return net.eval().requires_grad_(False)
