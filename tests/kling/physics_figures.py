"""Figures of kling.physics on scenes of the playground's own layout.

    python -m tests.kling.physics_figures --scenes 40 --out docs/benchmarks/physics.md

Each scene is one object and one event; its first 8 frames (8 fps, 2 mm of tracking error) go to `estimate` with
defaults instead of the truth; `predict` runs to 2 s. Restitution counts where a bounce was seen, friction where
something slid, gravity where something flew. A position's error is the largest distance, over the 2 s, between where
the plan's camera sees the predicted and the true centre, in frame widths. Bars are counted in every scene, also where
nothing shows (then they are the prior's). "Off": the same plan simulated without
gravity, inertia, friction and restitution, against the laws.
"""

import argparse
from pathlib import Path

import numpy as np

from kling.camera import poses
from kling.physics.estimate import estimate, predict
from kling.physics.fit import rest_height_m
from kling.physics.laws import Laws
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

LIMITS = {"gravity": 0.10, "restitution": 0.15, "friction": 0.15, "position": 0.05}


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
    pose, fov = np.array(track.camera.camera_to_world), np.array(track.camera.fov_y_deg)
    there, here = (poses.project(places, pose, fov, 1.0)[0] for places in (ahead, truth))
    made = {"position": float(np.linalg.norm(there - here, axis=-1).max())}
    bottom = truth[:SEEN, 0, 2] - rest_height_m(body)
    hits = [contact for contact in track.contacts if 0 < contact.frame < SEEN - 1 and contact.impulse_n_s > 0]
    flew = bottom.max() > 0.2
    pairs = {
        "gravity": (found.gravity_m_s2, plan.environment.gravity_m_s2, found.gravity_std_m_s2),
        "restitution": (found.bodies[0].restitution, item.restitution, found.restitution_std[0]),
        "friction": (found.bodies[0].friction, item.friction, found.friction_std[0]),
    }
    made |= {f"{name} bar": abs(value - true) / bar for name, (value, true, bar) in pairs.items()}
    if flew:
        made["gravity"] = abs(found.gravity_m_s2 / plan.environment.gravity_m_s2 - 1)
    if flew and hits and bottom[hits[0].frame :].max() > 0.05:
        made["restitution"] = abs(found.bodies[0].restitution / item.restitution - 1)
    if action == "slide":
        made["friction"] = abs(found.bodies[0].friction / item.friction - 1)
    radius = np.array([np.linalg.norm(item.half_size_m)])
    known = {"rest_height_m": np.array([rest_height_m(body)]), "radius_m": radius}
    gravity_m_s2 = plan.environment.gravity_m_s2
    lawless = simulate(plan, laws=Laws.without(("gravity", "inertia", "friction", "restitution")))
    untrue = np.array(lawless.objects[0].position_m)[:, None]
    for name, places in (("residual on", truth), ("residual off", untrue)):
        made[name] = residual(places, fps=FPS, gravity_m_s2=gravity_m_s2, **known).mean_m_s2
    made["lawful"] = residual(truth, fps=FPS, gravity_m_s2=gravity_m_s2, **known).lawful
    made["reversed"] = residual(truth[::-1], fps=FPS, gravity_m_s2=gravity_m_s2, **known).lawful
    straight = np.linspace(truth[0], truth[-1], len(truth))
    made["straight"] = residual(straight, fps=FPS, gravity_m_s2=gravity_m_s2, **known).lawful
    return made


def table(all_made: list[tuple[str, dict[str, float]]]) -> str:
    """Markdown: one row a quantity, and positions again by action."""
    rows = [(name, limit, [made[name] for _, made in all_made if name in made]) for name, limit in LIMITS.items()]
    for action in dict.fromkeys(action for action, _ in all_made):
        rows.append((f"position, {action}", 0.05, [made["position"] for a, made in all_made if a == action]))
    lines = ["| error of | scenes | median | 90 % below | worst | goal | within |", "|---|---|---|---|---|---|---|"]
    for name, limit, values in rows:
        if values:
            errors = np.array(values)
            lines.append(
                f"| {name} | {len(errors)} | {np.median(errors):.3f} | {np.quantile(errors, 0.9):.3f} "
                f"| {errors.max():.3f} | {limit:.2f} | {np.mean(errors <= limit):.0%} |"
            )
    lines += ["", "| truth of | scenes | within 1 bar | 2 bars | 3 bars |", "|---|---|---|---|---|"]
    for name in ("gravity", "restitution", "friction"):
        away = np.array([made[f"{name} bar"] for _, made in all_made])
        shares = " | ".join(f"{np.mean(away <= bars):.0%}" for bars in (1, 2, 3))
        lines.append(f"| {name} | {len(away)} | {shares} |")
    lines += ["", "| tracks | share of moments that obey the laws |", "|---|---|"]
    for name in ("lawful", "reversed", "straight"):
        lines.append(f"| {name} | {np.mean([made[name] for _, made in all_made]):.2f} |")
    lines += ["", "| physics | mean residual, m/s^2 | standard error over scenes |", "|---|---|---|"]
    for name in ("on", "off"):
        values = np.array([made[f"residual {name}"] for _, made in all_made])
        lines.append(f"| {name} | {values.mean():.2f} | {values.std() / np.sqrt(len(values)):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="seed of the first scene")
    parser.add_argument("--out", type=Path, help="page whose table is replaced")
    asked = parser.parse_args()
    all_made = []
    for seed in range(asked.first, asked.first + asked.scenes):
        made = measure(seed)
        all_made.append((CASES[seed % len(CASES)][1], made))
        print(seed, *CASES[seed % len(CASES)], {name: round(value, 3) for name, value in made.items()}, flush=True)
    print(table(all_made))
    if asked.out is not None:
        before, start, rest = asked.out.read_text().partition("<!-- table: begin -->\n")
        asked.out.write_text(f"{before}{start}{table(all_made)}\n{rest[rest.index('<!-- table: end -->') :]}")


if __name__ == "__main__":
    main()
