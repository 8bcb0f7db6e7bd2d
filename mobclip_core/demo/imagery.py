"""What the satellite sees: three colours of vegetation, fields, slopes, snow, roofs and water.

Belongs here: the picture and all that spoils it: haze, soil colour, strips of different days, a cloud, a gap. Does not
belong here: the label rasters (see `labels`).
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mobclip_core.demo.factors import smooth_noise
from mobclip_core.demo.land import STEP_M
from mobclip_core.demo.world import World

PIXEL_M = 500.0
NODATA = 0
_FIELD_PIXELS = 3
_SEA = np.array([18.0, 42.0, 78.0])
_FOREST = np.array([34.0, 66.0, 36.0])
_GRASS = np.array([112.0, 132.0, 72.0])
_SOIL = np.array([158.0, 128.0, 92.0])
_ROOFS = np.array([150.0, 138.0, 134.0])
_SHEDS = np.array([196.0, 204.0, 216.0])
_SNOW = np.array([240.0, 243.0, 248.0])


@dataclass(frozen=True)
class Picture:
    """An image in UTM.

    Args:
        pixels: uint8, shape (3, rows, columns), row 0 the northernmost; 0 in all bands where there is no data.
        left: x of the left edge in metres.
        top: y of the top edge in metres.
    """

    pixels: np.ndarray
    left: float
    top: float


def _noise(rng: np.random.Generator, shape: tuple[int, int], range_km: float) -> np.ndarray:
    return smooth_noise(rng, shape, range_km, PIXEL_M / 1_000)


def _hill_shade(rng: np.random.Generator, height_m: np.ndarray) -> np.ndarray:
    """Light from the north-west on slopes, around 1; steeper and rougher ground varies more."""
    rough = height_m * (1 + 0.06 * _noise(rng, height_m.shape, 0.8)) + 6 * _noise(rng, height_m.shape, 1.0)
    dy, dx = np.gradient(rough, PIXEL_M)
    return np.asarray(np.clip(1 + 2.2 * (dx - dy), 0.55, 1.5))


def _patchwork(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """One random number a field of 1.5 km."""
    rows, columns = (n // _FIELD_PIXELS + 1 for n in shape)
    fields = rng.uniform(-1, 1, (rows, columns))
    return np.repeat(np.repeat(fields, _FIELD_PIXELS, axis=0), _FIELD_PIXELS, axis=1)[: shape[0], : shape[1]]


def make_picture(world: World) -> Picture:
    """Paint the country from above."""
    rng = world.config.rng("imagery")
    lattice, factors = world.lattice, world.factors
    scale = int(STEP_M / PIXEL_M)
    shape = (lattice.rows * scale, lattice.columns * scale)
    left, bottom = lattice.left - STEP_M / 2, lattice.bottom - STEP_M / 2
    x = left + PIXEL_M * (0.5 + np.arange(shape[1]))
    y = bottom + PIXEL_M * (shape[0] - 0.5 - np.arange(shape[0]))
    at = np.meshgrid(x, y)

    def seen(field: np.ndarray) -> np.ndarray:
        return lattice.sample(field, *at)

    def colour(amount: np.ndarray, paint: np.ndarray, under: np.ndarray) -> np.ndarray:
        return np.asarray(under + amount * (paint[:, None, None] - under))

    def grains(density: np.ndarray) -> np.ndarray:
        return (rng.random(shape) < density).astype(float)

    # what is on the ground, with each cover's own local accidents
    trees = np.clip(seen(factors.forest) + 0.24 * _noise(rng, shape, 3.0) + 0.10 * _noise(rng, shape, 0.7), 0, 1)
    ploughed = np.clip(0.30 + 0.22 * seen(factors.farming) + 0.24 * _noise(rng, shape, 3.0), 0, 1)
    built = np.clip(0.02 + 0.10 * np.exp(0.75 * seen(factors.urban) - 0.6 + 0.65 * _noise(rng, shape, 3.0)), 0, 0.9)
    sheds = np.clip(
        0.015 * np.exp(0.8 * seen(factors.industry) + 0.3 * seen(factors.urban) + 0.6 * _noise(rng, shape, 3.0)), 0, 0.6
    )
    image = np.broadcast_to(_GRASS[:, None, None], (3, *shape)).copy()
    patch = _patchwork(rng, shape)
    image = colour(grains(ploughed) * np.clip(0.6 + 0.4 * patch, 0, 1), _SOIL, image)
    image = colour(trees, _FOREST, image)
    image = colour(grains(built) * 0.9, _ROOFS, image)
    image = colour(grains(sheds), _SHEDS, image)
    height_m = seen(factors.elevation_m)
    snow_line = 1_050 + 160 * _noise(rng, shape, 6.0)
    image = colour(np.clip((height_m - snow_line) / 200, 0, 1), _SNOW, image)
    image *= _hill_shade(rng, height_m)

    # what lies between the ground and the file
    image *= 1 + 0.10 * np.stack([_noise(rng, shape, 5.0) for _ in range(3)])
    strip = np.floor((at[0] + 0.25 * at[1]) / 70_000).astype(np.int64)
    gain = rng.normal(1, 0.06, (3, strip.max() - strip.min() + 1))
    image *= gain[:, strip - strip.min()]
    sea = ~(ndimage.zoom(world.land.mask.astype(float), scale, order=1, grid_mode=True, mode="nearest")[::-1] > 0.5)
    image = np.where(sea, _SEA[:, None, None], image)
    haze = np.clip(0.10 + 0.07 * _noise(rng, shape, 20.0), 0, 0.5)
    cloud = _cloud(rng, world, at)
    veil = np.clip(haze + cloud, 0, 0.97)
    image = image * (1 - veil) + 245 * veil
    image += rng.normal(0, 5, image.shape)
    pixels = np.clip(np.round(image), 1, 255).astype(np.uint8)
    pixels[:, _gap(shape)] = NODATA
    return Picture(pixels, left, bottom + PIXEL_M * shape[0])


def _cloud(rng: np.random.Generator, world: World, at: tuple[np.ndarray, ...]) -> np.ndarray:
    """One thick cloud over the country's west."""
    radius = 130 * world.config.radius_km
    centre = world.land.main.centroid
    distance = np.hypot(at[0] - centre.x + 450 * world.config.radius_km, at[1] - centre.y) / radius
    return np.asarray(1.3 / (1 + np.exp(6 * (distance - 0.8 + 0.25 * _noise(rng, at[0].shape, 6.0)))))


def _gap(shape: tuple[int, int]) -> np.ndarray:
    """The north-eastern corner, which no strip covers."""
    row, column = np.ogrid[: shape[0], : shape[1]]
    return np.asarray(row / shape[0] + (1 - column / shape[1]) < 0.55)
