"""Readers of published schemas, on small files in exactly these schemas."""

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from mobclip_core.errors import SourceError
from mobclip_core.profile import FoursquarePlaces, OverturePlaces
from mobclip_core.sources.foursquare import open_foursquare
from mobclip_core.sources.overture import open_overture
from mobclip_core.sources.point_batches import POINT_COLUMNS

X, Y = -74.0, 40.7


def rows_of(opener, settings):
    with duckdb.connect() as connection:
        source = opener(connection, settings, 1000)
        batches = list(source.batches)
    for batch in batches:
        assert batch.schema.names == list(POINT_COLUMNS)
    assert (source.has_id, source.has_name) == (True, True)
    return [row for batch in batches for row in batch.to_pylist()]


# ---- Overture Maps ----

_SOURCES = pa.list_(
    pa.struct(
        [
            ("property", pa.string()),
            ("dataset", pa.string()),
            ("license", pa.string()),
            ("record_id", pa.string()),
            ("update_time", pa.string()),
            ("confidence", pa.float64()),
            ("between", pa.list_(pa.float64())),
        ]
    )
)
_NAMES = pa.struct(
    [
        ("primary", pa.string()),
        ("common", pa.map_(pa.string(), pa.string())),
        ("rules", pa.list_(pa.struct([("variant", pa.string()), ("language", pa.string()), ("value", pa.string())]))),
    ]
)
_BOX = pa.struct([(name, pa.float32()) for name in ("xmin", "xmax", "ymin", "ymax")])
_ADDRESS = pa.struct([(n, pa.string()) for n in ("freeform", "locality", "postcode", "region", "country")])
_TAXONOMY = pa.struct(
    [("primary", pa.string()), ("hierarchy", pa.list_(pa.string())), ("alternates", pa.list_(pa.string()))]
)
_OLD = {"categories": pa.struct([("primary", pa.string()), ("alternate", pa.list_(pa.string()))])}
_NEW = {"basic_category": pa.string(), "taxonomy": _TAXONOMY, "operating_status": pa.string()}


def overture_schema(more):
    common = {
        "id": pa.string(),
        "geometry": pa.binary(),
        "bbox": _BOX,
        "version": pa.int32(),
        "sources": _SOURCES,
        "names": _NAMES,
        "confidence": pa.float64(),
        "websites": pa.list_(pa.string()),
        "socials": pa.list_(pa.string()),
        "emails": pa.list_(pa.string()),
        "phones": pa.list_(pa.string()),
        "brand": pa.struct([("wikidata", pa.string()), ("names", _NAMES)]),
        "addresses": pa.list_(_ADDRESS),
    }
    return pa.schema(list((common | more).items()))


GEO = (
    '{"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB", '
    '"geometry_types": ["Point"], "bbox": [-180, -90, 180, 90]}}}'
)


def place(ident="a", name="Rose", confidence=0.9, x=X, y=Y, **more):
    return {
        "id": ident,
        "geometry": shapely.to_wkb(shapely.Point(x, y)),
        "bbox": {"xmin": x, "xmax": x, "ymin": y, "ymax": y},
        "version": 1,
        "names": {"primary": name, "common": [("fr", "La Rose")], "rules": []},
        "confidence": confidence,
    } | more


def taxonomy(*hierarchy):
    return {"primary": hierarchy[-1], "hierarchy": list(hierarchy), "alternates": None}


def overture(path, rows, more, *, geo=True, change=lambda table: table):
    table = change(pa.Table.from_pylist(rows, overture_schema(more)))
    pq.write_table(table.replace_schema_metadata({"geo": GEO} if geo else None), path)
    return str(path)


def read_overture(file, **options):
    return rows_of(open_overture, OverturePlaces(kind="overture", file=file, **options))


