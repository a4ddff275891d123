"""The exceptions of real clients: not sent, refused by the other side, or in doubt."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sqlite3
import threading
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc  # type: ignore[import-untyped]
import httpx
import psycopg
import pytest
import requests
import sqlalchemy as sa
import urllib3
from requests.adapters import HTTPAdapter

from durability import payments
from durability.payments import (
    ACTS,
    CLIENTS,
    READ_S,
    REFUSES,
    UNKNOWN_HOST,
    Service,
    closed_url,
    deaf_url,
    pay,
    payment_service,
)
from flujo import NotSent
from flujo.engine.failed_calls import HARMLESS, Verdict, harmless_names, verdict
from flujo.exceptions import CallInDoubt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOT_SENT, REFUSED, IN_DOUBT = Verdict.NOT_SENT, Verdict.REFUSED, Verdict.IN_DOUBT


@pytest.fixture
def service() -> Iterator[Service]:
    """A payment service."""
    with payment_service() as made:
        yield made


def raised(call: Callable[[], Any]) -> BaseException:
    """Return the exception of a call."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - foreign exceptions
        return error
    raise AssertionError("the call raised nothing")


async def failure(client: str, url: str) -> BaseException:
    """Return the exception of a payment."""
    try:
        await pay(client, url, "key")
    except Exception as error:  # noqa: BLE001 - foreign exceptions
        return error
    raise AssertionError("the payment raised nothing")


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("behaviour", ACTS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_call_is_in_doubt_when_the_service_acts_and_the_client_has_no_receipt(
    client: str, behaviour: str, service: Service
) -> None:
    service.behaviours = [behaviour]
    error = await failure(client, service.url)
    assert verdict(error) is IN_DOUBT, repr(error)
    assert service.paid == {"key": 1}


@pytest.mark.parametrize("behaviour", REFUSES)
@pytest.mark.parametrize("client", [name for name in CLIENTS if name != "urllib3"])
async def test_a_call_is_refused_when_the_service_answers_with_a_client_error(
    client: str, behaviour: str, service: Service
) -> None:
    service.behaviours = [behaviour]
    error = await failure(client, service.url)
    assert verdict(error) is REFUSED, repr(error)


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_call_is_not_sent_when_the_client_cannot_connect(client: str) -> None:
    assert verdict(await failure(client, closed_url())) is NOT_SENT
    assert verdict(await failure(client, UNKNOWN_HOST)) is NOT_SENT


@pytest.mark.parametrize("client", [name for name in CLIENTS if name != "urllib"])
async def test_a_call_is_not_sent_when_connecting_takes_too_long(
    client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments, "CONNECT_S", 0.4)
    with deaf_url() as url:
        error = await failure(client, url)
    assert verdict(error) is NOT_SENT, repr(error)


def test_a_timeout_of_urllib_is_in_doubt_because_it_does_not_name_its_phase() -> None:
    with deaf_url() as url:
        assert verdict(raised(lambda: CLIENTS["urllib"](url, "key"))) is IN_DOUBT


# A full pool ---------------------------------------------------------------------------------------------


async def test_a_call_is_not_sent_when_the_pool_of_httpx_is_full(service: Service) -> None:
    service.behaviours = ["silent"]
    limits, timeout = httpx.Limits(max_connections=1), httpx.Timeout(5, pool=0.1)
    async with httpx.AsyncClient(limits=limits, timeout=timeout) as client:
        first = asyncio.create_task(client.get(service.url))
        await asyncio.to_thread(service.is_called.wait)
        with pytest.raises(httpx.PoolTimeout) as caught:
            await client.post(service.url)
        first.cancel()
        await asyncio.wait([first])
    assert verdict(caught.value) is NOT_SENT


async def test_a_call_is_not_sent_when_the_pool_of_aiohttp_is_full(service: Service) -> None:
    service.behaviours = ["silent"]
    timeout = aiohttp.ClientTimeout(connect=0.1)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), timeout=timeout) as session:
        first = asyncio.create_task(session.get(service.url).__aenter__())
        await asyncio.to_thread(service.is_called.wait)
        with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
            await session.post(service.url)
        first.cancel()
        await asyncio.wait([first])
    assert verdict(caught.value) is NOT_SENT


