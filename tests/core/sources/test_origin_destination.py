import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mobclip_core.errors import SourceError
from mobclip_core.mobility.edges import build_mobility_edges
from mobclip_core.mobility.movements import build_movements, region_file
from mobclip_core.store import TableRef
from tests import lake as lakes
from tests.mobility_worlds import A, B, C, X, parquet, world

HOME, WORK, FAR = "36061000100", "36061000200", "36061000900"
LODES = "w_geocode,h_geocode,S000,SA01,SA02,SA03,SE01,SE02,SE03,SI01,SI02,SI03,createdate"
ODWP = (
    '"Middle layer Super Output Areas code","Middle layer Super Output Areas label","MSOA of workplace code",'
    '"MSOA of workplace label","Place of work indicator (4 categories) code",'
    '"Place of work indicator (4 categories) label","Count"'
)
ODMG = (
    '"Migrant MSOA one year ago code","Migrant MSOA one year ago label","Middle layer Super Output Areas code",'
    '"Middle layer Super Output Areas label","Count"'
)
MITMA = (
    "fecha|periodo|origen|destino|distancia|actividad_origen|actividad_destino|estudio_origen_posible|"
    "estudio_destino_posible|residencia|renta|edad|sexo|viajes|viajes_km"
)
MITMA_1 = "fecha|origen|destino|actividad_origen|actividad_destino|residencia|edad|periodo|distancia|viajes|viajes_km"


def zoned(folder, source, zones, minimum_people=1, **mobility):
    """A lake whose source leads between three zones: home and work here, far there."""
    lake = world(folder, {"s": source | {"zones": "tracts"}}, minimum_people, **mobility)
    home, work, far = zones
    lakes.write_zones(lake, "here", {"tracts": {home: {A: 0.5, B: 0.5}, work: {C: 1.0}}})
    lakes.write_zones(lake, "there", {"tracts": {far: {X: 1.0}}})
    return lake


def flows_of(lake):
    """Counts without the source's name, and flows as origin, destination -> weight, people."""
    counts = build_movements(lake).counts
    rows = []
    for region in ("here", "there"):
        file = lake.store.bundle_file("movements", region_file(region, "zones"))
        rows += pq.read_table(file).to_pylist()
    flows = {(row["origin"], row["destination"]): (row["weight"], row["people"]) for row in rows}
    return {key.removeprefix("s_"): value for key, value in counts.items()}, flows


def zipped(folder, name, lines):
    path = folder / name
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return str(path)


def lodes_line(home, work, jobs):
    return f"{work},{home},{jobs}" + ",0" * 9 + ",20230321"


def test_lodes_blocks_are_cut_to_tracts_and_added_up(tmp_path):
    lines = [LODES]
    lines += [lodes_line(HOME + f"10{i:02d}", WORK + "2000", 2) for i in range(3)]
    lines += [lodes_line(HOME + "1000", FAR + "9000", 4)]
    lines += [lodes_line(HOME + "1000", "36061999900" + "9000", 1)]  # a tract that is not there
    lines += [lodes_line("6061000100" + "1000", WORK + "2000", 7)]  # the leading zero was lost
    lines += [lodes_line(HOME + "1001", WORK + "2000", bad) for bad in ("", "-999", "nan", "1e400")]
    file = zipped(tmp_path, "ny_od_main_JT00_2020.csv.gz", lines)
    counts, flows = flows_of(zoned(tmp_path, {"kind": "lodes", "file": file}, (HOME, WORK, FAR)))
    assert flows == {(HOME, WORK): (6, 6), (HOME, FAR): (4, 4)}
    expected = {"read": 10, "inside": 4, "without_zone": 2, "without_zone_weight": 8, "bad_count": 4}
    assert {key: counts[f"rows_{key}"] for key in expected} == expected


