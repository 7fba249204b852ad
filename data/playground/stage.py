"""What the stage looks like: colours, textures of floors, skies and materials, lights. Tables and small pictures.

Pictures are made with a seeded generator when the renderer starts: nothing is loaded from disk.
"""

from dataclasses import dataclass

import numpy as np

# sRGB, kept apart in hue and brightness so that they differ at 10 pixels, at dusk and in a dark panel.
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.08, 0.10),
    "orange": (1.00, 0.48, 0.02),
    "yellow": (1.00, 0.90, 0.10),
    "green": (0.10, 0.68, 0.16),
    "cyan": (0.10, 0.85, 0.90),
    "blue": (0.12, 0.22, 0.95),
    "purple": (0.58, 0.12, 0.70),
    "pink": (1.00, 0.48, 0.76),
}
UNSAID_COLOR = (0.72, 0.72, 0.70)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """How a material answers to light; ``texture`` is one of TEXTURES' names."""

    texture: str
    specular: float
    shininess: float
    emission: float = 0.0


SURFACES: dict[str, Surface] = {
    "matte": Surface(texture="panels", specular=0.05, shininess=0.1),
    "shiny": Surface(texture="panels", specular=1.0, shininess=0.75),
    "rubber": Surface(texture="dots", specular=0.12, shininess=0.15),
    "wood": Surface(texture="grain", specular=0.1, shininess=0.2),
    "metal": Surface(texture="brushed", specular=1.0, shininess=0.45),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A floor and a sky: sRGB of floor (two tones), horizon and zenith."""

    floor: tuple[tuple[float, float, float], tuple[float, float, float]]
    horizon: tuple[float, float, float]
    zenith: tuple[float, float, float]
    light: float = 1.0  # how much light there is
    floor_reflectance: float = 0.0


_RGB = tuple[float, float, float]


def _setting(tone: _RGB, dark: _RGB, horizon: _RGB, zenith: _RGB, **more) -> Setting:
    return Setting(floor=(tone, dark), horizon=horizon, zenith=zenith, **more)


SETTINGS: dict[str, Setting] = {
    "grass": _setting((0.30, 0.50, 0.18), (0.20, 0.38, 0.12), (0.80, 0.90, 0.98), (0.35, 0.60, 0.92)),
    "sand": _setting((0.82, 0.70, 0.46), (0.70, 0.57, 0.35), (0.96, 0.90, 0.78), (0.50, 0.72, 0.92)),
    "snow": _setting((0.86, 0.89, 0.95), (0.70, 0.76, 0.86), (0.80, 0.86, 0.93), (0.55, 0.66, 0.82)),
    "wood": _setting(
        (0.62, 0.40, 0.22), (0.44, 0.26, 0.13), (0.86, 0.80, 0.70), (0.72, 0.64, 0.54), floor_reflectance=0.08
    ),
    "night": _setting((0.22, 0.24, 0.35), (0.13, 0.14, 0.24), (0.12, 0.13, 0.26), (0.02, 0.02, 0.08), light=0.8),
    "studio": _setting((0.84, 0.84, 0.84), (0.68, 0.68, 0.68), (0.93, 0.93, 0.93), (0.98, 0.98, 0.98)),
}


@dataclass(frozen=True, kw_only=True)
class Light:
    """One main light (with shadows) and the light from everywhere."""

    direction: tuple[float, float, float]
    diffuse: tuple[float, float, float]
    ambient: tuple[float, float, float]
    sky: tuple[float, float, float]  # colours the sky and the floor's distance


LIGHTINGS: dict[str, Light] = {
    "studio": Light(
        direction=(0.35, 0.55, -1.0), diffuse=(0.52, 0.52, 0.52), ambient=(0.42, 0.42, 0.42), sky=(1.0, 1.0, 1.0)
    ),
    "daylight": Light(
        direction=(-0.7, 0.45, -0.9), diffuse=(0.72, 0.69, 0.62), ambient=(0.34, 0.36, 0.40), sky=(1.0, 1.0, 1.0)
    ),
    "dusk": Light(
        direction=(0.9, 0.35, -0.6), diffuse=(0.74, 0.60, 0.48), ambient=(0.38, 0.35, 0.41), sky=(1.0, 0.70, 0.58)
    ),
}

_FACE = 64


def object_texture(name: str) -> np.ndarray:
    """6 faces of 64x64x3 uint8, one under the other; multiplied with the object's colour.

    Every pattern has alternating light and dark sides, so that spinning and rolling can be seen.
    """
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:_FACE, :_FACE] / _FACE
    faces = []
    for face in range(6):  # right, left, up, down, front, back
        tone = np.full((_FACE, _FACE), (1.0, 1.0, 0.9, 0.9, 0.66, 0.66)[face])
        if name == "dots":
            tone = tone * np.where(((x * 5) % 1 - 0.5) ** 2 + ((y * 5) % 1 - 0.5) ** 2 < 0.08, 0.6, 0.95)
        elif name == "grain":
            wave = np.sin((x * 7 + 0.35 * np.sin(y * 5 + face)) * 2 * np.pi)
            tone = tone * (0.80 + 0.2 * wave) + rng.normal(0, 0.03, tone.shape)
        elif name == "brushed":
            tone = tone * (0.86 + 0.14 * np.cos((y - 0.4) * 6)) + rng.normal(0, 0.05, (_FACE, 1))
        faces.append(tone)
    gray = np.clip(np.concatenate(faces) * 255, 0, 255).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def floor_texture(setting: str, size: int = 256) -> np.ndarray:
    """size size 3 uint8, tileable: large-scale tones that show the camera's motion, small-scale grain."""
    look = SETTINGS[setting]
    rng = np.random.default_rng(sorted(SETTINGS).index(setting) + 11)
    light, dark = (np.array(tone) for tone in look.floor)
    cells = np.kron(rng.random((8, 8)), np.ones((size // 8, size // 8)))
    if setting == "studio":
        half = size // 2
        mix = np.kron([[0.0, 1.0], [1.0, 0.0]], np.ones((half, half)))
    elif setting == "wood":
        plank = np.kron(rng.random((8, 1)), np.ones((size // 8, size)))
        line = (np.arange(size) % (size // 8) < 3)[:, None] * 0.9
        grain = 0.15 * np.sin(np.arange(size)[:, None] * 1.7 + 3 * np.sin(np.arange(size)[None] / 23))
        mix = np.clip(plank * 0.8 + line + grain, 0, 1.4)
    else:
        mix = _smooth(cells, size // 12) * 1.3 - 0.15
    texture = light + (dark - light) * np.clip(mix, 0, 1.4)[..., None]
    grain = {"studio": 0.0, "wood": 0.015, "snow": 0.015}.get(setting, 0.045)
    texture = texture + rng.normal(0, grain, (size, size, 1))
    return (np.clip(texture, 0, 1) * 255).astype(np.uint8)


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Blur around the edges too, so that tiles join."""
    spectrum = np.fft.fft2(values)
    frequency = np.fft.fftfreq(values.shape[0])
    falloff = np.exp(-((frequency * width * 2) ** 2))
    return np.real(np.fft.ifft2(spectrum * falloff[:, None] * falloff[None]))


def sky_texture(setting: str, lighting: str, size: int = 64) -> np.ndarray:
    """6 faces (right, left, up, down, front, back) one under the other: horizon to zenith; stars at night."""
    look, light = SETTINGS[setting], LIGHTINGS[lighting]
    tint = np.array(light.sky)
    horizon, zenith = np.array(look.horizon) * tint, np.array(look.zenith) * (0.4 + 0.6 * tint)
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    rng = np.random.default_rng(5)
    faces = []
    for face in range(6):
        if face in (2, 3):
            height = np.full((size, size), 1.0 if face == 2 else -1.0) / np.sqrt(1 + x**2 + y**2)
        else:
            height = -y / np.sqrt(1 + x**2 + y**2)
        mix = np.clip(height, 0, 1)[..., None] ** 0.7
        image = horizon + (zenith - horizon) * mix
        if setting == "night":
            stars = (rng.random((size, size)) > 0.985)[..., None] * rng.uniform(0.4, 0.9, (size, size, 1))
            image = np.where(height[..., None] > 0.03, image + stars, image)
        faces.append(image)
    return (np.clip(np.concatenate(faces), 0, 1) * 255).astype(np.uint8)
