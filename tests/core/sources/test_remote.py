"""Files on an object store and on a web server: the same rows, polygons and pixels as from a folder."""

import gzip
import os
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

import fsspec
import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely

from mobclip_core.errors import SourceError, shown_file
from mobclip_core.imagery.raster import open_raster
from mobclip_core.sources import remote
from mobclip_core.sources.polygons import read_polygons
from mobclip_core.sources.remote import gdal_environment, gdal_options, gdal_path, is_remote, require_reachable
from mobclip_core.sources.tables import SourceColumn, read_table, require_file
from tests.servers import SECRET, object_store, web_server

pytestmark = [
    # rasterio 1.4 multiplies transforms the old way
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*non conformant file extension"),
]
COLUMNS = {"key": SourceColumn("id", "VARCHAR"), "number": SourceColumn("value", "DOUBLE")}
PIXELS = np.arange(300 * 400, dtype=np.uint16).reshape(300, 400)
REFUSED = "127.0.0.1:9"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One small file of each kind, and three Parquet files that belong together."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "table.csv.gz").write_bytes(gzip.compress(b"id,value\na,1\nb,2\n"))
    (folder / "parts").mkdir()
    for i in range(3):
        pq.write_table(pa.table({"id": [f"p{i}"], "value": [float(i)]}), folder / "parts" / f"part{i}.parquet")
    zones = gpd.GeoDataFrame(
        {"code": ["x", "y"]}, geometry=[shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)], crs=4326
    )
    zones.to_parquet(folder / "zones.parquet")
    zones.to_file(folder / "zones.gpkg")
    options = {"driver": "COG", "dtype": "uint16", "count": 1, "height": 300, "width": 400, "blocksize": 128}
    transform = rasterio.transform.from_origin(10, 50, 0.01, 0.01)
    with rasterio.open(folder / "image.tif", "w", crs="EPSG:4326", transform=transform, **options) as image:
        image.write(PIXELS, 1)
    return folder


@pytest.fixture(scope="module")
def store(files):
    with object_store("country") as served:
        served.upload(files, "country")
        yield served


@pytest.fixture(scope="module", params=["s3", "https"])
def place(request, files, tmp_path_factory):
    """Root of the files on each server."""
    if request.param == "s3":
        request.getfixturevalue("store")
        yield "s3://country"
    else:
        with web_server(files, tmp_path_factory.mktemp("tls") / "server.pem") as address:
            yield address


# ---- what is read ----


def test_tables(place, files):
    assert read_table(f"{place}/table.csv.gz", COLUMNS) == read_table(f"{files}/table.csv.gz", COLUMNS)
    many = [f"{place}/parts/part{i}.parquet" for i in range(3)]
    assert read_table(many, COLUMNS) == read_table(f"{files}/parts/*.parquet", COLUMNS)


def test_files_of_a_pattern_on_an_object_store(store, files):
    assert read_table("s3://country/parts/*.parquet", COLUMNS) == read_table(f"{files}/parts/*.parquet", COLUMNS)
    with pytest.raises(SourceError, match=r"s3://country/none/\*\.parquet: no file matches"):
        read_table("s3://country/none/*.parquet", COLUMNS)


@pytest.mark.parametrize("suffix", ["parquet", "gpkg"])
def test_polygons(place, files, suffix):
    found, counts = read_polygons(f"{place}/zones.{suffix}", "code")
    local, local_counts = read_polygons(f"{files}/zones.{suffix}", "code")
    assert found.equals(local)
    assert counts == local_counts


def test_rasters_are_read_by_window(place):
    with open_raster(f"{place}/image.tif") as image:
        assert image.crs.to_epsg() == 4326
        assert np.array_equal(image.read(1, window=((100, 150), (200, 300))), PIXELS[100:150, 200:300])
        assert image.overviews(1)


