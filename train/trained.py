"""The transformer as the training loop calls it."""

from torch import Tensor, nn

from kling.model.controls import Controls
from kling.model.parallel import ParallelDiT

PREFIX = "parallel.dit."  # of the transformer's parameters in here


class Trained(nn.Module):
    """`ParallelDiT`, with every parameter used in every step.

    A step without a given frame does not call the layers that read one. Optimizers disagree about parameters without a
    gradient (ZeRO-3 applies the last one again), so such layers are called with nothing and count zero times.
    """

    def __init__(self, parallel: ParallelDiT):
        super().__init__()
        self.parallel = parallel

    def forward(self, latents: Tensor, time: Tensor, text: Tensor, *, controls: Controls, **given) -> Tensor:
        velocity = self.parallel(latents, time, text, controls=controls, **given)  # b c f h w
        layers = self.parallel.dit.controls
        idle = [layers.last_frame_in] if controls.last_frame is None else []
        idle += [layers.first_frame_in] if controls.first_frame is None else []
        for layer in idle:
            velocity = velocity + 0 * layer(velocity.new_zeros(1, layer.in_features)).sum()
        return velocity