@pytest.mark.parametrize("geo", [True, False])
def test_overture_with_its_taxonomy(tmp_path, geo):
    cafe = taxonomy("food_and_drink", "cafe", "tea_room")
    rows = [
        place("a", basic_category="cafe", taxonomy=cafe, operating_status="open"),
        place("b", None, basic_category=None, taxonomy=None),
        place("c", "Elm", operating_status="permanently_closed", confidence=0.0),
        place("d", "Ash", operating_status="temporarily_closed", confidence=0.4, taxonomy=cafe),
        place("e", "Oak", confidence=None),
        place("f", "Fir", confidence=float("nan"), geometry=None),
    ]
    file = overture(tmp_path / "p.parquet", rows, _NEW, geo=geo)
    found = read_overture(file, min_confidence=0.5)
    assert [row["category"] for row in found] == ["tea_room", None, None, "tea_room", None, None]
    assert [row["name"] for row in found] == ["Rose", None, "Elm", "Ash", "Oak", "Fir"]
    assert [row["id"] for row in found] == list("abcdef")
    assert [row["source_row"] for row in found] == list(range(6))
    assert [row["dropped"] for row in found] == [None, None, "closed", *["low_confidence"] * 3]
    assert shapely.from_wkb(found[0]["wkb"]) == shapely.Point(X, Y)
    assert [row["filled"] for row in found] == [True] * 5 + [False]
    assert [row["category"] for row in read_overture(file, category="basic")][:2] == ["cafe", None]
    assert [row["category"] for row in read_overture(file, category="top")][:2] == ["food_and_drink", None]
    assert [row["dropped"] for row in read_overture(file)] == [None, None, "closed", None, None, None]


def test_overture_before_the_taxonomy(tmp_path):
    rows = [place(categories={"primary": "bar", "alternate": ["pub"]}), place("b", categories=None)]
    file = overture(tmp_path / "p.parquet", rows, _OLD)
    assert [row["category"] for row in read_overture(file)] == ["bar", None]
    with pytest.raises(SourceError, match=r"no column taxonomy\.hierarchy, which the places schema of Overture Maps"):
        read_overture(file, category="top")


def test_overture_while_it_had_both(tmp_path):
    rows = [place(categories={"primary": "bar"}, taxonomy=taxonomy("food_and_drink", "beer_bar"))]
    assert read_overture(overture(tmp_path / "p.parquet", rows, _OLD | _NEW))[0]["category"] == "beer_bar"


def without(name):
    return lambda table: table.drop_columns([name])


def renamed(old, new):
    return lambda table: table.rename_columns([new if name == old else name for name in table.column_names])


def retyped(name, array):
    return lambda table: table.set_column(table.column_names.index(name), name, array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            renamed("id", "gers_id"),
            r"no column id, which the places schema of Overture Maps .* has as VARCHAR.*column: id",
        ),
        (without("names"), r"no column names\.primary, which the places schema of Overture.*file has \['addresses'"),
        (without("taxonomy"), r"no column taxonomy\.primary \(nor categories\.primary\), which the places schema"),
        (
            retyped("names", pa.array(["Rose"])),
            r"no column names\.primary, which the places schema of Overture Maps",
        ),
        (
            retyped("confidence", pa.array(["high"])),
            r"holds VARCHAR; the places schema of Overture Maps .* has confidence as DOUBLE; column: confidence.*"
            r"docs\.overturemaps\.org",
        ),
        (
            retyped("taxonomy", pa.array([{"primary": ["a"]}])),
            r"holds VARCHAR\[\]; the places schema of Overture Maps .* has taxonomy\.primary as VARCHAR",
        ),
        (retyped("geometry", pa.array(["POINT (1 2)"])), r"holds VARCHAR; .* has geometry as BLOB; column: geometry"),
    ],
)
def test_a_schema_that_overture_changed_is_named(tmp_path, change, message):
    file = overture(tmp_path / "p.parquet", [place(taxonomy=taxonomy("a"))], _NEW, geo=False, change=change)
    with pytest.raises(SourceError, match=rf"p\.parquet: {message}"):
        read_overture(file)


# ---- Foursquare ----

