"""The command line of people who use the vectors: `mobclip lookup`, `similar`, `aggregate`, `export`.

Belongs here: options, files in and out, tables for people. Does not belong here: the answers (see
`mobclip_core.serving`). Nothing here needs Dagster or torch.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mobclip_core.errors import MobclipError

if TYPE_CHECKING:
    import pyarrow as pa

    from mobclip_core.serving import Answers, Places

LakeOption = Annotated[
    str, typer.Option("--lake", "-l", help="Profile, folder of a lake, its catalog.duckdb, or URL (s3://...).")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="File for the answers: .parquet, .arrow or .csv; else they are shown."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
WeightOption = Annotated[str, typer.Option("--weight", help="How cells weigh in a mean: area or population.")]

out = Console()
_SHOWN_NUMBERS = 4
_SHOWN_ROWS = 20


def print_json(value: Any) -> None:
    """Print JSON: laid out and in colours for a person; for a program without, an item of a list a line."""
    if out.is_terminal:
        out.print_json(json.dumps(value))
    elif isinstance(value, list):
        typer.echo("[" + ",\n".join(json.dumps(item) for item in value) + "]")
    else:
        typer.echo(json.dumps(value))


def lookup(
    lake: LakeOption = "demo",
    lon: Annotated[float | None, typer.Option(help="Longitude in degrees.")] = None,
    lat: Annotated[float | None, typer.Option(help="Latitude in degrees.")] = None,
    cell: Annotated[list[str] | None, typer.Option(help="H3 index, hexadecimal, any resolution. Repeatable.")] = None,
    file: Annotated[Path | None, typer.Option(help="CSV or Parquet file with a point a row.")] = None,
    lon_column: Annotated[str, typer.Option(help="Column of longitudes in the file.")] = "lon",
    lat_column: Annotated[str, typer.Option(help="Column of latitudes in the file.")] = "lat",
    weight: WeightOption = "area",
    to: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Vectors of points, of H3 cells, or of all points of a file."""
    import numpy as np

    if sum([lon is not None and lat is not None, bool(cell), file is not None]) != 1:
        raise MobclipError("give --lon and --lat, or --cell, or --file")
    places = _open(lake)
    columns: dict[str, Any]
    if file is not None:
        points = _read(file)
        for name in (lon_column, lat_column):
            if name not in points.column_names:
                raise MobclipError(f"{file}: no column {name!r}; it has {', '.join(points.column_names)}")
        columns = {name: points[name] for name in points.column_names}
        answers = places.lookup(lon=_numbers(points, lon_column, file), lat=_numbers(points, lat_column, file))
    elif cell:
        answers = places.lookup_cells(np.array([_cell(text) for text in cell], dtype=np.uint64), _weighting(weight))
        columns = {"place": cell}
    else:
        columns = {"lon": [lon], "lat": [lat]}
        answers = places.lookup(lon=[lon or 0.0], lat=[lat or 0.0])
    _give(answers, columns, to, as_json)