def test_a_call_is_not_sent_when_the_pool_of_urllib3_is_empty(service: Service) -> None:
    host, _, port = service.url.removeprefix("http://").partition(":")
    pool = urllib3.HTTPConnectionPool(host, int(port), maxsize=1, block=True)
    held = pool.request("GET", "/", preload_content=False)
    error = raised(lambda: pool.urlopen("POST", "/", pool_timeout=1))
    held.release_conn()
    pool.close()
    assert isinstance(error, urllib3.exceptions.EmptyPoolError)
    assert verdict(error) is NOT_SENT


# Clients that send several requests ----------------------------------------------------------------------


def stops_listening(first: Callable[[socket.socket], None]) -> str:
    """Return the address of a service that handles one connection with `first`, and then refuses connections."""
    server = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{server.getsockname()[1]}"

    def serve() -> None:
        connection, _ = server.accept()
        with connection, server:
            connection.recv(65536)
            server.close()
            first(connection)

    threading.Thread(target=serve, daemon=True).start()
    return url


def drop(connection: socket.socket) -> None:
    """Disconnect without a reply."""
    connection.close()


def say_503(connection: socket.socket) -> None:
    """Answer that the service is unavailable."""
    connection.sendall(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


RETRIES = urllib3.Retry(total=2, allowed_methods=None, status_forcelist=[503], backoff_factor=0)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("first", [drop, say_503])
def test_a_call_that_urllib3_sent_before_it_was_refused_a_connection_is_in_doubt(
    first: Callable[[socket.socket], None],
) -> None:
    with urllib3.PoolManager(retries=RETRIES) as pool:
        error = raised(lambda: pool.request("POST", stops_listening(first), timeout=READ_S))
    assert isinstance(error, urllib3.exceptions.MaxRetryError)
    assert isinstance(error.reason, urllib3.exceptions.NewConnectionError)
    assert verdict(error) is IN_DOUBT


@pytest.mark.parametrize("first", [drop, say_503])
def test_a_call_that_requests_sent_before_it_was_refused_a_connection_is_in_doubt(
    first: Callable[[socket.socket], None],
) -> None:
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=RETRIES))
        error = raised(lambda: session.post(stops_listening(first), timeout=READ_S))
    assert isinstance(error, requests.ConnectionError)
    assert verdict(error) is IN_DOUBT


def test_an_answer_to_a_call_that_requests_has_sent_before_is_in_doubt(service: Service) -> None:
    service.behaviours = ["503", "402"]
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=RETRIES))
        error = raised(session.post(service.url, timeout=READ_S).raise_for_status)
    assert (verdict(error), len(service.received)) == (IN_DOUBT, 2)


def test_a_lost_retry_history_of_urllib3_leaves_the_call_in_doubt() -> None:
    with urllib3.PoolManager(retries=1) as pool:
        error = raised(lambda: pool.request("POST", closed_url(), timeout=READ_S))
    assert verdict(error) is NOT_SENT
    assert verdict(error.with_traceback(None)) is IN_DOUBT


async def test_a_call_that_aiohttp_sent_on_a_kept_connection_before_is_in_doubt() -> None:
    def answer_then_drop(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        connection.recv(65536)
        connection.close()

    url = stops_listening(answer_then_drop)
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as reply:
            await reply.read()
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.put(url, data=b"{}")
    assert verdict(caught.value) is IN_DOUBT


# Chains and groups ---------------------------------------------------------------------------------------


@pytest.mark.guarantee("G3")
def test_a_harmless_failure_after_a_lost_reply_is_in_doubt(service: Service) -> None:
    def fall_back() -> None:
        try:
            CLIENTS["requests"](service.url, "key")
        except requests.RequestException:
            CLIENTS["requests"](closed_url(), "key")

    service.behaviours = ["drop"]
    assert verdict(raised(fall_back)) is IN_DOUBT


def test_a_lost_reply_after_a_harmless_failure_is_in_doubt(service: Service) -> None:
    def fall_back() -> None:
        try:
            CLIENTS["httpx"](closed_url(), "key")
        except httpx.ConnectError:
            CLIENTS["httpx"](service.url, "key")

    service.behaviours = ["drop"]
    assert verdict(raised(fall_back)) is IN_DOUBT


def test_two_harmless_failures_are_harmless(service: Service) -> None:
    def fall_back() -> None:
        try:
            CLIENTS["httpx"](closed_url(), "key")
        except httpx.ConnectError:
            CLIENTS["requests"](service.url, "key")

    service.behaviours = ["402"]
    assert verdict(raised(fall_back)) is REFUSED


def test_an_unknown_error_is_in_doubt_whatever_caused_it() -> None:
    def wrap() -> None:
        try:
            CLIENTS["httpx"](closed_url(), "key")
        except httpx.ConnectError as error:
            raise RuntimeError("no payment") from error

    assert verdict(raised(wrap)) is IN_DOUBT


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([NotSent("a"), ConnectionRefusedError()], NOT_SENT),
        ([NotSent("a"), TimeoutError()], IN_DOUBT),
        ([ExceptionGroup("inner", [NotSent("a"), ValueError()])], IN_DOUBT),
    ],
)
def test_a_group_is_harmless_when_all_members_are(members: list[Exception], expected: Verdict) -> None:
    assert verdict(ExceptionGroup("several", members)) is expected


