"""Errors that pass by themselves: a lost connection, a busy server.

Belongs here: telling them from errors that come again. Does not belong here: trying again (the orchestration does).
"""

import errno

_PASSING = {
    errno.EAGAIN,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EIO,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
_BY_NAME = ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ServerDisconnectedError")
"""Of libraries that are not always there, and whose errors are no OSError."""


def is_transient(error: BaseException) -> bool:
    """Whether an error, or one that it came from, is of a kind that passes by itself.

    A full disk, a missing file, a refused login and data that break a contract do not.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, ConnectionError | TimeoutError) or type(cause).__name__ in _BY_NAME:
            return True
        if isinstance(cause, OSError) and cause.errno in _PASSING:
            return True
        if _status(cause) in _PASSING_STATUS:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error tells of, as aiohttp, requests and botocore keep it."""
    found = getattr(error, "status", None)
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    elif response is not None:
        found = getattr(response, "status_code", None)
    return found if isinstance(found, int) else None
