import errno
from types import SimpleNamespace

import pytest

from mobclip_core.errors import ContractError, SourceError
from mobclip_core.transient import is_transient


def http(status):
    error = RuntimeError("no")
    error.status = status
    return error


def boto(status):
    error = RuntimeError("no")
    error.response = {"ResponseMetadata": {"HTTPStatusCode": status}}
    return error


def answered(status):
    error = RuntimeError("no")
    error.response = SimpleNamespace(status_code=status)
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.ESTALE, "stale"), True),
        (http(503), True),
        (boto(429), True),
        (answered(502), True),
        (type("EndpointConnectionError", (Exception,), {})(), True),
        (OSError(errno.ENOSPC, "full"), False),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (http(404), False),
        (boto(403), False),
        (ContractError("broken"), False),
        (MemoryError(), False),
    ],
)
def test_what_passes_by_itself(error, passes):
    assert is_transient(error) == passes
    wrapped = SourceError("s3://bucket/file", "cannot be read")
    wrapped.__cause__ = error
    assert is_transient(wrapped) == passes


def test_a_circle_of_causes_ends():
    one, two = ValueError(), ValueError()
    one.__cause__, two.__cause__ = two, one
    assert not is_transient(one)
