"""STAC item lists as scenes.

Belongs here: reading items as published, and which lies on top. Does not belong here: searching catalogues, reading
pixels (see `mosaic`).
Source: STAC Item specification 1.0.0 and 1.1.0 (https://github.com/radiantearth/stac-spec), extension eo 1.x/2.0 for
`eo:cloud_cover`. CRS and grid are those of the asset's own raster; the `proj` extension is not needed.
"""

import json
import math
import posixpath
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import fsspec

from mobclip_core.errors import SourceError
from mobclip_core.imagery.sampling import RasterFile
from mobclip_core.imagery.scenes import Box, ImageSource, Scene
from mobclip_core.profile.imagery import StacItems
from mobclip_core.sources.remote import reaching
from mobclip_core.sources.tables import source_files

_SCHEMA = "STAC Item specification 1.0 or 1.1"
_TIMES = ("datetime", "end_datetime", "start_datetime")


def stac_source(config: StacItems, bands: Sequence[int] | None) -> ImageSource:
    """The imagery source of an item list: least cloudy on top, then newest, then by id.

    Items without `eo:cloud_cover` lie below those with it. An item that is listed twice is used once.

    Raises:
        SourceError: A file or an item that is not as published, or an item without an asset that the profile names.
    """
    found: dict[tuple[Any, ...], Scene] = {}
    count = 0
    for file in source_files(config.file):
        for number, item in enumerate(_items(file)):
            key, scene = _scene(file, number, item, config.assets)
            found.setdefault(key, scene)
            count += 1
    if not found:
        raise SourceError(source_files(config.file), "the list has no items", hint="check the search that made it")
    scenes = tuple(found[key] for key in sorted(found))
    counts = {"scenes": len(scenes), "items_repeated": count - len(scenes)}
    return ImageSource(scenes, None if bands is None else tuple(bands), counts)


def _items(file: str) -> list[Any]:
    """The items of a file: an ItemCollection, an Item, or one Item a line."""
    with reaching(file), fsspec.open(file, "rt", encoding="utf-8-sig", compression="infer") as opened:
        try:
            text = opened.read()
        except UnicodeDecodeError as error:
            raise SourceError(file, f"is not text: {error}", hint="expected JSON or newline-delimited JSON") from error
    try:
        found = json.loads(text)
    except json.JSONDecodeError as whole:
        return _lines(file, text, whole)
    if isinstance(found, dict) and found.get("type") == "FeatureCollection" and isinstance(found.get("features"), list):
        return list(found["features"])
    if isinstance(found, dict) and found.get("type") == "Feature":
        return [found]
    kind = found.get("type") if isinstance(found, dict) else type(found).__name__
    raise SourceError(
        file,
        f"found {kind!r}, expected a STAC ItemCollection (type FeatureCollection with features) or Item (type Feature)",
        hint="list items, not collections or catalogues; or one item a line",
    )


def _lines(file: str, text: str, whole: json.JSONDecodeError) -> list[Any]:
    items = []
    for number, line in enumerate(text.splitlines()):
        if line.strip():
            try:
                items.append(json.loads(line))
            except json.JSONDecodeError as error:
                # the first line of a file of one document says nothing; the document's own error does
                problem = error if items else whole
                raise SourceError(
                    file,
                    f"not valid JSON: {problem}",
                    rows=[number] if items else (),
                    hint="the file may be truncated: fetch it again",
                ) from error
    return items


def _scene(file: str, number: int, item: Any, assets: Sequence[str]) -> tuple[tuple[Any, ...], Scene]:
    """An item as a scene, with the key of its place: smaller is nearer to the top."""
    version = item.get("stac_version") if isinstance(item, dict) else None
    if not isinstance(version, str) or not version.startswith("1."):
        raise SourceError(
            file,
            f"stac_version is {version!r}, expected an item of the {_SCHEMA}",
            column="stac_version",
            rows=[number],
        )
    name = item.get("id")
    if not isinstance(name, str) or not name:
        raise _wrong(file, number, "id", name, "a text")
    properties, present = item.get("properties"), item.get("assets")
    if not isinstance(properties, Mapping):
        raise _wrong(file, number, "properties", properties, f"an object in item {name}")
    if not isinstance(present, Mapping):
        raise _wrong(file, number, "assets", present, f"an object in item {name}")
    hrefs = []
    for key in assets:
        asset = present.get(key)
        if not isinstance(asset, Mapping) or not isinstance(asset.get("href"), str):
            raise SourceError(
                file,
                f"item {name} has no asset {key!r}",
                column=f"assets.{key}.href",
                rows=[number],
                hint=f"it has {sorted(present)}; name the right ones in imagery.stac.assets, or leave the item out",
            )
        hrefs.append(_resolved(asset["href"], file))
    cloud = _cloud_cover(file, number, name, properties)
    place = (cloud, -_time(file, number, name, properties).timestamp(), name, tuple(hrefs))
    return place, Scene(f"{file} item {name}", tuple(map(RasterFile, hrefs)), _box(file, number, name, item))


def _wrong(file: str, number: int, column: str, found: object, expected: str) -> SourceError:
    return SourceError(file, f"found {found!r}, {_SCHEMA} has {expected}", column=column, rows=[number])


def _cloud_cover(file: str, number: int, name: str, properties: Mapping[str, Any]) -> float:
    cloud = properties.get("eo:cloud_cover")
    if cloud is None:
        return math.inf
    if isinstance(cloud, bool) or not isinstance(cloud, int | float) or not 0 <= cloud <= 100:
        raise _wrong(file, number, "properties.eo:cloud_cover", cloud, f"a percentage from 0 to 100 (item {name})")
    return float(cloud)


def _time(file: str, number: int, name: str, properties: Mapping[str, Any]) -> datetime:
    stated = next((properties[key] for key in _TIMES if properties.get(key) is not None), None)
    try:
        time = datetime.fromisoformat(stated)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        expected = f"an RFC 3339 time, or null and start_datetime and end_datetime (item {name})"
        raise _wrong(file, number, "properties.datetime", stated, expected) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _box(file: str, number: int, name: str, item: Mapping[str, Any]) -> Box:
    bbox = item.get("bbox")
    numbers = isinstance(bbox, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in bbox)
    if numbers and bbox is not None and len(bbox) in (4, 6):
        half = len(bbox) // 2
        (west, south), (east, north) = bbox[:2], bbox[half : half + 2]
        # west may be greater than east: across the antimeridian
        if -180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90:
            return float(west), float(south), float(east), float(north)
    raise _wrong(file, number, "bbox", bbox, f"[west, south, east, north] in degrees (item {name})")


def _resolved(href: str, file: str) -> str:
    """An asset's address: relative ones start at the folder of the item list."""
    if "://" in href or posixpath.isabs(href):
        return href
    scheme, separator, path = file.rpartition("://")
    return scheme + separator + posixpath.normpath(posixpath.join(posixpath.dirname(path), href))
