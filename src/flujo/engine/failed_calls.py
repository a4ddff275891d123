"""Classifies the exception of a call with an effect: not sent, refused by the other side, or in doubt.

A call is in doubt unless its exception is known to be harmless: see `HARMLESS`. Client libraries are not
imported, because the library of an exception is already loaded.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from flujo.exceptions import CallFailed, NotSent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType


class Verdict(IntEnum):
    """What an exception says about the call that raised it; of several, the largest counts."""

    NOT_SENT = 1
    """The other side has not received the call."""
    REFUSED = 2
    """The other side has received the call and answered that it did not execute it."""
    IN_DOUBT = 3
    """Unknown."""


class Harmless(NamedTuple):
    """Failures of one library after which a call has had no effect."""

    library: str
    not_sent: tuple[str, ...] = ()
    """Classes, by public name; their subclasses are included."""
    refused: str = ""
    """The class whose instances carry the answer of the other side."""
    says: Callable[[Any], bool] | None = None
    """Whether such an instance says that the call was not executed."""
    shown: str = ""
    """The last two fields, in words."""
    means: Verdict = Verdict.REFUSED
    """What such an instance says."""


def _is_status_refused(status: object) -> bool:
    return isinstance(status, int) and 400 <= status < 500 and status not in _UNCLEAR_STATUS


_UNCLEAR_STATUS = frozenset({408, 409, 425})
"""Request Timeout, Conflict and Too Early: an earlier sending of the call may be the reason."""


def _is_response_refused(error: Any) -> bool:
    """Judge an error with the `response` of requests or httpx; after a redirect it is another request's."""
    response = error.response
    retries = getattr(getattr(response, "raw", None), "retries", None)  # of urllib3, below requests
    resent = response.history or (retries is not None and _is_any_sent(retries.history))
    return not resent and _is_status_refused(response.status_code)


def _is_client_response_refused(error: Any) -> bool:
    return not error.history and _is_status_refused(error.status)


_REFUSED_BY_GRPC = frozenset(
    {
        "INVALID_ARGUMENT",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
    }
)
"""Statuses that correspond to an HTTP 4xx and that the client's library does not set after the call was sent.

RESOURCE_EXHAUSTED does not count: the client sets it when an answer is too large.
"""


def _is_grpc_refused(error: Any) -> bool:
    return callable(getattr(error, "code", None)) and error.code().name in _REFUSED_BY_GRPC


def _is_statement_refused(error: Any) -> bool:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    # 40003 is `statement_completion_unknown`.
    return isinstance(state, str) and state[:2] in ("22", "23", "28", "40", "42") and state != "40003"


def _is_response_of_aws_refused(error: Any) -> bool:
    said = error.response["ResponseMetadata"]
    return said["RetryAttempts"] == 0 and _is_status_refused(said["HTTPStatusCode"])


def _is_raised_by_connecting(error: BaseException) -> bool:
    """Return whether the client was still connecting, before it sent the call."""
    places = {(_module(frame), frame.f_code.co_name) for frame in _frames(error)}
    is_repeated = any(module.startswith(_REPEATS) for module, _ in places)
    return not places.isdisjoint(_CONNECTS) and places.isdisjoint(_SENDS) and not is_repeated


_CONNECTS = frozenset(
    {
        ("psycopg2", "connect"),
        ("redis.connection", "get_connection"),
        ("redis.asyncio.connection", "get_connection"),
    }
)
"""Functions of clients that connect and send no call."""
_SENDS = frozenset(
    {
        ("redis.client", "_send_command_parse_response"),
        ("redis.asyncio.client", "_send_command_parse_response"),
    }
)
"""Functions of clients that connect once more when the connection was lost, and so after a call was sent."""
_REPEATS = ("redis.cluster", "redis.asyncio.cluster", "redis.multidb", "redis.asyncio.multidb")
"""Modules of clients that repeat a call on another server."""


def _is_mysql_unreachable(error: Any) -> bool:
    return bool(error.args[:1] == (2003,))  # CR_CONN_HOST_ERROR; a lost connection is 2006 or 2013


_HTTP_4XX = "HTTP 4xx except 408, 409 and 425"
_SQLSTATE = "SQLSTATE classes 22, 23, 28, 40 (except 40003) and 42"