_FOURSQUARE = pa.schema(
    [
        ("fsq_place_id", pa.string()),
        ("name", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        *((name, pa.string()) for name in ("address", "locality", "region", "postcode", "admin_region", "post_town")),
        *((name, pa.string()) for name in ("po_box", "country", "date_created", "date_refreshed", "date_closed")),
        *((name, pa.string()) for name in ("tel", "website", "email")),
        ("facebook_id", pa.int64()),
        ("instagram", pa.string()),
        ("twitter", pa.string()),
        ("fsq_category_ids", pa.list_(pa.string())),
        ("fsq_category_labels", pa.list_(pa.string())),
        ("placemaker_url", pa.string()),
        ("unresolved_flags", pa.list_(pa.string())),
        ("geom", pa.binary()),
        ("bbox", _BOX),
    ]
)
CAFE = "Dining and Drinking > Cafe, Coffee, and Tea House > Tea Room"


def venue(ident="a", name="Rose", x=X, y=Y, labels=(CAFE,), **more):
    labels = None if labels is None else list(labels)
    return {
        "fsq_place_id": ident,
        "name": name,
        "longitude": x,
        "latitude": y,
        "fsq_category_labels": labels,
        "country": "US",
    } | more


def foursquare(path, rows, change=lambda table: table):
    pq.write_table(change(pa.Table.from_pylist(rows, _FOURSQUARE)), path)
    return str(path)


def read_foursquare(file, **options):
    return rows_of(open_foursquare, FoursquarePlaces(kind="foursquare", file=file, **options))


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (None, ["Tea Room", "Retail", None, None]),
        (1, ["Dining and Drinking", "Retail", None, None]),
        (2, ["Cafe, Coffee, and Tea House", "Retail", None, None]),
        (9, ["Tea Room", "Retail", None, None]),
    ],
)
def test_foursquare_and_the_level_of_its_labels(tmp_path, level, expected):
    rows = [venue(), venue("b", labels=["Retail", CAFE]), venue("c", labels=None), venue("d", labels=[])]
    found = read_foursquare(foursquare(tmp_path / "f.parquet", rows), level=level)
    assert [row["category"] for row in found] == expected
    assert next((row["id"], row["name"], row["lon"], row["lat"]) for row in found) == ("a", "Rose", X, Y)


def test_closed_venues_and_venues_without_a_position(tmp_path):
    rows = [venue(date_closed="2023-05-01"), venue("b", date_closed=""), venue("c", x=None, y=None)]
    found = read_foursquare(foursquare(tmp_path / "f.parquet", rows))
    assert [row["dropped"] for row in found] == ["closed", None, None]
    assert [row["filled"] for row in found] == [True, True, False]


def test_foursquare_dates_and_decimals(tmp_path):
    import datetime as dt
    from decimal import Decimal

    def change(table):
        table = retyped("date_closed", pa.array([dt.date(2024, 1, 1)]))(table)
        return retyped("latitude", pa.array([Decimal("40.700000")]))(table)

    [row] = read_foursquare(foursquare(tmp_path / "f.parquet", [venue()], change))
    assert (row["dropped"], row["lat"]) == ("closed", 40.7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed("fsq_place_id", "fsq_id"), r"no column fsq_place_id, which the places schema of Foursquare OS Places"),
        (without("longitude"), r"no column longitude, which the places schema of Foursquare .* has as DOUBLE"),
        (without("date_closed"), r"no column date_closed"),
        (
            retyped("fsq_category_labels", pa.array([CAFE])),
            r"holds VARCHAR; the places schema of Foursquare OS Places .* has fsq_category_labels as VARCHAR\[\]",
        ),
        (retyped("latitude", pa.array(["40.7"])), r"holds VARCHAR; .* has latitude as DOUBLE; .*docs\.foursquare\.com"),
    ],
)
def test_a_schema_that_foursquare_changed_is_named(tmp_path, change, message):
    with pytest.raises(SourceError, match=rf"f\.parquet: {message}"):
        read_foursquare(foursquare(tmp_path / "f.parquet", [venue()], change))


@pytest.mark.parametrize(
    ("read", "write"),
    [
        (read_overture, lambda path: overture(path, [place(taxonomy=taxonomy("a"))], _NEW)),
        (read_foursquare, lambda path: foursquare(path, [venue()])),
    ],
)
def test_missing_and_truncated_files_are_errors(tmp_path, read, write):
    path = tmp_path / "p.parquet"
    with pytest.raises(SourceError, match=r"p\.parquet: no such file"):
        read(str(path))
    write(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SourceError, match=r"p\.parquet: cannot be read.*truncated"):
        read(str(path))
