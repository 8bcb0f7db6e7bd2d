"""Servers on the loopback for tests of remote files: an object store, and a web server over TLS that knows ranges."""

import datetime
import ipaddress
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
import requests

SECRET = "kept/Out+Of=Every-Message"


class ObjectStore:
    """moto's S3 server; the environment of the test leads to it.

    Args:
        url: Its address.
        fs: Its file system.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.fs = fsspec.filesystem("s3")

    def forbid(self) -> None:
        """From now on nobody's credentials are good."""
        _allow(self.url, "0")

    def upload(self, folder: Path, place: str) -> str:
        """Copy the files of a folder; returns the URL of the copy."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.fs.pipe(f"{place}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{place}"


def _allow(url: str, requests_without_checks: str) -> None:
    requests.post(f"{url}/moto-api/reset-auth", data=requests_without_checks, timeout=10).raise_for_status()


@contextmanager
def object_store(bucket: str) -> Iterator[ObjectStore]:
    """Serve a bucket of a name not used before; environment variables lead to it for as long."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    s3 = fsspec.get_filesystem_class("s3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", url)
        s3.clear_instance_cache()
        try:
            store = ObjectStore(url)
            store.fs.mkdir(bucket)
            yield store
        finally:
            # all servers of one process share what they hold
            _allow(url, "inf")
            s3.clear_instance_cache()
            server.stop()


class _Ranges(SimpleHTTPRequestHandler):
    """Files of a folder, whole or by byte range; `/private/` wants a login."""

    def send_head(self):
        if self.path.startswith("/private/"):
            self.send_error(403)
            return None
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not found or not path.is_file():
            return super().send_head()
        size = path.stat().st_size
        first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
        if first >= size:
            self.send_error(416)
            return None
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(path.read_bytes()[first : last + 1])
        return None

    def end_headers(self):
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def web_server(folder: Path, certificate: Path) -> Iterator[str]:
    """Serve a folder over TLS with a certificate of its own that the environment makes trusted; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=str(folder)))
    _write_certificate(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    http = fsspec.get_filesystem_class("https")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        # read from the environment once, when aiohttp is imported
        patch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", ssl.create_default_context(cafile=certificate))
        http.clear_instance_cache()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}"
        finally:
            http.clear_instance_cache()
            server.shutdown()
            server.server_close()
            thread.join()


def _write_certificate(path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