HARMLESS = (
    Harmless("Flujo", ("flujo.exceptions.NotSent",)),
    Harmless("Python", ("builtins.ConnectionRefusedError", "socket.gaierror")),
    Harmless(
        "urllib",
        refused="urllib.error.HTTPError",
        says=lambda error: _is_status_refused(error.code),
        shown=_HTTP_4XX,
    ),
    # https://urllib3.readthedocs.io/en/stable/reference/urllib3.exceptions.html
    Harmless(
        "urllib3",
        (
            "urllib3.exceptions.NameResolutionError",
            "urllib3.exceptions.NewConnectionError",
            "urllib3.exceptions.ConnectTimeoutError",
            "urllib3.exceptions.EmptyPoolError",
        ),
    ),
    # https://requests.readthedocs.io/en/latest/api/#exceptions
    Harmless(
        "requests",
        ("requests.exceptions.ConnectTimeout",),
        "requests.exceptions.HTTPError",
        _is_response_refused,
        _HTTP_4XX,
    ),
    # https://www.python-httpx.org/exceptions/
    Harmless(
        "httpx",
        ("httpx.ConnectError", "httpx.ConnectTimeout", "httpx.PoolTimeout"),
        "httpx.HTTPStatusError",
        _is_response_refused,
        _HTTP_4XX,
    ),
    Harmless(
        "httpx2",
        ("httpx2.ConnectError", "httpx2.ConnectTimeout", "httpx2.PoolTimeout"),
        "httpx2.HTTPStatusError",
        _is_response_refused,
        _HTTP_4XX,
    ),
    # https://docs.aiohttp.org/en/stable/client_reference.html#client-exceptions
    Harmless(
        "aiohttp",
        ("aiohttp.ClientConnectorError", "aiohttp.ConnectionTimeoutError"),
        "aiohttp.ClientResponseError",
        _is_client_response_refused,
        _HTTP_4XX,
    ),
    # https://grpc.github.io/grpc/core/md_doc_statuscodes.html
    Harmless(
        "grpcio", (), "grpc.RpcError", _is_grpc_refused, f"status {', '.join(sorted(_REFUSED_BY_GRPC))}"
    ),
    # https://www.psycopg.org/psycopg3/docs/api/errors.html, https://www.psycopg.org/psycopg3/docs/api/pool.html
    Harmless(
        "psycopg",
        ("psycopg.errors.ConnectionTimeout", "psycopg_pool.PoolTimeout"),
        "psycopg.Error",
        _is_statement_refused,
        _SQLSTATE,
    ),
    # https://www.psycopg.org/docs/module.html#exceptions
    Harmless("psycopg2", (), "psycopg2.Error", _is_statement_refused, _SQLSTATE),
    # https://magicstack.github.io/asyncpg/current/api/index.html#exceptions
    Harmless("asyncpg", (), "asyncpg.PostgresError", _is_statement_refused, _SQLSTATE),
    # https://dev.mysql.com/doc/mysql-errors/8.4/en/client-error-reference.html
    Harmless(
        "PyMySQL, aiomysql",
        (),
        "pymysql.err.OperationalError",
        _is_mysql_unreachable,
        "code 2003",
        means=Verdict.NOT_SENT,
    ),
    Harmless(
        "asyncmy",
        (),
        "asyncmy.errors.OperationalError",
        _is_mysql_unreachable,
        "code 2003",
        means=Verdict.NOT_SENT,
    ),
    # https://redis.readthedocs.io/en/stable/exceptions.html
    Harmless(
        "redis",
        (),
        "redis.exceptions.RedisError",
        _is_raised_by_connecting,
        "no connection to send a command on",
        means=Verdict.NOT_SENT,
    ),
    # https://boto3.amazonaws.com/v1/documentation/api/latest/guide/error-handling.html
    Harmless(
        "botocore",
        ("botocore.exceptions.EndpointConnectionError", "botocore.exceptions.ConnectTimeoutError"),
        "botocore.exceptions.ClientError",
        _is_response_of_aws_refused,
        f"{_HTTP_4XX}, if it was sent once",
    ),
    # https://docs.sqlalchemy.org/en/20/core/exceptions.html
    Harmless("SQLAlchemy", ("sqlalchemy.exc.TimeoutError",)),
)
"""Every failure that is known to be harmless; the address above a library documents its classes."""

_REASONS: Mapping[str, Callable[[Any], object]] = {
    "urllib.error.URLError": lambda error: error.reason,
    "urllib3.exceptions.MaxRetryError": lambda error: error.reason,
    "urllib3.exceptions.ProxyError": lambda error: error.original_error,
    "requests.exceptions.ConnectionError": lambda error: error.args[0] if error.args else None,
    "sqlalchemy.exc.DBAPIError": lambda error: error.orig,
}
"""Classes whose instances say only that another error is the reason."""

_CLIENTS = frozenset(
    {
        "aiohappyeyeballs",
        "aiohttp",
        "aiomysql",
        "anyio",
        "asyncio",
        "asyncmy",
        "asyncpg",
        "botocore",
        "grpc",
        "http",
        "httpcore",
        "httpcore2",
        "httpx",
        "httpx2",
        "psycopg",
        "psycopg2",
        "psycopg_pool",
        "pymysql",
        "redis",
        "requests",
        "socket",
        "sqlalchemy",
        "ssl",
        "trio",
        "urllib",
        "urllib3",
    }
)
"""Packages whose handled exceptions are details of the exception that they raise in the end."""