def test_years_of_lodes_may_count_the_same_people(tmp_path):
    for year, jobs in ((2019, 3), (2020, 4)):
        zipped(
            tmp_path, f"ny_od_main_JT00_{year}.csv.gz", [LODES, *[lodes_line(HOME + "1000", WORK + "2000", jobs)] * 2]
        )
    source = {"kind": "lodes", "file": f"{tmp_path}/ny_od_main_*.csv.gz"}
    assert flows_of(zoned(tmp_path, source, (HOME, WORK, FAR)))[1] == {(HOME, WORK): (14, 8)}
    source |= {"zone_digits": 5, "jobs": "SA01"}
    counts, flows = flows_of(zoned(tmp_path, source, ("36061", "34003", "34005"), minimum_people=1))
    assert flows == {}
    assert counts["rows_inside"] == 4


def test_uk_places_of_work(tmp_path):
    lines = [ODWP]
    lines += ['E02000001,City,E02000002,Barking 001,3,"Working in the UK, but not at home",12']
    lines += ["E02000001,City,E02000001,City,1,Home,50", "E02000001,City,999999999,Outside UK,3,Working,4"]
    lines += ["E02000001,City,-8,Does not apply,-8,Does not apply,70", "E02000001,City,E02000003,B,3,W,few"]
    lines += [f"E02000001,City,E02000003,B,3,W,{i}" for i in range(1, 12)]
    path = tmp_path / "ODWP01EW_MSOA.csv"
    path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    zones = ("E02000001", "E02000002", "E02000003")
    counts, flows = flows_of(zoned(tmp_path, {"kind": "uk_census", "file": str(path)}, zones))
    assert flows == {("E02000001", "E02000002"): (12, 12), ("E02000001", "E02000003"): (66, 66)}
    assert (counts["rows_not_selected"], counts["rows_without_zone"], counts["rows_bad_count"]) == (2, 1, 1)
    assert counts["rows_unreadable_count"] == 1
    source = {"kind": "uk_census", "file": str(path), "place_of_work": [1, 3]}
    assert flows_of(zoned(tmp_path, source, zones))[1]["E02000001", "E02000001"] == (50, 50)


def test_uk_migrants(tmp_path):
    path = tmp_path / "ODMG01EW_MSOA.csv"
    path.write_text(f"{ODMG}\nE02000001,City,E02000002,Barking 001,9\n")
    zones = ("E02000001", "E02000002", "E02000003")
    source = {"kind": "uk_census", "file": str(path)}
    assert flows_of(zoned(tmp_path, source, zones))[1] == {("E02000001", "E02000002"): (9, 9)}


def mitma_line(day, hour, origin, destination, trips):
    return f"{day}|{hour}|{origin}|{destination}|2-10|casa|frecuente|no|no|28|10-15|25-45|hombre|{trips}|{trips}"


def test_days_of_mitma(tmp_path):
    for day, trips in (("20240101", 2.5), ("20240102", 3.25)):
        lines = [MITMA] + [mitma_line(day, f"{hour:02d}", "01001", "01002", trips) for hour in (7, 8)]
        lines += [mitma_line(day, "09", "01001", "externo", 1.5), mitma_line(day, "09", "01001", "01002", "NaN")]
        zipped(tmp_path, f"{day}_Viajes_municipios.csv.gz", lines)
    source = {"kind": "mitma", "file": f"{tmp_path}/*_Viajes_municipios.csv.gz"}
    lake = zoned(tmp_path, source, ("01001", "01002", "01003"), minimum_people=6)
    counts, flows = flows_of(lake)
    # all trips, and those of the busier day as people
    assert flows == {("01001", "01002"): (11.5, 6.5)}
    assert (counts["rows_read"], counts["rows_without_zone"], counts["rows_bad_count"]) == (8, 2, 2)
    build_mobility_edges(lake, "here")
    edges = lake.store.read(TableRef("mobility_edges", "here")).to_pylist()
    assert {(row["src"], row["dst"]): row["weight"] for row in edges} == {(A, C): 5.75, (B, C): 5.75}


