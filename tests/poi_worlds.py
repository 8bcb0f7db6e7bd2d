"""Seven cells in two regions, and sources of POIs over them, for tests."""

import dataclasses

from mobclip_core.poi import build_poi_aggregates
from mobclip_core.poi_points import build_poi_points
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of
from tests import lake as lakes

CELLS = lakes.disk(40.7, -74.0, 1)  # 7 cells
HERE, THERE = CELLS[:4], CELLS[4:]
FAR = lakes.disk(45.0, -74.0, 0)[0]  # a cell of no region


def world(folder, points=None, zone_counts=None, categories=("shop", "school"), **text):
    poi = {"categories": list(categories), "points": points or {}, "zone_counts": zone_counts or {}}
    poi["text"] = {"dimensions": 16} | text
    lake = lakes.deployment(folder, ["here", "there"], poi=poi)
    lakes.write_grid(lake, "here", HERE)
    lakes.write_grid(lake, "there", THERE)
    return lake


def csv(folder, rows, header="lon,lat,category,name,id", name="poi.csv", bom=False):
    path = folder / name
    lines = [header, *(",".join("" if v is None else str(v) for v in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig" if bom else "utf-8")
    return str(path)


def source(file, **more):
    return {"file": file, "lon": "lon", "lat": "lat", "category_column": "category", "name_column": "name"} | more


def point(cell, category="shop", name="", ident=""):
    return (*lakes.centre(cell), category, name, ident)


def aggregates(lake, region="here"):
    """The result with the counts of both steps, and the table."""
    points = build_poi_points(lake)
    result = build_poi_aggregates(lake, region)
    table = lake.store.read(TableRef("poi_aggregates", region))
    return dataclasses.replace(result, counts=points.counts | result.counts), table


def counts_of(table):
    return dict(zip(table["cell"].to_pylist(), matrix_of(table["counts"]).tolist(), strict=True))
