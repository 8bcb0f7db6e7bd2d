"""The demo country on disk: from a configuration to a folder of raw files.

Belongs here: which file holds what, and putting the folder in place as a whole. Does not belong here: what is in them.
"""

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

from mobclip_core.demo import files, labels, mobility, poi
from mobclip_core.demo.census import census_table
from mobclip_core.demo.config import VERSION, WorldConfig
from mobclip_core.demo.imagery import make_picture
from mobclip_core.demo.world import World, make_world

MANIFEST = "manifest.json"
LABELS = "labels"


def generate_demo(folder: Path, config: WorldConfig | None = None) -> dict[str, int]:
    """Write the demo country, in the place of whatever lies there.

    The files are written aside and the folder is then renamed, so that a reader never sees half a country. The same
    configuration gives the same bytes.

    Args:
        folder: Where to put the files; its parent is created if missing.
        config: Size and seed.

    Returns:
        Rows by source, and how many of them are dirty in which way.
    """
    config = config or WorldConfig()
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        world = make_world(config)
        counts = _write_inputs(aside, world) | _write_labels(aside / LABELS, world)
        manifest = _identity(config) | {"counts": counts}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        _put_in_place(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return counts


def ensure_demo(folder: Path, config: WorldConfig | None = None) -> bool:
    """Write the demo country unless this very one is there already.

    Returns:
        Whether it was written.
    """
    config = config or WorldConfig()
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if {key: found.get(key) for key in ("version", "config")} == _identity(config):
            return False
    except (OSError, ValueError):
        # no country there, or half a manifest: written anew below
        pass
    generate_demo(folder, config)
    return True


def _identity(config: WorldConfig) -> dict[str, object]:
    return {"version": VERSION, "config": dataclasses.asdict(config)}


def _put_in_place(aside: Path, folder: Path) -> None:
    aside.chmod(0o755)
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
        folder.replace(old)
        shutil.rmtree(old)
    aside.replace(folder)


def _write_inputs(folder: Path, world: World) -> dict[str, int]:
    counts = files.write_regions(folder / "regions.parquet", world.zoning, world.config.region_keys)
    counts |= files.write_zones(folder / "zones.gpkg", world.zoning)

    points, found = poi.poi_points(world)
    files.write_geoparquet_points(folder / "poi.parquet", points)
    counts |= found
    register, found = poi.facilities(world)
    files.write_csv(folder / "facilities.csv", register, byte_order_mark=True)
    counts |= found
    services, found = poi.zone_counts(world)
    files.write_parquet(folder / "services_by_zone.parquet", services)
    counts |= found

    census, found = census_table(world)
    files.write_parquet(folder / "census.parquet", census)
    counts |= found
    files.write_picture(folder / "imagery.tif", make_picture(world))

    travel = mobility.make_travel(world)
    visits, found = mobility.visits(world, travel)
    files.write_parquet(folder / "visits.parquet", visits)
    counts |= found
    rides, found = mobility.trips(world, travel)
    files.write_csv(folder / "trips.csv", rides)
    counts |= found
    commuters, found = mobility.flows(world, travel)
    files.write_csv(folder / "commuters.csv", commuters)
    return counts | found


def _write_labels(folder: Path, world: World) -> dict[str, int]:
    folder.mkdir()
    for name, raster in labels.label_rasters(world).items():
        files.write_label_raster(folder / f"{name}.tif", raster)
    tables = {
        "crime": labels.crime_points(world),
        "spending": labels.spending_points(world),
        "counties": labels.county_table(world),
        "cities": labels.city_table(world),
    }
    for name, columns in tables.items():
        files.write_csv(folder / f"{name}.csv", columns)
    counts = {f"labels_{name}": len(next(iter(columns.values()))) for name, columns in tables.items()}
    return counts | files.write_counties(folder / "counties.gpkg", world.zoning, labels.county_ids(world))