def aggregate(
    file: Annotated[Path, typer.Argument(help="Polygons: GeoParquet, GeoPackage, GeoJSON, shapefile, FlatGeobuf.")],
    lake: LakeOption = "demo",
    id_column: Annotated[str, typer.Option(help="Column that names a polygon.")] = "id",
    weight: WeightOption = "area",
    to: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """One vector for each polygon of a file: the mean of its cells, weighted by area or by people."""
    from mobclip_core.sources.polygons import read_polygons

    frame, counts = read_polygons(str(file), id_column)
    problems = {name: number for name, number in counts.items() if number and name not in ("rows", "features")}
    if problems and not as_json:
        Console(stderr=True).print(", ".join(f"{name} {number}" for name, number in problems.items()), highlight=False)
    answers = _open(lake).aggregate(frame.geometry.to_numpy(), _weighting(weight))
    _give(answers, {id_column: frame["id"].tolist()}, to, as_json)


def similar(
    lake: LakeOption = "demo",
    lon: Annotated[float | None, typer.Option(help="Longitude in degrees.")] = None,
    lat: Annotated[float | None, typer.Option(help="Latitude in degrees.")] = None,
    cell: Annotated[str | None, typer.Option(help="H3 index, hexadecimal.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many.")] = 10,
    region: Annotated[list[str] | None, typer.Option(help="Only in these regions. Repeatable.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The places most like one: cosine of the angle between vectors, exact."""
    places = _open(lake)
    if cell is None:
        if lon is None or lat is None:
            raise MobclipError("give --lon and --lat, or --cell")
        found = places.lookup(lon=[lon], lat=[lat])
        if not found.found[0]:
            raise MobclipError(f"no cell of {lake} holds longitude {lon:g}, latitude {lat:g}")
        number = int(found.cells[0])
    else:
        number = _cell(cell)
    rows = places.similar(cell=number, k=k, regions=region).table().to_pylist()
    for row in rows:
        row["cells"] = f"{row['cells']:x}"
    if as_json:
        print_json(rows)
        return
    table = Table("cell", "region", "lon", "lat", "similarity", title=f"most like {number:x}")
    for row in rows:
        table.add_row(row["cells"], row["region"], f"{row['lon']:.4f}", f"{row['lat']:.4f}", f"{row['similarity']:.3f}")
    out.print(table)


def export(
    path: Annotated[Path, typer.Argument(help="File; .parquet, .csv, .arrow, .safetensors, .fgb or .tif.")],
    lake: LakeOption = "demo",
    dimensions: Annotated[
        int | None, typer.Option(help="So many principal components in place of the vectors.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Quantise to 8 bits; the loss is measured and shown.")] = False,
    region: Annotated[list[str] | None, typer.Option(help="Only these regions. Repeatable.")] = None,
) -> None:
    """Write the vectors for other programs, with a card that says what they are."""
    from mobclip_core.serving import export as write
    from mobclip_core.serving import open as open_lake
    from mobclip_core.serving.card import licences_of, write_card

    written = write(open_lake(lake, region), path, dimensions=dimensions, int8=int8)
    card = write_card(lake, written, licences_of(lake))
    loss = "; ".join(f"{name} {value:.5f}" for name, value in written.loss.items())
    out.print(
        f"{written.path}: {written.rows:,} cells, {written.dimensions} dimensions, {written.bytes / 2**20:.1f} MiB"
        + (f"; int8: {loss}" if loss else ""),
        highlight=False,
        soft_wrap=True,
    )
    out.print(card, highlight=False, soft_wrap=True)


def map_(
    lake: LakeOption = "demo",
    to: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("map.html"),
) -> None:
    """Write a map to open in a browser: one file, no outside requests. Of a profile, with its tasks."""
    from mobclip_core.catalog import country_page, region_outlines
    from mobclip_core.deployment import Deployment
    from mobclip_core.errors import ProfileError
    from mobclip_core.profile import profile_path
    from mobclip_core.serving.map_page import map_page
    from mobclip_core.serving.places import store_of

    with Console(stderr=True).status("drawing"):
        try:
            page = country_page(Deployment.open(str(profile_path(lake))))
        except ProfileError:
            page = map_page(_open(lake), Path(lake).stem, (), region_outlines(store_of(lake)))
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(page)
    out.print(f"{to}: {len(page) / 2**20:.1f} MiB; open it in a browser", highlight=False, soft_wrap=True)


COMMANDS: dict[str, Callable[..., None]] = {
    "lookup": lookup,
    "aggregate": aggregate,
    "similar": similar,
    "export": export,
    "map": map_,
}
"""What is added to the command line."""


def _open(lake: str) -> "Places":
    from mobclip_core.serving import open as open_lake

    return open_lake(lake)


def _weighting(name: str) -> Any:
    if name not in ("area", "population"):
        raise MobclipError(f"--weight is area or population, not {name!r}")
    return name


def _cell(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        raise MobclipError(f"{text!r} is no H3 index: hexadecimal digits, like 861f05a37ffffff") from None


def _read(file: Path) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import csv, parquet

    if not file.exists():
        raise MobclipError(f"{file} does not exist")
    try:
        return parquet.read_table(file) if file.suffix == ".parquet" else csv.read_csv(file)
    except pa.ArrowException as error:
        raise MobclipError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error


def _numbers(table: "pa.Table", name: str, file: Path) -> Any:
    import pyarrow as pa

    try:
        return table[name].cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise MobclipError(f"{file}: column {name!r} holds no numbers: {str(error).splitlines()[0]}") from error


def _give(answers: "Answers", columns: dict[str, Any], to: Path | None, as_json: bool) -> None:
    table = answers.table(**columns)
    missing = int((~answers.found).sum())
    if to is not None:
        _write(table, to)
        said = f"{to}: {len(answers):,} rows, {missing:,} of them in no cell of the lake"
        out.print(said, highlight=False, soft_wrap=True)
        return
    if as_json:
        rows = table.to_pylist()
        for row in rows:
            row["cell"] = None if row["cell"] is None else f"{row['cell']:x}"
        print_json({"encoder": answers.encoder, "answers": rows})
        return
    shown = Table(*columns, "cell", "cells", "source", "vector", title=f"encoder {answers.encoder[:16]}")
    for row in table.slice(0, _SHOWN_ROWS).to_pylist():
        vector = row["vector"]
        numbers = "in no cell of the lake" if vector is None else " ".join(f"{x:.3f}" for x in vector[:_SHOWN_NUMBERS])
        source = "" if vector is None else {1.0: "graph", 0.0: "student"}.get(row["graph"], f"{row['graph']:.0%} graph")
        cell = "" if row["cell"] is None else f"{row['cell']:x}"
        more = "" if vector is None else f" ... ({len(vector)})"
        shown.add_row(*(str(row[name]) for name in columns), cell, str(row["cells"]), source, numbers + more)
    out.print(shown)
    if len(table) > _SHOWN_ROWS:
        out.print(f"{len(table) - _SHOWN_ROWS:,} more; --out writes all", highlight=False)


def _write(table: "pa.Table", to: Path) -> None:
    import pyarrow as pa
    from pyarrow import csv, parquet

    to.parent.mkdir(parents=True, exist_ok=True)
    if to.suffix == ".parquet":
        parquet.write_table(table, to)
    elif to.suffix == ".arrow":
        with pa.OSFile(str(to), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    elif to.suffix == ".csv":
        vectors = table["vector"].combine_chunks()
        width = vectors.type.list_size
        numbers = pa.FixedSizeListArray.from_arrays(vectors.values, width)
        flat = {f"v{i:03}": numbers.values.take(pa.array(range(i, len(vectors) * width, width))) for i in range(width)}
        rest = table.drop_columns(["vector"])
        csv.write_csv(pa.table({**{name: rest[name] for name in rest.column_names}, **flat}), to)
    else:
        raise MobclipError(f"{to}: the suffix names the format; expected .parquet, .arrow or .csv")