def test_rasters_need_no_boto3(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with open_raster("s3://country/image.tif") as image:
        assert image.shape == PIXELS.shape


# ---- what is not ----

READERS = {
    "table": lambda file: read_table(file, COLUMNS),
    "polygons": lambda file: read_polygons(file, "code"),
    "raster": lambda file: open_raster(file).__enter__(),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_file_is_named(place, reader):
    with pytest.raises(SourceError, match=rf"{place}/none\.parquet: no such file; way out: check the path"):
        READERS[reader](f"{place}/none.parquet")


@pytest.mark.parametrize("reader", READERS)
def test_wrong_credentials_are_told_from_a_missing_file(reader, files):
    bucket = f"closed-{reader}"
    with object_store(bucket) as store:
        store.upload(files, bucket)
        store.forbid()
        with pytest.raises(SourceError, match=rf"s3://{bucket}/image\.tif: no access; .*AWS_ACCESS_KEY_ID") as caught:
            READERS[reader](f"s3://{bucket}/image.tif")
        assert SECRET not in _everything(caught.value)
        with pytest.raises(SourceError, match=rf"s3://{bucket}/parts/\*\.parquet: no access"):
            read_table(f"s3://{bucket}/parts/*.parquet", COLUMNS)
        with pytest.raises(SourceError, match=f"s3://{bucket}/lake: no access"):
            require_reachable(f"s3://{bucket}/lake")


def test_no_credentials_at_all():
    with object_store("keyless"), pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        with pytest.raises(SourceError, match=r"s3://keyless/a\.csv: no access; .*FSSPEC_S3_ANON=true"):
            require_file("s3://keyless/a.csv")


def test_a_web_server_that_wants_a_login(tmp_path):
    with (
        web_server(tmp_path, tmp_path / "server.pem") as address,
        pytest.raises(SourceError, match=r"private/a\.csv: no access; way out: the server wants a login"),
    ):
        require_file(f"{address}/private/a.csv")


@pytest.mark.slow
def test_a_store_that_does_not_answer():
    with object_store("silent"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{REFUSED}")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        with pytest.raises(SourceError, match=r"s3://silent/a\.csv: its server cannot be reached; .*AWS_ENDPOINT_URL"):
            require_file("s3://silent/a.csv")


def test_a_web_server_that_does_not_answer():
    with pytest.raises(SourceError, match=rf"https://{REFUSED}/a\.csv: its server cannot be reached; .*SSL_CERT_FILE"):
        require_file(f"https://{REFUSED}/a.csv")


def test_a_certificate_that_is_not_trusted(tmp_path):
    with web_server(tmp_path, tmp_path / "server.pem") as address, pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_FILE")
        patch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", ssl.create_default_context())
        with pytest.raises(SourceError, match=r"/a\.csv: its server cannot be reached; .*SSL_CERT_FILE"):
            require_file(f"{address}/a.csv")


def test_secrets_in_an_address_are_not_shown():
    address = f"https://user:hidden@{REFUSED}/a.csv?X-Amz-Signature=hidden"
    with pytest.raises(SourceError) as caught:
        require_file(address)
    assert "hidden" not in _everything(caught.value)
    assert f"https://{REFUSED}/a.csv?..." in str(caught.value)


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        ("/data/what?.csv", "/data/what?.csv"),
        ("s3://bucket/a b/*.parquet", "s3://bucket/a b/*.parquet"),
        ("https://host/a.csv?token=1", "https://host/a.csv?..."),
        ("https://me:secret@host:8/a/b@c.csv", "https://host:8/a/b@c.csv"),
        ("memory://a", "memory://a"),
    ],
)
def test_files_as_people_see_them(file, shown):
    assert shown_file(file) == shown


@pytest.mark.parametrize("protocol", ["gs", "nonsense"])
def test_a_protocol_that_nothing_reads(protocol):
    with pytest.raises(SourceError, match=f"nothing reads {protocol}://; way out: use s3://, https://"):
        require_file(f"{protocol}://bucket/a.csv")


def test_a_lake_needs_its_bucket(store):
    require_reachable("s3://country/lake/that/is/empty")
    with pytest.raises(SourceError, match=r"s3://nowhere/lake: no such bucket"):
        require_reachable("s3://nowhere/lake")


# ---- GDAL ----


def test_gdal_is_told_what_the_environment_says():
    found = gdal_options({"AWS_ENDPOINT_URL": "http://host:9000"})
    assert found["AWS_S3_ENDPOINT"] == "host:9000"
    assert (found["AWS_HTTPS"], found["AWS_VIRTUAL_HOSTING"]) == ("NO", "FALSE")
    found = gdal_options({"AWS_ENDPOINT_URL": "http://no", "AWS_ENDPOINT_URL_S3": "https://host/s3/"})
    assert (found["AWS_S3_ENDPOINT"], found["AWS_HTTPS"]) == ("host/s3", "YES")
    assert "AWS_S3_ENDPOINT" not in gdal_options({})


def test_public_buckets_are_read_without_a_signature(monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": "true"})
    assert gdal_options({})["AWS_NO_SIGN_REQUEST"] == "YES"


def test_what_a_person_has_set_for_gdal_stands(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "9")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "")
    monkeypatch.delenv("GDAL_HTTP_RETRY_DELAY")
    monkeypatch.setattr(remote, "_SET_HERE", {})
    with gdal_environment("/data/a.tif"):
        assert "GDAL_HTTP_RETRY_DELAY" not in os.environ
    with gdal_environment("s3://bucket/a.tif"):
        assert os.environ["GDAL_HTTP_MAX_RETRY"] == "9"
        assert os.environ["GDAL_HTTP_RETRY_DELAY"] == "0.5"


def test_the_address_of_the_store_may_change(monkeypatch):
    for name in ("AWS_S3_ENDPOINT", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(remote, "_SET_HERE", {})
    for host in ("one", "two"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
        with gdal_environment("s3://bucket/a.tif"):
            assert os.environ["AWS_S3_ENDPOINT"] == host


def test_what_one_thread_opened_another_reads_and_a_third_closes(store):
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two, ThreadPoolExecutor(1) as three:
        opening = open_raster("s3://country/image.tif")
        image = one.submit(opening.__enter__).result()
        assert np.array_equal(two.submit(image.read, 1).result(), PIXELS)
        three.submit(opening.__exit__, None, None, None).result()


def test_paths_of_gdal():
    assert gdal_path("s3://bucket/a.tif") == "/vsis3/bucket/a.tif"
    assert gdal_path("https://host/a.tif") == "/vsicurl/https://host/a.tif"
    assert gdal_path("/data/a.tif") == "/data/a.tif"
    assert [is_remote(file) for file in ("/a", "file:///a", "s3://b/a")] == [False, False, True]


def _everything(error: BaseException | None) -> str:
    """Messages of an error and of all its causes that would be shown."""
    text = ""
    while error is not None:
        text += str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text
