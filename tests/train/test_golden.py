"""The loss curve of `tiny` itself: a change of model, objective, order or optimizer shows here first."""

import pytest

from .conftest import make_job
from .launch import launch, losses


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_loss_curve_of_tiny_is_the_golden_one(tmp_path, dataset, encoders, golden):
    """12 steps of 4 clips with random latents on one rank. Other CPUs sum in another order: 1e-4 allows for that."""
    job = make_job(tmp_path, dataset, encoders, 1, steps=12, batch_size=4)
    launch([job | {"whole_preset": True}])
    curve = [losses(tmp_path)[step] for step in range(1, 13)]
    assert curve == pytest.approx(golden("loss_tiny", curve), rel=1e-4)