def test_not_sent_counts_whatever_its_cause(service: Service) -> None:
    def explain() -> None:
        try:
            CLIENTS["requests"](service.url, "key")
        except requests.RequestException as error:
            raise NotSent("the cable is not plugged in") from error

    service.behaviours = ["drop"]
    assert verdict(raised(explain)) is NOT_SENT


class Unreadable(requests.HTTPError):
    """An error whose response cannot be read."""

    @property
    def response(self) -> Any:
        """Raise."""
        raise ValueError

    @response.setter
    def response(self, _: Any) -> None:
        pass


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        BrokenPipeError(),
        ConnectionAbortedError(),
        OSError("any"),
        TypeError("any"),
        ValueError("any"),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        SystemExit(0),
        CallInDoubt("it is unknown"),
        requests.HTTPError("without a response"),
        requests.ConnectionError("without a reason"),
        Unreadable(),
    ],
    ids=repr,
)
def test_an_error_that_is_not_known_to_be_harmless_is_in_doubt(error: BaseException) -> None:
    assert verdict(error) is IN_DOUBT


def test_a_circle_of_reasons_is_in_doubt() -> None:
    error = requests.ConnectionError()
    error.args = (error,)
    assert verdict(error) is IN_DOUBT


# grpc ----------------------------------------------------------------------------------------------------


@contextmanager
def grpc_bank(status: grpc.StatusCode | None) -> Iterator[str]:
    """Start a service that ends each payment with a status, or never answers."""
    ended = threading.Event()

    def charge(_: bytes, context: grpc.ServicerContext) -> bytes:
        if status is None:
            ended.wait()
        else:
            context.abort(status, "refused")
        return b""

    handler = grpc.unary_unary_rpc_method_handler(charge)
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bank", {"Pay": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    ended.set()
    server.stop(None).wait()


def grpc_failure(address: str) -> BaseException:
    """Return the exception of a payment."""
    with grpc.insecure_channel(address) as channel:
        return raised(lambda: channel.unary_unary("/bank/Pay")(b"5", timeout=READ_S))


GRPC_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
}


@pytest.mark.parametrize("status", [each for each in grpc.StatusCode if each is not grpc.StatusCode.OK])
async def test_a_status_of_grpc_is_a_refusal_when_only_the_service_sets_it(status: grpc.StatusCode) -> None:
    expected = REFUSED if status in GRPC_REFUSALS else IN_DOUBT
    with grpc_bank(status) as address:
        assert verdict(grpc_failure(address)) is expected
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                await channel.unary_unary("/bank/Pay")(b"5", timeout=READ_S)
    assert verdict(caught.value) is expected


def test_a_silent_or_absent_service_of_grpc_leaves_the_call_in_doubt() -> None:
    with grpc_bank(None) as address:
        assert verdict(grpc_failure(address)) is IN_DOUBT
    assert verdict(grpc_failure(closed_url().removeprefix("http://"))) is IN_DOUBT


# Databases -----------------------------------------------------------------------------------------------


def statement(uri: str, *statements: str) -> BaseException:
    """Return the exception of a transaction."""
    with psycopg.connect(uri.replace("+psycopg", "")) as connection:

        def run() -> None:
            for each in statements:
                connection.execute(each.encode())
            connection.commit()

        return raised(run)


