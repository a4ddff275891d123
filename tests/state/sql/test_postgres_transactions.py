"""A tool writes on the session of a transaction that only Flujo ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flujo.exceptions import TransactionRefused
from flujo.state.sql.database import Database
from flujo.state.sql.postgres_transactions import Guarded

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def driver(postgres_uri: str) -> Iterator[Any]:
    """A connection that is in a transaction."""
    database = Database(postgres_uri)
    connection = database.connect()
    connection.detach()
    connection.begin()
    yield connection.connection.dbapi_connection
    connection.invalidate()
    database.dispose()


def test_the_server_refuses_a_commit_while_a_tool_has_the_connection(driver: Any) -> None:
    guarded = Guarded(driver, 30)
    lent = guarded.lend(is_async=False)
    assert isinstance(lent, psycopg.Connection)
    lent.execute("CREATE TABLE made (n int)")
    with pytest.raises(
        psycopg.errors.UniqueViolation, match="a transactional tool does not commit: Flujo does"
    ):
        lent.execute("INSERT INTO made VALUES (1); COMMIT")
    with pytest.raises(TransactionRefused, match="has ended its transaction"):
        guarded.take_back()
    guarded.close()


def test_flujo_commits_what_the_tool_wrote_after_it_has_taken_the_connection_back(driver: Any) -> None:
    guarded = Guarded(driver, 30)
    lent = guarded.lend(is_async=False)
    with lent.transaction():  # type: ignore[union-attr]  # a sync one
        lent.execute("CREATE TABLE made (n int)")
    guarded.take_back()
    with pytest.raises(TransactionRefused, match="after its call"):
        lent.execute("SELECT 1")
    driver.execute("DROP TABLE made")
    guarded.close()


def test_the_server_cancels_a_statement_after_the_timeout(driver: Any) -> None:
    guarded = Guarded(driver, 0.2)
    lent = guarded.lend(is_async=False)
    with pytest.raises(psycopg.errors.QueryCanceled):
        lent.execute("SELECT pg_sleep(10)")
    guarded.close()
