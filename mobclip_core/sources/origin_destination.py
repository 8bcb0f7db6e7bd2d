"""Origin-destination data as their publishers ship them: which columns, what a row counts, what changed.

Belongs here: the published schemas of zone-to-zone flows and trip records, and how each is read as origin, destination
and count. Does not belong here: gathering what was read into edges (see `mobility`).

A file is checked column by column against its published schema before anything is read, so that a file whose publisher
changed the schema is named, with the column that was expected.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb

from mobclip_core.errors import SourceError
from mobclip_core.profile import Files, Flows, Lodes, Mitma, NycTlc, Trips, UkCensusFlows, ZoneTrips
from mobclip_core.sources.tables import SourceColumn, source_columns, source_files

LODES = "LODES origin-destination files, version 8 (lehd.ces.census.gov/data)"
UK_CENSUS = "UK Census 2021 origin-destination tables ODWP and ODMG (nomisweb.co.uk/sources/census_2021_od)"
MITMA = "Ministry of Transport mobility study, Spain, versions 1 and 2 (transportes.gob.es, open data movilidad)"
NYC_TLC = "TLC trip records (nyc.gov/site/tlc/about/tlc-trip-record-data.page)"

_BLOCK_DIGITS = 15
_TLC_ZONES = (("PULocationID", "DOLocationID"),)
_TLC_POSITIONS = (
    ("pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude"),
    ("Start_Lon", "Start_Lat", "End_Lon", "End_Lat"),
)


@dataclass(frozen=True)
class FlowReading:
    """How to read a source whose rows count from zone to zone.

    Args:
        zones: Zone layer of the profile.
        columns: Columns of the view: `origin`, `destination`, `count`, and where needed `occasion` and `kind`.
        occasion: Rows of one occasion count different people, two occasions maybe the same: each row is one (`row`),
            each file (`file`), each value of the column `occasion` (`named`).
        code_digits: Length of the published codes; others match no zone.
        zone_digits: Leading digits of a code that name the zone.
        kinds: Values of `kind` to keep.
    """

    zones: str
    columns: Mapping[str, SourceColumn]
    occasion: Literal["row", "file", "named"] = "row"
    code_digits: int | None = None
    zone_digits: int | None = None
    kinds: Sequence[str] | None = None


@dataclass(frozen=True)
class ZoneTripReading:
    """How to read a source whose rows are trips from zone to zone.

    Args:
        zones: Zone layer of the profile.
        columns: Columns of the view: `origin`, `destination` and maybe `person`.
    """

    zones: str
    columns: Mapping[str, SourceColumn]


@dataclass(frozen=True)
class TripReading:
    """How to read a source whose rows are trips from position to position.

    Args:
        columns: Columns of the view: `origin_lon`, `origin_lat`, `destination_lon`, `destination_lat`, maybe `person`.
    """

    columns: Mapping[str, SourceColumn]


Reading = FlowReading | ZoneTripReading | TripReading


def origin_destination_reading(
    connection: duckdb.DuckDBPyConnection, source: Trips | Flows | ZoneTrips | Lodes | UkCensusFlows | Mitma | NycTlc
) -> Reading:
    """How to read a source of trips or flows.

    Args:
        connection: A session to look at the files with.
        source: The source.

    Raises:
        SourceError: A file is missing, unreadable, or lacks a column of its published schema.
    """
    if isinstance(source, Trips):
        return _positions(source.origin_lon, source.origin_lat, source.destination_lon, source.destination_lat, source)
    if isinstance(source, Flows):
        columns = {"origin": _code(source.origin), "destination": _code(source.destination)}
        return FlowReading(source.zones, columns | {"count": SourceColumn(source.count, "DOUBLE")})
    if isinstance(source, ZoneTrips):
        columns = {"origin": _code(source.origin), "destination": _code(source.destination)}
        return ZoneTripReading(
            source.zones, columns | ({"person": _code(source.person)} if source.person is not None else {})
        )
    if isinstance(source, Lodes):
        found = _published(connection, source.file, LODES, lambda present: _named(present, _lodes_names(source)))
        names = ("origin", "destination", "count")
        columns = dict(zip(names, (_code(found[0]), _code(found[1]), SourceColumn(found[2], "DOUBLE")), strict=True))
        return FlowReading(source.zones, columns, "file", _BLOCK_DIGITS, source.zone_digits)
    if isinstance(source, Mitma):
        wanted = ("origen", "destino", "viajes", "fecha")
        origin, destination, count, day = _published(
            connection, source.file, MITMA, lambda present: _named(present, wanted)
        )
        columns = {"origin": _code(origin), "destination": _code(destination), "occasion": _code(day)}
        return FlowReading(source.zones, columns | {"count": SourceColumn(count, "DOUBLE")}, "named")
    if isinstance(source, UkCensusFlows):
        return _uk_census(connection, source)
    return _nyc_tlc(connection, source)


def _code(column: str) -> SourceColumn:
    return SourceColumn(column, "VARCHAR")


def _positions(
    origin_lon: str, origin_lat: str, destination_lon: str, destination_lat: str, source: Trips | None = None
) -> TripReading:
    # the records of a service write 0 for a position that is not known
    missing = (0.0,) if source is None else ()
    named = {"origin_lon": origin_lon, "origin_lat": origin_lat}
    named |= {"destination_lon": destination_lon, "destination_lat": destination_lat}
    columns = {name: SourceColumn(column, "DOUBLE", missing) for name, column in named.items()}
    if source is not None and source.person is not None:
        columns["person"] = _code(source.person)
    return TripReading(columns)


def _lodes_names(source: Lodes) -> tuple[str, ...]:
    return ("h_geocode", "w_geocode", source.jobs)


class _MissingColumnError(Exception):
    """A file lacks a column of its published schema."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def _published(
    connection: duckdb.DuckDBPyConnection,
    file: Files,
    schema: str,
    find: Callable[[Sequence[str]], tuple[str, ...]],
) -> tuple[str, ...]:
    """The columns wanted, looked for in every file: where files are read together, one may lack what others have."""
    wanted: tuple[str, ...] = ()
    for name in source_files(file):
        present = list(source_columns(connection, name))
        try:
            found = find(present)
        except _MissingColumnError as lack:
            raise SourceError(
                name,
                f"no column {lack.column!r} of the published schema: {schema}",
                column=lack.column,
                hint=f"the file has {present[:40]}; if its publisher changed the schema, name the columns with a "
                "source of kind flows, trips or zone_trips",
            ) from lack
        if wanted and found != wanted:
            raise SourceError(
                name,
                f"names its columns {', '.join(found)}, other files of the source {', '.join(wanted)}",
                column=next(new for new, old in zip(found, wanted, strict=False) if new != old),
                hint="give files of each kind a source of their own",
            )
        wanted = found
    return wanted