TABLE = "CREATE TABLE paid (key text PRIMARY KEY, amount int CHECK (amount > 0))"
DIES_IN_COMMIT = (
    "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$",
    "CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON paid DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION die()",
)


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ((TABLE, "INSERT INTO paid VALUES ('a', 1), ('a', 1)"), REFUSED),  # 23505
        ((TABLE, "INSERT INTO paid VALUES ('a', -1)"), REFUSED),  # 23514
        (("SELECT 1/0",), REFUSED),  # 22012
        (("SELECT * FROM missing",), REFUSED),  # 42P01
        (("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$",), REFUSED),
        (("DO $$ BEGIN RAISE SQLSTATE '40003'; END $$",), IN_DOUBT),
        (("DO $$ BEGIN RAISE SQLSTATE '28000'; END $$",), REFUSED),
        (("DO $$ BEGIN RAISE SQLSTATE '53300'; END $$",), IN_DOUBT),
        ((TABLE, *DIES_IN_COMMIT, "INSERT INTO paid VALUES ('a', 1)"), IN_DOUBT),
        (("SELECT pg_terminate_backend(pg_backend_pid())",), IN_DOUBT),
    ],
)
def test_a_statement_of_postgres_is_refused_by_its_sqlstate(
    empty_postgres_uri: str, statements: tuple[str, ...], expected: Verdict
) -> None:
    error = statement(empty_postgres_uri, *statements)
    assert isinstance(error, psycopg.Error)
    assert verdict(error) is expected, repr(error)


def test_sqlalchemy_passes_on_the_verdict_of_its_driver(empty_postgres_uri: str) -> None:
    engine = sa.create_engine(empty_postgres_uri.replace("postgresql://", "postgresql+psycopg://"))
    for text, expected in (
        ("SELECT 1/0", REFUSED),
        ("SELECT pg_terminate_backend(pg_backend_pid())", IN_DOUBT),
    ):
        with engine.connect() as connection:
            error = raised(lambda c=connection, t=text: c.execute(sa.text(t)))  # type: ignore[misc]
            connection.invalidate()
        assert isinstance(error, sa.exc.DBAPIError)
        assert verdict(error) is expected
    engine.dispose()


def test_a_call_is_not_sent_when_a_database_cannot_be_reached() -> None:
    port = closed_url().rpartition(":")[2]
    error = raised(lambda: psycopg.connect(f"host=127.0.0.1 port={port} connect_timeout=2"))
    assert verdict(error) is NOT_SENT
    engine = sa.create_engine(
        f"postgresql+psycopg://127.0.0.1:{port}/any", connect_args={"connect_timeout": 2}
    )
    assert verdict(raised(engine.connect)) is NOT_SENT


def test_a_call_is_not_sent_when_the_pool_of_sqlalchemy_is_full() -> None:
    engine = sa.create_engine(
        "sqlite://", poolclass=sa.QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.1
    )
    with engine.connect():
        assert verdict(raised(engine.connect)) is NOT_SENT


def test_an_error_of_sqlite_is_in_doubt_because_it_has_no_sqlstate(tmp_path: Path) -> None:
    with (
        sqlite3.connect(tmp_path / "a.db", timeout=0) as one,
        sqlite3.connect(tmp_path / "a.db", timeout=0) as two,
    ):
        one.execute("BEGIN IMMEDIATE")
        error = raised(lambda: two.execute("BEGIN IMMEDIATE"))
    assert isinstance(error, sqlite3.OperationalError)
    assert verdict(error) is IN_DOUBT


# Clients of other databases and services, where they are installed ------------------------------------------


def library(name: str) -> Any:
    """Return an optional client library."""
    return pytest.importorskip(name)


def closed_port() -> int:
    """Return a port that refuses connections."""
    return int(closed_url().rpartition(":")[2])


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[tuple[int, Callable[[], None]]]:
    """Yield the port of a server that serves each connection in a thread, and what stops it from listening."""
    server = socket.create_server(("127.0.0.1", 0))

    def stop() -> None:
        server.shutdown(socket.SHUT_RDWR)
        server.close()

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1], stop
    finally:
        if server.fileno() != -1:
            stop()


def packet(number: int, payload: bytes) -> bytes:
    """Return a packet of MySQL's protocol."""
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


GREETING = (
    b"\x0a8.0.0\x00" + bytes(4) + b"saltsalt\x00" + b"\xff\xf7" + b"\x2d\x02\x00" + b"\xff\x81"
    b"\x15" + bytes(10) + b"saltsaltsalt\x00" + b"mysql_native_password\x00"
)
OK = b"\x00\x00\x00\x02\x00\x00\x00"


