"""Pictures for people: every function takes arrays and gives the bytes of a PNG.

Belongs here: maps of cells, curves, sheets of patches, histograms, and the style of all figures. Does not belong here:
reading tables, choosing what to show, plots of scores (see `evaluation.score_plots`). Figures are drawn without
matplotlib's global state, and the same input gives the same bytes.
"""

import io
from collections.abc import Mapping, Sequence

import h3ronpy
import matplotlib
import numpy as np
import shapely
from h3ronpy.vector import cells_to_coordinates, cells_to_wkb_polygons, coordinates_to_cells
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from mobclip_core.vectors import principal_axes

_DPI = 110
INK, QUIET, EMPTY = "#1f2933", "#6b7785", "#e3e6ea"
# Okabe and Ito's eight colours, told apart by people with any colour vision, and four of Tol's
PALETTE = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#8a8f98"),
    *("#882255", "#117733", "#44aa99", "#332288"),
)
_COLOUR_MAP = matplotlib.colormaps["viridis"].with_extremes(bad=EMPTY)
_POLYGON_CELLS = 30_000
_MAP_PIXELS = 1_000


def cell_map(cells: np.ndarray, values: np.ndarray, title: str, label: str | None = None) -> bytes:
    """A map of H3 cells coloured by a value, or by colours of their own.

    The colour scale ends at the 2nd and 98th percentile, so that a few large values do not grey out the rest.

    Args:
        cells: uint64 H3 indices of one resolution, shape (n,).
        values: Shape (n,), NaN for "no value"; or (n, 3) red, green, blue in 0..1.
        title: Title.
        label: What the values are, with their unit; beside the colour bar, or below a map of colours.
    """
    cells, values = np.asarray(cells, dtype=np.uint64), np.asarray(values, dtype=float)
    centre, extent = _extent(cells)
    aspect = 1 / max(np.cos(np.radians((extent[2] + extent[3]) / 2)), 0.05)
    ratio = (extent[3] - extent[2]) * aspect / (extent[1] - extent[0])
    height = float(np.clip(7.4 * ratio, 3.0, 8.0))
    figure = new_figure(float(np.clip(height / ratio, 3.6, 7.4)) + (1.1 if values.ndim == 1 else 0.2), height + 0.6)
    axes = figure.add_subplot()
    colours, scale = _colours(values)
    if len(cells) <= _POLYGON_CELLS:
        axes.add_collection(
            PolyCollection(_outlines(cells, centre), facecolors=colours, edgecolors="face", linewidths=0.5)
        )
    elif len(cells):
        axes.imshow(_pixels(cells, colours, centre, extent), extent=extent, interpolation="nearest", origin="upper")
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect=aspect)
    axes.set_axis_off()
    set_title(axes, title)
    if scale is not None:
        beyond = ("neither", "max", "min", "both")[
            int((values > scale.norm.vmax).any() + 2 * (values < scale.norm.vmin).any())
        ]
        bar = figure.colorbar(scale, ax=axes, shrink=0.72, aspect=28, pad=0.02, extend=beyond)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, color=QUIET, labelcolor=INK)
        bar.set_label(label or "", fontsize=9, color=INK)
    elif label:
        axes.text(0, -0.02, label, transform=axes.transAxes, fontsize=8, color=QUIET, va="top")
    return png_of(figure)


def region_map(geometries: Sequence[shapely.Geometry], names: Sequence[str], title: str) -> bytes:
    """A map of regions, each with its name.

    Args:
        geometries: Polygons or multipolygons in degrees.
        names: Names, in the same order.
        title: Title.
    """
    west, south, east, north = shapely.total_bounds(np.asarray(geometries, dtype=object))
    aspect = 1 / max(np.cos(np.radians((south + north) / 2)), 0.05)
    height = float(np.clip(7.4 * (north - south) * aspect / max(east - west, 1e-9), 3.0, 8.0))
    figure = new_figure(7.4, height + 0.6)
    axes = figure.add_subplot()
    for i, (geometry, name) in enumerate(zip(geometries, names, strict=True)):
        parts, _ = shapely.get_parts(geometry, return_index=True)
        outlines = [np.asarray(part.exterior.coords) for part in parts if part.geom_type == "Polygon"]
        colour = PALETTE[i % len(PALETTE)]
        axes.add_collection(PolyCollection(outlines, facecolors=colour, alpha=0.35, edgecolors=INK, linewidths=0.4))
        middle = shapely.point_on_surface(geometry)
        axes.text(middle.x, middle.y, name, fontsize=8, color=INK, ha="center", va="center")
    axes.set(xlim=(west, east), ylim=(south, north), aspect=aspect)
    axes.margins(0.02)
    axes.set_axis_off()
    set_title(axes, title)
    return png_of(figure)


