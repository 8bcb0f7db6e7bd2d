"""Remote files: what all readers of `s3://` and `https://` files share.

Belongs here: saying clearly why a remote file cannot be reached, and telling GDAL what fsspec knows from the
environment. Does not belong here: reading; credentials in profiles or code. Retries are those of the libraries.

The environment says how a store is reached, for tables, polygons, rasters and the lake alike:

    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, AWS_DEFAULT_REGION   as everywhere
    AWS_ENDPOINT_URL       address of a store that is not Amazon's
    FSSPEC_S3_ANON=true    no credentials: every bucket is public
    SSL_CERT_FILE          certificates to trust in place of the system's
"""

import contextlib
import datetime
import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import fsspec

from mobclip_core.errors import MobclipError, SourceError, shown_file

_S3_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) to keys that may read it, "
    "or FSSPEC_S3_ANON=true where it is public"
)
_S3_ADDRESS = "check the network, and AWS_ENDPOINT_URL where the store is not Amazon's"
_WEB_CREDENTIALS = (
    "the server wants a login: use a signed link, put it into an environment variable and write ${NAME} in the profile"
)
_WEB_ADDRESS = "check the address, the network, and SSL_CERT_FILE where the server's certificate is your own"
_PATH = "check the path in the profile and the variables it uses"


def is_remote(file: str) -> bool:
    """Whether a file lies elsewhere than in a folder of this machine."""
    return "://" in file and not file.startswith("file://")


@contextlib.contextmanager
def reaching(file: str) -> Iterator[None]:
    """Turn what file systems raise for a file that cannot be reached into a `SourceError` that says why.

    Args:
        file: Path or URL.

    Raises:
        SourceError: No such file, no access, or no connection; with the variables that decide it.
    """
    try:
        yield
    except MobclipError:
        raise
    except Exception as error:
        found = _explain(file, error)
        if found is None:
            raise
        problem, hint = found
        # the libraries' messages repeat the address: not where it holds what may be a secret
        raise SourceError(file, problem, hint=hint) from (error if shown_file(file) == file else None)


def _explain(file: str, error: BaseException) -> tuple[str, str] | None:
    """What is wrong and the way out; None for an error that says nothing of the file's place."""
    causes = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    on_s3 = file.startswith(("s3://", "s3a://"))
    # the libraries that are not loaded cannot have raised: names instead of imports
    kinds = {kind.__name__ for found in causes for kind in type(found).__mro__}
    status = next((getattr(found, "status", None) for found in causes if hasattr(found, "request_info")), None)
    if kinds & {"PermissionError", "NoCredentialsError", "PartialCredentialsError"} or status in (401, 403):
        return "no access", _S3_CREDENTIALS if on_s3 else _WEB_CREDENTIALS if is_remote(file) else _PATH
    unreachable = {"ClientConnectionError", "EndpointConnectionError", "HTTPClientError", "ConnectionError"}
    if kinds & unreachable or kinds & {"TimeoutError"}:
        return "its server cannot be reached", _S3_ADDRESS if on_s3 else _WEB_ADDRESS
    if status is not None and status != 404:
        return f"its server answers with status {status}", _WEB_ADDRESS
    if "FileNotFoundError" in kinds:
        return "no such file", _PATH
    if kinds & {"ImportError"} or (isinstance(error, ValueError) and "Protocol" in str(error)):
        return f"nothing reads {file.split('://')[0]}://", "use s3://, https:// or a local path"
    return None


def require_reachable(root: str) -> None:
    """Raise if a remote folder, such as a lake that is still empty, cannot be reached.

    Raises:
        SourceError: No access, no connection, or no bucket of that name.
    """
    with reaching(root):
        fs, path = fsspec.core.url_to_fs(root)
        try:
            fs.info(path)
        except FileNotFoundError as error:
            if "bucket does not exist" in str(error):
                raise SourceError(root, "no such bucket", hint="make it, or name another in the profile") from error


def file_system_for_duckdb(file: str) -> Any:
    """The fsspec file system of a remote file, fit for `DuckDBPyConnection.register_filesystem`."""
    return _web() if file.startswith(("http://", "https://")) else fsspec.core.url_to_fs(file)[0]


@cache
def _web() -> Any:
    from fsspec.implementations.http import HTTPFileSystem

    class Web(HTTPFileSystem):
        def modified(self, path: str) -> datetime.datetime:
            # DuckDB asks when a Parquet file changed and fsspec does not know: during a step it does not change
            return datetime.datetime.fromtimestamp(0, datetime.UTC)

    return Web()


def gdal_path(file: str) -> str:
    """A path or URL as GDAL's own virtual file systems name it."""
    if file.startswith("s3://"):
        return "/vsis3/" + file.removeprefix("s3://")
    if file.startswith(("http://", "https://")):
        return "/vsicurl/" + file
    return file


@contextlib.contextmanager
def gdal_environment(file: str) -> Iterator[None]:
    """A block in which GDAL opens a file as fsspec would; what is open can be read anywhere, by any thread.

    GDAL's settings of a thread end with the thread and do not reach others, while a mosaic opens its parts whenever one
    is wanted: how stores are reached is set for the process, in its environment. What a person has set there stands.
    """
    if not is_remote(file):
        yield
        return
    import rasterio
    from rasterio.session import DummySession

    for name, value in gdal_options().items():
        if os.environ.get(name, value) in (value, _SET_HERE.get(name)):
            os.environ[name] = _SET_HERE[name] = value
    if os.environ.get("SSL_CERT_FILE"):
        # the wheels of rasterio and pyogrio name a bundle of their own here
        os.environ["GDAL_CURL_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"]
    # else GDAL lists the folder to look for companions of the file; rasterio's own session would need boto3
    with rasterio.Env(session=DummySession(), GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        yield


_SET_HERE: dict[str, str] = {}


def gdal_options(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """GDAL's settings that say how the environment's stores are reached.

    What GDAL reads from the environment by itself (keys, profile, region) is not repeated here.
    Source: https://gdal.org/user/virtual_file_systems.html and https://gdal.org/user/configoptions.html
    """
    options = {"GDAL_HTTP_MAX_RETRY": "4", "GDAL_HTTP_RETRY_DELAY": "0.5"}
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if endpoint:
        parts = urlsplit(endpoint)
        options |= {
            "AWS_S3_ENDPOINT": parts.netloc + parts.path.rstrip("/"),
            "AWS_HTTPS": "NO" if parts.scheme == "http" else "YES",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }
    if fsspec.config.conf.get("s3", {}).get("anon"):
        options["AWS_NO_SIGN_REQUEST"] = "YES"
    return options