def mysql_that_drops_an_insert(connection: socket.socket) -> None:
    """Agree to everything, and close the connection at an INSERT, as a server that dies after it."""
    with connection, connection.makefile("rb") as incoming:
        connection.sendall(packet(0, GREETING))
        while head := incoming.read(4):
            body = incoming.read(int.from_bytes(head[:3], "little"))
            if b"INSERT" in body:
                return
            connection.sendall(packet(head[3] + 1, OK))


def redis_that_drops_a_set(connection: socket.socket) -> None:
    """Agree to everything, and close the connection at a SET, as a server that dies after it."""
    with connection, connection.makefile("rb") as incoming:
        while head := incoming.readline():
            words = []
            for _ in range(int(head[1:])):
                words.append(incoming.read(int(incoming.readline()[1:]) + 2).strip())
            if words[0] == b"SET":
                return
            connection.sendall(b"+OK\r\n")


def pymysql_pays(port: int) -> None:
    connection = library("pymysql").connect(host="127.0.0.1", port=port, user="a")
    connection.cursor().execute("INSERT INTO paid VALUES (1)")


def aiomysql_pays(port: int) -> None:
    async def pay() -> None:
        connection = await library("aiomysql").connect(host="127.0.0.1", port=port, user="a")
        try:
            await (await connection.cursor()).execute("INSERT INTO paid VALUES (1)")
        finally:
            connection.close()

    asyncio.run(pay())


def asyncmy_pays(port: int) -> None:
    async def pay() -> None:
        connection = await library("asyncmy").connect(host="127.0.0.1", port=port, user="a")
        await connection.cursor().execute("INSERT INTO paid VALUES (1)")

    asyncio.run(pay())


def retrying(redis: str) -> Any:
    """Return what repeats a request three times at once; a client waits four seconds for its default of ten times."""
    return library(f"{redis}.retry").Retry(library("redis.backoff").NoBackoff(), 3)


def redis_pays(port: int) -> None:
    with library("redis").Redis(port=port, protocol=2, retry=retrying("redis")) as client:
        client.set("paid", "1")


def redis_pays_in_a_pipeline(port: int) -> None:
    with library("redis").Redis(port=port, protocol=2, retry=retrying("redis")) as client:
        client.pipeline(transaction=False).set("paid", "1").execute()


def redis_asyncio_pays(port: int) -> None:
    async def pay() -> None:
        again = retrying("redis.asyncio")
        async with library("redis.asyncio").Redis(port=port, protocol=2, retry=again) as client:
            await client.set("paid", "1")

    asyncio.run(pay())


MYSQL = [pymysql_pays, aiomysql_pays, asyncmy_pays]
REDIS = [redis_pays, redis_pays_in_a_pipeline, redis_asyncio_pays]


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("pays", [*MYSQL, *REDIS])
def test_a_call_of_mysql_or_redis_is_not_sent_when_the_connection_is_refused(
    pays: Callable[[int], None],
) -> None:
    port = closed_port()
    assert verdict(error := raised(lambda: pays(port))) is NOT_SENT, repr(error)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize(
    ("pays", "serve"),
    [
        *((each, mysql_that_drops_an_insert) for each in MYSQL),
        *((each, redis_that_drops_a_set) for each in REDIS),
    ],
)
def test_a_call_of_mysql_or_redis_is_in_doubt_when_its_answer_is_lost(
    pays: Callable[[int], None], serve: Callable[[socket.socket], None]
) -> None:
    with listener(serve) as (port, _):
        assert verdict(error := raised(lambda: pays(port))) is IN_DOUBT, repr(error)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("pays", REDIS)
def test_a_call_that_redis_sent_before_it_was_refused_a_connection_is_in_doubt(
    pays: Callable[[int], None],
) -> None:
    stops: list[Callable[[], None]] = []

    def serve(connection: socket.socket) -> None:
        stops[0]()
        redis_that_drops_a_set(connection)

    with listener(serve) as (port, stop):
        stops.append(stop)
        error = raised(lambda: pays(port))
    assert "refused" in str(error) or "Connect call failed" in str(error)
    assert verdict(error) is IN_DOUBT, repr(error)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize(("attempts", "expected"), [(1, NOT_SENT), (2, IN_DOUBT)])
