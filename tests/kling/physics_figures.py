"""Figures of kling.physics on scenes of the playground's own layout: `python -m tests.kling.physics_figures`.

Each scene is one object and one event; its first 8 frames (8 fps, 2 mm of tracking error) go to `estimate` with
defaults instead of the truth; `predict` runs to 2 s. Restitution counts where a bounce was seen, friction where
something slid, gravity where something flew.
"""

import argparse

import numpy as np

from kling.physics.estimate import estimate, predict
from kling.physics.fit import rest_height_m
from kling.physics.residual import residual
from kling.physics.simulate import Body
from kling.prompt.graph import Event, ObjectNode, SceneGraph
from kling.scene.layout import lay_out
from kling.scene.simulate import simulate

FPS, SEEN, ERROR_M = 8.0, 8, 0.002
CASES = (
    ("ball", "bounce", None), ("ball", "fall", None), ("ball", "bounce", "moon"), ("cube", "slide", None),
    ("ball", "throw", None), ("ball", "bounce", "mars"), ("cylinder", "slide", None), ("ball", "roll", None),
)  # fmt: skip


def measure(seed: int) -> dict[str, float]:
    """Relative errors of one scene; what the frames cannot show is left out."""
    shape, action, gravity = CASES[seed % len(CASES)]
    graph = SceneGraph(
        objects=(ObjectNode(id="o1", shape=shape),), events=(Event(action=action, agent="o1"),), gravity=gravity
    )
    plan = lay_out(graph, seed=seed, duration_s=2.0, fps=FPS)
    track, item = simulate(plan), plan.objects[0]
    truth = np.array(track.objects[0].position_m)[:, None]
    seen = truth[:SEEN] + np.random.default_rng(seed).normal(0, ERROR_M, (SEEN, 1, 3))
    body = Body(
        name=item.id, shape=item.proxy, half_size_m=item.half_size_m, mass_kg=item.mass_kg, friction=0.4,
        restitution=0.5, position_m=item.position_m, quaternion=item.quaternion,
    )  # fmt: skip
    found = estimate((body,), seen, fps=FPS, sigma_m=ERROR_M)
    ahead = predict(found, num_frames=len(truth), fps=FPS).position_m
    box = [b for b in track.objects[0].box if b is not None]
    a_metre = np.mean([b[2] - b[0] for b in box]) / (2 * item.half_size_m[0])  # in frame widths, about
    made = {"position": float(np.abs(ahead - truth).max() * a_metre)}
    bottom = truth[:SEEN, 0, 2] - rest_height_m(body)
    hits = [contact for contact in track.contacts if 0 < contact.frame < SEEN - 1 and contact.impulse_n_s > 0]
    flew = bottom.max() > 0.2
    if flew:
        made["gravity"] = abs(found.gravity_m_s2 / plan.environment.gravity_m_s2 - 1)
    if flew and hits and bottom[hits[0].frame :].max() > 0.05:
        made["restitution"] = abs(found.bodies[0].restitution / item.restitution - 1)
    if action == "slide":
        made["friction"] = abs(found.bodies[0].friction / item.friction - 1)
    radius = np.array([np.linalg.norm(item.half_size_m)])
    known = {"rest_height_m": np.array([rest_height_m(body)]), "radius_m": radius}
    gravity_m_s2 = plan.environment.gravity_m_s2
    made["lawful"] = residual(truth, fps=FPS, gravity_m_s2=gravity_m_s2, **known).lawful
    made["reversed"] = residual(truth[::-1], fps=FPS, gravity_m_s2=gravity_m_s2, **known).lawful
    straight = np.linspace(truth[0], truth[-1], len(truth))
    made["straight"] = residual(straight, fps=FPS, gravity_m_s2=gravity_m_s2, **known).lawful
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=40)
    all_made = [measure(seed) for seed in range(parser.parse_args().scenes)]
    limits = {"gravity": 0.10, "restitution": 0.15, "friction": 0.15, "position": 0.05}
    for name, limit in limits.items():
        errors = np.array([made[name] for made in all_made if name in made])
        within = np.mean(errors <= limit)
        print(f"{name:12} n={len(errors):3} median {np.median(errors):.3f} 90 % {np.quantile(errors, 0.9):.3f} "
              f"within {limit:.0%}: {within:.0%}")  # fmt: skip
    for name in ("lawful", "reversed", "straight"):
        print(f"lawful share of {name:9} tracks: {np.mean([made[name] for made in all_made]):.2f}")


if __name__ == "__main__":
    main()
