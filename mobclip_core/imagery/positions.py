"""Where the pixels of a patch lie: on the ground, and in a coordinate reference system.

Belongs here: geodesy of patches. Does not belong here: reading rasters at these places (see `sampling`).
"""

import numpy as np
import pyproj

_ROUGHNESS = 0.02
_GEOD = pyproj.Geod(ellps="WGS84")


def pixel_positions(
    lon: np.ndarray, lat: np.ndarray, to_raster: pyproj.Transformer, ground_resolution_m: float, patch_pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the centres of all pixels of patches, in the raster's CRS.

    Pixel (i, j) lies `ground_resolution_m` times ((P - 1) / 2 - i) north and (j - (P - 1) / 2) east of the centre on
    the azimuthal equidistant plane of that centre.

    Args:
        lon: Longitudes of the centres, shape (n,).
        lat: Latitudes of the centres, shape (n,).
        to_raster: From EPSG:4326 (lon, lat) to the raster's CRS.
        ground_resolution_m: Size of a pixel on the ground.
        patch_pixels: P, the side of the patch.

    Returns:
        x and y, each float64 of shape (n, P, P); infinite beyond the CRS's domain.
    """
    half = (patch_pixels - 1) / 2 * ground_resolution_m
    x, y = _exact_positions(lon, lat, to_raster, np.linspace(-half, half, 3))
    rough = ~(_is_smooth(x) & _is_smooth(y))
    u = np.linspace(-1.0, 1.0, patch_pixels)
    basis = np.stack([u * (u - 1) / 2, 1 - u**2, u * (u + 1) / 2], axis=1)
    with np.errstate(invalid="ignore"):
        x, y = (basis @ values @ basis.T for values in (x, y))
    if rough.any():  # across a seam of the projection (the antimeridian), or near a pole
        offsets = np.linspace(-half, half, patch_pixels)
        x[rough], y[rough] = _exact_positions(lon[rough], lat[rough], to_raster, offsets)
    return x, y


def ground_points(lon: np.ndarray, lat: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes of a grid around each position.

    Args:
        lon: Longitudes of the centres, shape (n,).
        lat: Latitudes of the centres, shape (n,).
        offsets: Metres east (columns) and south (rows) of the centre, shape (k,).

    Returns:
        Each float64 of shape (n, k, k).
    """
    north, east = (-offsets)[:, None], offsets[None, :]
    shape = (len(lon), len(offsets), len(offsets))
    azimuth = np.broadcast_to(np.degrees(np.arctan2(east, north)), shape)
    distance = np.broadcast_to(np.hypot(east, north), shape)
    lon0 = np.broadcast_to(np.asarray(lon, dtype=float)[:, None, None], shape)
    lat0 = np.broadcast_to(np.asarray(lat, dtype=float)[:, None, None], shape)
    flat = [np.ascontiguousarray(values).ravel() for values in (lon0, lat0, azimuth, distance)]
    point_lon, point_lat, _ = _GEOD.fwd(flat[0], flat[1], flat[2], flat[3])
    return np.asarray(point_lon).reshape(shape), np.asarray(point_lat).reshape(shape)


def patch_boxes(lon: np.ndarray, lat: np.ndarray, side_m: float) -> np.ndarray:
    """Boxes in degrees that hold square patches with room to spare; near a pole or the antimeridian all longitudes.

    Args:
        lon: Longitudes of the centres, shape (n,).
        lat: Latitudes of the centres, shape (n,).
        side_m: Side of a patch in metres.

    Returns:
        West, south, east, north: shape (n, 4).
    """
    points_lon, points_lat = ground_points(lon, lat, np.linspace(-side_m / 2, side_m / 2, 3))
    boxes = []
    for points in (points_lon, points_lat):
        low, high = points.min(axis=(1, 2)), points.max(axis=(1, 2))
        spare = 0.25 * (high - low) + 1e-9
        boxes += [low - spare, high + spare]
    west, east, south, north = boxes
    around = (east - west > 180) | (west < -180) | (east > 180) | (south < -85) | (north > 85)
    return np.stack([np.where(around, -180.0, west), south, np.where(around, 180.0, east), north], axis=1)


def _exact_positions(
    lon: np.ndarray, lat: np.ndarray, to_raster: pyproj.Transformer, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    point_lon, point_lat = ground_points(lon, lat, offsets)
    x, y = to_raster.transform(point_lon.ravel(), point_lat.ravel())
    return np.asarray(x).reshape(point_lon.shape), np.asarray(y).reshape(point_lon.shape)


def _is_smooth(values: np.ndarray) -> np.ndarray:
    """Whether a quadratic through 3 x 3 control points, shape (n, 3, 3), describes what lies between them."""
    with np.errstate(invalid="ignore"):
        span = np.ptp(values, axis=(1, 2))
        bend = np.maximum(
            np.abs(np.diff(values, 2, axis=1)).max(axis=(1, 2)), np.abs(np.diff(values, 2, axis=2)).max(axis=(1, 2))
        )
    return np.asarray(np.isfinite(span) & (bend <= _ROUGHNESS * span))