def test_mitma_before_2022(tmp_path):
    line = "20210201|01001_AM|01002|casa|otros|1|NA|0|002-005|13.241|50.442"
    file = zipped(tmp_path, "20210201_maestra_1_mitma_distrito.txt.gz", [MITMA_1, *[line] * 12])
    source = {"kind": "mitma", "file": file}
    flows = flows_of(zoned(tmp_path, source, ("01001_AM", "01002", "01003")))[1]
    assert flows["01001_AM", "01002"] == pytest.approx((158.892, 158.892))


@pytest.mark.parametrize(
    ("origin", "destination", "kind"),
    [
        ("PULocationID", "DOLocationID", pa.int64()),  # yellow, green, high-volume for-hire
        ("PUlocationID", "DOlocationID", pa.float64()),  # for-hire: their spelling and type
    ],
)
def test_tlc_taxi_zones(tmp_path, origin, destination, kind):
    ends = [(4, 7)] * 3 + [(4, 264), (None, 7), (7, 4)]
    table = pa.table({"VendorID": pa.array([1] * 6), origin: pa.array([o for o, _ in ends], kind)})
    table = table.append_column(destination, pa.array([d for _, d in ends], kind))
    source = {"kind": "nyc_tlc", "file": parquet(tmp_path, table, "yellow_tripdata_2024-01.parquet")}
    counts, flows = flows_of(zoned(tmp_path, source, ("4", "7", "12"), minimum_people=2))
    assert flows == {("4", "7"): (3, 3)}
    expected = {"rows_read": 6, "rows_without_zone": 2, "flows_below_k": 1, "flows_below_k_weight": 1}
    assert {key: counts[key] for key in expected} == expected
    lake = world(tmp_path, {"s": {key: value for key, value in source.items() if key != "zones"}})
    with pytest.raises(SourceError, match=rf"from taxi zone to taxi zone.*column: {origin}.*under zones"):
        build_movements(lake)


@pytest.mark.parametrize(
    "header",
    [
        "vendor_id, pickup_datetime, pickup_longitude, pickup_latitude, dropoff_longitude, dropoff_latitude",
        "VendorID,lpep_pickup_datetime,Pickup_longitude,Pickup_latitude,Dropoff_longitude,Dropoff_latitude",
        "vendor_name,Trip_Pickup_DateTime,Start_Lon,Start_Lat,End_Lon,End_Lat",
    ],
)
def test_tlc_positions(tmp_path, header):
    (lon_a, lat_a), (lon_b, lat_b) = lakes.centre(A), lakes.centre(B)
    lines = [header] + [f"CMT,2014-01-09 20:45:25,{lon_a},{lat_a},{lon_b},{lat_b}"] * 2
    lines += [f"CMT,2014-01-09 20:46:12,0,0,{lon_b},{lat_b}"]
    path = tmp_path / "tripdata.csv"
    path.write_text("\n".join(lines) + "\n")
    lake = world(tmp_path, {"s": {"kind": "nyc_tlc", "file": str(path)}})
    counts = build_movements(lake).counts
    assert (counts["s_rows_inside"], counts["s_rows_without_position"]) == (2, 1)
    assert (counts["s_edges"], counts["s_weight"]) == (1, 2)


def test_trips_between_zones_count_their_people(tmp_path):
    rows = [("a", "b", "p")] * 3 + [("a", "b", "q"), ("a", "b", None), ("b", "z", "q"), ("b", "a", "q")]
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(3)]
    file = parquet(tmp_path, pa.table(columns, ["o", "d", "who"]))
    source = {"kind": "zone_trips", "file": file, "origin": "o", "destination": "d"}
    counts, flows = flows_of(zoned(tmp_path, source | {"person": "who"}, "abc", minimum_people=2))
    assert flows == {("a", "b"): (4, 2)}
    expected = {"rows_read": 7, "rows_inside": 5, "rows_without_zone": 1, "rows_without_person": 1}
    assert {key: counts[key] for key in expected} == expected
    assert flows_of(zoned(tmp_path, source, "abc", minimum_people=2))[1] == {("a", "b"): (5, 5)}


LOCATED = "pickup_longitude,pickup_latitude,dropoff_longitude,dropoff_latitude"