def _named(present: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The columns of a file with these names, whatever their case and the spaces around them."""
    by_name = {column.strip().casefold(): column for column in present}
    for name in names:
        if name.casefold() not in by_name:
            raise _MissingColumnError(name)
    return tuple(by_name[name.casefold()] for name in names)


def _uk_census(connection: duckdb.DuckDBPyConnection, source: UkCensusFlows) -> FlowReading:
    found = _published(connection, source.file, UK_CENSUS, _uk_census_columns)
    origin, destination, count, *indicator = found
    columns = {"origin": _code(origin), "destination": _code(destination), "count": SourceColumn(count, "DOUBLE")}
    if not indicator:
        return FlowReading(source.zones, columns, "file")
    kinds = [str(code) for code in source.place_of_work]
    return FlowReading(source.zones, columns | {"kind": _code(indicator[0])}, "file", kinds=kinds)


def _uk_census_columns(present: Sequence[str]) -> tuple[str, ...]:
    """Origin, destination, count and, for places of work, their indicator."""
    codes = [name for name in present if name.endswith(" code")]
    indicators = [name for name in codes if name.startswith("Place of work indicator")]
    work = [name for name in codes if name.endswith(" of workplace code")]
    migrants = [name for name in codes if name.startswith("Migrant ") and name.endswith(" one year ago code")]
    areas = [name for name in codes if "categories)" not in name and name not in (*indicators, *work, *migrants)]
    if not areas:
        raise _MissingColumnError("<areas> code")
    if not work and not migrants:
        raise _MissingColumnError("<area> of workplace code")
    if work and not indicators:
        raise _MissingColumnError("Place of work indicator (4 categories) code")
    (count,) = _named(present, ("Count",))
    if work:
        return areas[0], work[0], count, indicators[0]
    return migrants[0], areas[0], count


def _nyc_tlc(connection: duckdb.DuckDBPyConnection, source: NycTlc) -> Reading:
    found = _published(connection, source.file, NYC_TLC, _tlc_columns)
    if len(found) == len(_TLC_POSITIONS[0]):
        origin_lon, origin_lat, destination_lon, destination_lat = found
        return _positions(origin_lon, origin_lat, destination_lon, destination_lat)
    if source.zones is None:
        raise SourceError(
            source_files(source.file),
            "the trips go from taxi zone to taxi zone",
            column=found[0],
            hint="name the layer of the taxi zones under zones",
        )
    return ZoneTripReading(source.zones, {"origin": _code(found[0]), "destination": _code(found[1])})


def _tlc_columns(present: Sequence[str]) -> tuple[str, ...]:
    for names in (*_TLC_ZONES, *_TLC_POSITIONS):
        try:
            return _named(present, names)
        except _MissingColumnError:
            continue
    # of a form that is there in part, name what is missing
    for names in (*_TLC_POSITIONS, *_TLC_ZONES):
        if any(name.casefold() in {column.strip().casefold() for column in present} for name in names):
            _named(present, names)
    raise _MissingColumnError(_TLC_ZONES[0][0])
