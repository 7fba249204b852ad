"""World knowledge: what is not said but true. Sizes, masses, friction, restitution, gravity.

Values are typical ones of everyday things (engineering handbooks), chosen so that a metre-sized scene reads well in a
small picture. What a prompt says always wins over what is assumed here.
"""

import math

GRAVITY_M_S2 = {"earth": 9.81, "moon": 1.62, "mars": 3.71, "zero": 0.0}

# Half of the largest horizontal extent, metres. "" is a size that nobody stated.
RADIUS_M = {"small": 0.16, "": 0.22, "large": 0.28}

# Half sizes as multiples of that radius.
PROPORTIONS = {
    "ball": (1.0, 1.0, 1.0),
    "cube": (0.88, 0.88, 0.88),
    "cylinder": (0.80, 0.80, 1.05),
    "capsule": (0.58, 0.58, 1.25),
    "cone": (0.95, 0.95, 1.10),
}
# Share of the box of half sizes a, b, c that the shape fills: volume = share * 8 * a * b * c.
_FILL = {"ball": math.pi / 6, "cube": 1.0, "cylinder": math.pi / 4, "capsule": 0.68, "cone": math.pi / 12}

# kg/m^3: metal things of this size are hollow, or nobody could throw them.
DENSITY_KG_M3 = {"rubber": 300.0, "wood": 600.0, "metal": 1800.0, "": 400.0}
FRICTION = {"rubber": 0.70, "wood": 0.40, "metal": 0.25, "": 0.45}
RESTITUTION = {"rubber": 0.80, "wood": 0.40, "metal": 0.30, "": 0.40}

ROLLS = frozenset({"ball", "cylinder", "capsule"})
SLIDES = frozenset({"cube", "cylinder", "capsule", "cone"})
TOPPLES = frozenset({"cube", "cylinder", "capsule", "cone"})
FLAT_TOP = frozenset({"cube", "cylinder"})


def half_size_m(shape: str, size: str | None) -> tuple[float, float, float]:
    """Half sizes along the shape's own axes (kling.scene.plan.PlannedObject)."""
    radius = RADIUS_M[size or ""]
    a, b, c = PROPORTIONS[shape]
    return radius * a, radius * b, radius * c


def mass_kg(shape: str, half: tuple[float, float, float], material: str | None) -> float:
    """Mass of a solid of this shape, half sizes (m) and material; None: an ordinary light thing."""
    return DENSITY_KG_M3[material or ""] * _FILL[shape] * 8 * half[0] * half[1] * half[2]