def embedding_map(cells: np.ndarray, vectors: np.ndarray, title: str) -> bytes:
    """A map of cells coloured by the first three principal components of their vectors.

    Args:
        cells: uint64 H3 indices of one resolution, shape (n,).
        vectors: Shape (n, d).
        title: Title.
    """
    colours, shares = principal_colours(vectors)
    named = ", ".join(f"{name} {share:.0%}" for name, share in zip(("red", "green", "blue"), shares, strict=True))
    # a little off white and black, so that every cell stands out from the page
    colours = 0.04 + 0.88 * colours
    return cell_map(cells, colours, title, f"Principal components 1 to 3 and their share of the variance: {named}")


def principal_colours(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours from vectors: principal components 1 to 3 as red, green and blue, each from its 2nd to 98th percentile.

    A component's sign is the one that makes its largest loading positive.

    Args:
        vectors: Shape (n, d).

    Returns:
        Colours in 0..1, shape (n, 3), and each component's share of the variance, shape (3,).
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    colours, shares = np.full((len(vectors), 3), 0.5), np.zeros(3)
    if len(vectors) < 2:
        return colours, shares
    mean, count = vectors.mean(axis=0), min(3, vectors.shape[1])
    axes, all_shares = principal_axes(vectors, mean)
    shares[:count] = all_shares[:count]
    scores = (vectors - mean) @ axes[:, :count]
    low, high = np.percentile(scores, [2, 98], axis=0)
    spread = high - low > 1e-9 * np.abs(vectors).max()
    stretched = np.clip((scores - low) / np.where(spread, high - low, 1.0), 0.0, 1.0)
    colours[:, :count] = np.where(spread, stretched, 0.5)
    return colours, shares


def loss_curves(history: Mapping[str, Sequence[float]], title: str) -> bytes:
    """Loss by epoch, one line a series; the lowest point of each series is marked.

    Args:
        history: Series name -> one value an epoch, from epoch 1. NaN leaves a gap.
        title: Title.
    """
    figure = new_figure(7.2, 4.0)
    axes = figure.add_subplot()
    for i, (name, values) in enumerate(history.items()):
        loss = np.asarray(values, dtype=float)
        epochs, colour = np.arange(1, len(loss) + 1), PALETTE[i % len(PALETTE)]
        shown = name.replace("_", " ")
        if np.isfinite(loss).any():
            best = int(np.nanargmin(loss))
            shown += f" (lowest {loss[best]:.3g}, epoch {best + 1})"
            axes.plot(epochs[best], loss[best], "o", color=colour, markersize=5)
        axes.plot(epochs, loss, color=colour, linewidth=1.8, label=shown)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    plain_axes(axes, "epoch", "loss")
    if history:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    set_title(axes, title)
    return png_of(figure)


def patch_sheet(patches: np.ndarray, title: str) -> bytes:
    """A sheet of image patches side by side; the contrast is stretched over the sheet.

    Args:
        patches: Shape (n, bands, rows, columns): the first three bands as red, green and blue, or the first in grey.
        title: Title.
    """
    images = np.moveaxis(patches[:, :3] if patches.shape[1] >= 3 else patches[:, :1], 1, -1).astype(float)
    n, rows, columns, bands = images.shape
    across = min(max(n, 1), 12)
    down = -(-n // across)
    gap = max(1, columns // 16)
    sheet = np.full((max(down, 1) * (rows + gap) + gap, across * (columns + gap) + gap, bands), np.nan)
    low, high = np.percentile(images, [0.5, 99.5]) if images.size else (0.0, 1.0)
    stretched = np.clip((images - low) / max(high - low, 1e-9), 0.0, 1.0) ** 0.8
    for i, image in enumerate(stretched):
        top, left = gap + i // across * (rows + gap), gap + i % across * (columns + gap)
        sheet[top : top + rows, left : left + columns] = image
    sheet[np.isnan(sheet)] = 1.0
    width = max(0.72 * across, 3.6)
    figure = new_figure(width, width * sheet.shape[0] / sheet.shape[1] + 0.35)
    axes = figure.add_subplot()
    shown = np.repeat(sheet, 3, axis=-1) if bands == 1 else sheet
    axes.imshow(shown, interpolation="nearest")
    axes.set_axis_off()
    set_title(axes, title)
    return png_of(figure)


def histogram(values: np.ndarray, title: str, label: str) -> bytes:
    """How values are distributed; values that are not finite are left out and counted below the title.

    Args:
        values: Shape (n,).
        title: Title.
        label: What the values are, with their unit.
    """
    values = np.asarray(values, dtype=float)
    finite = values[np.isfinite(values)]
    figure = new_figure(6.4, 3.6)
    axes = figure.add_subplot()
    bins = int(np.clip(np.sqrt(len(finite)), 8, 60))
    axes.hist(finite, bins=bins, color=PALETTE[0], edgecolor="white", linewidth=0.4)
    if len(finite):
        median = float(np.median(finite))
        axes.axvline(median, color=PALETTE[5], linewidth=1.4, label=f"median {median:,.4g}")
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    plain_axes(axes, label, "count")
    left_out = len(values) - len(finite)
    set_title(axes, title + (f"  ({left_out:,} without a value)" if left_out else ""))
    return png_of(figure)


def _colours(values: np.ndarray) -> tuple[np.ndarray, ScalarMappable | None]:
    """RGBA of each cell, and the scale behind it where the values are numbers."""
    if values.ndim == 2:
        return np.c_[np.clip(values, 0.0, 1.0), np.ones(len(values))], None
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [2, 98]) if len(finite) else (0.0, 1.0)
    if low == high and len(finite):
        low, high = finite.min(), finite.max()
    scale = ScalarMappable(Normalize(low, high if high > low else low + 1.0), _COLOUR_MAP)
    return np.asarray(scale.to_rgba(np.ma.masked_invalid(values))), scale


def _unwrapped(lon: np.ndarray, centre: float | np.ndarray) -> np.ndarray:
    """Longitudes within 180 degrees of a centre, so that a map may cross the antimeridian."""
    return np.asarray((lon - centre + 180.0) % 360.0 - 180.0 + centre)


def _coordinates(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = cells_to_coordinates(cells)
    return np.asarray(found["lng"]), np.asarray(found["lat"])


def _extent(cells: np.ndarray) -> tuple[float, tuple[float, float, float, float]]:
    """The middle longitude of cells, and west, east, south, north of a frame around them."""
    if not len(cells):
        return 0.0, (-1.0, 1.0, -1.0, 1.0)
    lon, lat = _coordinates(cells)
    turn = np.exp(1j * np.radians(lon)).mean()
    centre = float(np.degrees(np.angle(turn)))
    lon = _unwrapped(lon, centre)
    # a cell's circumradius in degrees, from its area
    radius = float(np.degrees(np.sqrt(np.asarray(h3ronpy.cells_area_rads2(cells)).max() / 2.6))) * 1.2
    across = radius / max(float(np.cos(np.radians(np.abs(lat).max()))), 0.05)
    return centre, (lon.min() - across, lon.max() + across, lat.min() - radius, lat.max() + radius)


def _outlines(cells: np.ndarray, centre: float) -> list[np.ndarray]:
    """The corners of each cell, each of shape (m, 2)."""
    polygons = shapely.from_wkb(np.asarray(cells_to_wkb_polygons(cells), dtype=object))
    corners, owner = shapely.get_coordinates(polygons, return_index=True)
    lon, _ = _coordinates(cells)
    middle = _unwrapped(lon, centre)
    corners[:, 0] = _unwrapped(corners[:, 0], middle[owner])
    return np.split(corners, np.flatnonzero(np.diff(owner)) + 1)


def _pixels(
    cells: np.ndarray, colours: np.ndarray, centre: float, extent: tuple[float, float, float, float]
) -> np.ndarray:
    """An image of very many cells: each pixel has the colour of the cell that it lies in, or none."""
    west, east, south, north = extent
    lon, lat = np.meshgrid(
        west + (np.arange(_MAP_PIXELS) + 0.5) / _MAP_PIXELS * (east - west),
        np.clip(north - (np.arange(_MAP_PIXELS) + 0.5) / _MAP_PIXELS * (north - south), -90, 90),
    )
    resolution = int(np.asarray(h3ronpy.cells_resolution(cells[:1]))[0])
    at = np.asarray(coordinates_to_cells(lat.ravel(), _unwrapped(lon.ravel(), 0.0), resolution))
    order = np.argsort(cells)
    place = order[np.minimum(np.searchsorted(cells, at, sorter=order), len(cells) - 1)]
    image = np.where((cells[place] == at)[:, None], colours[place], 0.0)
    return image.reshape(_MAP_PIXELS, _MAP_PIXELS, 4)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")


def set_title(axes: Axes, title: str) -> None:
    """A title at the left."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)


def plain_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Axes without a box, with quiet horizontal lines."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
    axes.set_axisbelow(True)
    axes.yaxis.grid(True, color=EMPTY, linewidth=0.8)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    axes.set_xlabel(x_label, fontsize=9, color=INK)
    axes.set_ylabel(y_label, fontsize=9, color=INK)


def png_of(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG of 256 colours: a third of the size, and pictures lie in Dagster's database."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()