def test_a_refused_connection_of_botocore_is_harmless_if_it_did_not_retry(
    attempts: int, expected: Verdict
) -> None:
    assert verdict(error := raised(lambda: sent_by_botocore(closed_url(), attempts))) is expected, repr(error)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize(
    ("answers", "expected"),
    [([400], REFUSED), ([409], IN_DOUBT), ([500], IN_DOUBT), ([0], IN_DOUBT), ([500, 400], IN_DOUBT)],
)
def test_an_answer_of_aws_is_a_refusal_when_it_was_sent_once(answers: list[int], expected: Verdict) -> None:
    left = iter(answers)

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            if status := next(left):
                body = b'{"__type": "X"}'
                head = f"HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)

    with listener(serve) as (port, _):
        error = raised(lambda: sent_by_botocore(f"http://127.0.0.1:{port}", len(answers)))
    assert verdict(error) is expected, repr(error)


def sent_by_botocore(url: str, attempts: int) -> None:
    boto3, config = library("boto3"), library("botocore.config")
    client = boto3.client(
        "sqs",
        region_name="eu-north-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        endpoint_url=url,
        config=config.Config(retries={"total_max_attempts": attempts}),
    )
    client.send_message(QueueUrl=f"{url}/q", MessageBody="pay")


def psycopg2_executes(uri: str, text: str) -> None:
    connection = library("psycopg2").connect(uri)
    try:
        connection.cursor().execute(text)
    finally:
        connection.close()


def asyncpg_executes(uri: str, text: str) -> None:
    async def execute() -> None:
        connection = await library("asyncpg").connect(uri, timeout=60)
        try:
            await connection.execute(text)
        finally:
            connection.terminate()

    asyncio.run(execute())


def a_pool_of_asyncpg_executes(uri: str, text: str) -> None:
    async def execute() -> None:
        async with library("asyncpg").create_pool(uri, min_size=0, timeout=60) as pool:
            await pool.execute(text)

    asyncio.run(execute())


def a_pool_of_psycopg_executes(uri: str, text: str) -> None:
    pools = library("psycopg_pool")
    with (
        pools.ConnectionPool(uri, min_size=0, max_size=1, timeout=2) as pool,
        pool.connection() as connection,
    ):
        connection.execute(text)


DRIVERS = [psycopg2_executes, asyncpg_executes, a_pool_of_asyncpg_executes, a_pool_of_psycopg_executes]


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("executes", DRIVERS)
def test_every_driver_of_postgres_passes_on_the_sqlstate(
    executes: Callable[[str, str], None], empty_postgres_uri: str
) -> None:
    uri = empty_postgres_uri.replace("+psycopg", "")
    for text, expected in (
        ("SELECT 1/0", REFUSED),
        ("DO $$ BEGIN RAISE SQLSTATE '40003'; END $$", IN_DOUBT),
        ("SELECT pg_terminate_backend(pg_backend_pid())", IN_DOUBT),
    ):
        assert verdict(error := raised(lambda t=text: executes(uri, t))) is expected, repr(error)  # type: ignore[misc]


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("executes", DRIVERS)
def test_a_call_is_not_sent_when_a_driver_of_postgres_cannot_connect(
    executes: Callable[[str, str], None],
) -> None:
    uri = f"postgresql://a@127.0.0.1:{closed_port()}/any"
    assert verdict(error := raised(lambda: executes(uri, "SELECT 1"))) is NOT_SENT, repr(error)


# The list ------------------------------------------------------------------------------------------------


def test_every_listed_class_of_an_installed_library_exists() -> None:
    for each in HARMLESS:
        for name in (*each.not_sent, *([each.refused] if each.refused else [])):
            module, _, attribute = name.rpartition(".")
            if importlib.util.find_spec(module.partition(".")[0]) is not None:
                assert issubclass(getattr(importlib.import_module(module), attribute), Exception)
    assert len(harmless_names()) == len(HARMLESS)


def test_the_guide_lists_every_harmless_failure() -> None:
    page = Path(__file__).parents[2].joinpath("docs/how-to/make-a-call-idempotent.md").read_text("utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    listed = {
        row[0].removeprefix("| "): (row[1].strip(), row[2].removesuffix("|").strip())
        for row in rows
        if len(row) == 3
    }
    for each in HARMLESS:
        not_sent = ", ".join(f"`{name.removeprefix('builtins.')}`" for name in each.not_sent)
        answers = f"`{each.refused}` with {each.shown}" if each.refused else ""
        row = (answers, "") if each.means is NOT_SENT else (not_sent, answers)
        assert listed.pop(each.library) == row
    assert set(listed) == {"library"}