def verdict(error: BaseException) -> Verdict:
    """Return what the exception of a call says about the call.

    Exceptions in its chain count as well, except those that a client library handled. So a callable that
    loses a reply, and then cannot reach a second server, leaves its call in doubt. `NotSent` decides alone,
    because the callable raised it on purpose. Of a group, every member must be harmless.
    """
    if isinstance(error, NotSent):
        return Verdict.NOT_SENT
    if isinstance(error, CallFailed):
        return Verdict(error.verdict)  # found on the worker, where the exception itself was
    try:
        return max(map(_own_verdict, (error, *_handled_by_the_callable(error))))
    except Exception:  # noqa: BLE001 - attributes of foreign errors: what cannot be read is unknown
        return Verdict.IN_DOUBT


def harmless_names() -> list[str]:
    """Return the failures that are known to be harmless, one text for each library."""
    return [f"{each.library}: {'; '.join(_words(each))}" for each in HARMLESS]


def _words(each: Harmless) -> Iterator[str]:
    if each.not_sent:
        yield ", ".join(f"`{name.removeprefix('builtins.')}`" for name in each.not_sent)
    if each.refused:
        yield f"`{each.refused}` with {each.shown}"


def _own_verdict(error: BaseException) -> Verdict:
    if isinstance(error, BaseExceptionGroup):
        return max(verdict(each) for each in error.exceptions)
    for each in HARMLESS:
        if each.says is not None and _is(error, each.refused) and each.says(error):
            return Verdict.IN_DOUBT if _is_any_sent_earlier(error) else each.means
    if _is(error, "psycopg.Error") and getattr(error, "pgconn", None) is not None:
        return Verdict.NOT_SENT  # raised by the attempt to connect
    if _is(error, "psycopg2.OperationalError") and _is_raised_by_connecting(error):
        return Verdict.NOT_SENT
    for name, reason_of in _REASONS.items():
        if _is(error, name) and isinstance(reason := reason_of(error), BaseException):
            return Verdict.IN_DOUBT if _is_any_sent_earlier(error) else _own_verdict(reason)
    is_unsent = any(_is(error, name) for each in HARMLESS for name in each.not_sent)
    return Verdict.NOT_SENT if is_unsent and not _is_any_sent_earlier(error) else Verdict.IN_DOUBT


def _is(error: BaseException, name: str) -> bool:
    """Return whether an error is an instance of the class that a loaded module publishes under `name`."""
    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    return isinstance(found, type) and isinstance(error, found)


def _handled_by_the_callable(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in the chain of `error` that no client library handled."""
    seen, waiting = {id(error)}, [error]
    while waiting:
        each = waiting.pop()
        for chained in (each.__cause__, each.__context__):
            if chained is not None and id(chained) not in seen:
                seen.add(id(chained))
                waiting.append(chained)
                if not _is_handled_by_a_client(chained):
                    yield chained


def _is_handled_by_a_client(error: BaseException) -> bool:
    # The first frame of a traceback is the one that handled the exception.
    if error.__traceback__ is None:
        return False
    package = _module(error.__traceback__.tb_frame).partition(".")[0]
    return package in _CLIENTS


# Earlier requests of the same call -----------------------------------------------------------------------
#
# A client that follows a redirect or retries reports its last request only. The frames of the traceback hold
# the earlier requests.


def _is_any_sent_earlier(error: BaseException) -> bool:
    """Return whether the client had sent the call before the request that `error` is about."""
    knows_retries = not _is(error, "urllib3.exceptions.MaxRetryError")
    for frame in _frames(error):
        place = _module(frame), frame.f_code.co_name
        if place == ("urllib3.util.retry", "increment"):
            knows_retries = True
        if place in _EARLIER and _EARLIER[place](frame.f_locals):
            return True
    return not knows_retries


def _is_any_sent(history: Any) -> bool:
    """Return whether any request in the history of a `urllib3.util.Retry` may have been received."""
    return any(each.error is None or verdict(each.error) is not Verdict.NOT_SENT for each in history)


_EARLIER: Mapping[tuple[str, str], Callable[[Mapping[str, Any]], bool]] = {
    ("urllib.request", "http_error_302"): lambda _: True,
    ("requests.sessions", "resolve_redirects"): lambda _: True,
    ("urllib3.util.retry", "increment"): lambda names: _is_any_sent(names["self"].history),
    ("httpx._client", "_send_handling_redirects"): lambda names: bool(names.get("history", True)),
    ("httpx2._client", "_send_handling_redirects"): lambda names: bool(names.get("history", True)),
    ("botocore.endpoint", "_send_request"): lambda names: names["attempts"] > 1,
    ("aiohttp.client", "_request"): lambda names: bool(names.get("history", True)) or _is_sent_again(names),
}
"""For each function of a client that sends several requests, whether it has sent one before."""


def _is_sent_again(names: Mapping[str, Any]) -> bool:
    """Return whether aiohttp lost a kept connection during the request and has sent it again."""
    may_send_again = names.get("method") in {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
    return may_send_again and names.get("retry_persistent_connection") is False


def _frames(error: BaseException) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