@pytest.mark.parametrize(
    ("kind", "header", "message"),
    [
        ("lodes", LODES.replace("h_geocode", "home_block"), "no column 'h_geocode' of the published schema: LODES"),
        ("lodes", LODES.replace("S000", "jobs"), "no column 'S000' of the published schema: LODES.*column: S000"),
        ("uk_census", ODWP.replace("Count", "Value"), "no column 'Count' of the published schema: UK Census 2021"),
        ("uk_census", ODWP.replace("MSOA of workplace code", "workplace"), "no column '<area> of workplace code'"),
        ("uk_census", ODWP.replace("indicator (4 categories) code", "kind"), "'Place of work indicator"),
        ("uk_census", "MSOA,Count", "no column '<areas> code' of the published schema"),
        (
            "mitma",
            MITMA.replace("viajes|", "trips|"),
            "no column 'viajes' of the published schema: Ministry of Transport",
        ),
        ("mitma", MITMA.replace("fecha", "dia"), "no column 'fecha'"),
        (
            "nyc_tlc",
            "VendorID,PULocationID,DOZone",
            "no column 'DOLocationID' of the published schema: TLC trip records",
        ),
        ("nyc_tlc", LOCATED.replace("dropoff_longitude", "x"), "no column 'dropoff_longitude'"),
        ("nyc_tlc", "a,b", "no column 'PULocationID'"),
    ],
)
def test_a_changed_schema_is_named_with_the_column_expected(tmp_path, kind, header, message):
    path = tmp_path / "changed.csv"
    separator = "|" if "|" in header else ","
    path.write_text(f"{header}\n" + separator.join(["1"] * (header.count(separator) + 1)) + "\n")
    lake = zoned(tmp_path, {"kind": kind, "file": str(path)}, "abc")
    with pytest.raises(SourceError, match=rf"changed\.csv: .*{message}.*the file has .*kind flows"):
        build_movements(lake)


def test_every_file_is_looked_at(tmp_path):
    zipped(tmp_path, "a_od_main_JT00_2020.csv.gz", [LODES, lodes_line(HOME + "1000", WORK + "2000", 9)])
    changed = [LODES.replace("S000", "C000"), lodes_line(HOME + "1000", WORK + "2000", 9)]
    zipped(tmp_path, "b_od_main_JT00_2020.csv.gz", changed)
    source = {"kind": "lodes", "file": f"{tmp_path}/*_od_main_*.csv.gz"}
    with pytest.raises(SourceError, match=r"b_od_main_JT00_2020\.csv\.gz: no column 'S000'"):
        build_movements(zoned(tmp_path, source, (HOME, WORK, FAR)))


def test_files_with_zones_and_files_with_positions_are_two_sources(tmp_path):
    (tmp_path / "trips_1.csv").write_text("PULocationID,DOLocationID\n1,2\n")
    (tmp_path / "trips_2.csv").write_text(f"{LOCATED}\n1,2,3,4\n")
    source = {"kind": "nyc_tlc", "file": f"{tmp_path}/trips_*.csv"}
    with pytest.raises(SourceError, match=r"trips_2\.csv: names its columns pickup_longitude.*a source of their own"):
        build_movements(zoned(tmp_path, source, "abc"))


def test_a_truncated_file_is_named(tmp_path):
    lines = [LODES] + [lodes_line(HOME + f"1{i % 1000:03d}", WORK + "2000", i) for i in range(50_000)]
    file = zipped(tmp_path, "ny_od_main_JT00_2020.csv.gz", lines)
    content = (tmp_path / "ny_od_main_JT00_2020.csv.gz").read_bytes()
    (tmp_path / "ny_od_main_JT00_2020.csv.gz").write_bytes(content[: len(content) // 2])
    lake = zoned(tmp_path, {"kind": "lodes", "file": file}, (HOME, WORK, FAR))
    with pytest.raises(SourceError, match=r"ny_od_main_JT00_2020\.csv\.gz: cannot be read"):
        build_movements(lake)
    assert not lake.store.exists(TableRef("movements"))
