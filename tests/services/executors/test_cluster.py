"""The executor of every cluster, over a connection without a cluster."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.executor import Needs
from flujo.exceptions import ExecutorUnavailable, FlujoError, ResourcesUnavailable
from flujo.services.executors.batches import Place
from flujo.services.executors.cluster import Cluster, ClusterConnection
from flujo.services.executors.wire import ProjectOnWorker
from flujo.settings_executors import ExecutorTable
from services.executors.suite import unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from flujo.services.executors.batches import Batch


class Connection(ClusterConnection):
    """Opens when a test lets it, and answers with the inputs."""

    place = "seat"
    hint_for_places = ", at least two"
    made: list[Connection]

    def __init__(self, *given: Any, before: ClusterConnection | None) -> None:
        super().__init__(*given, before=before)
        self.opens: asyncio.Future[None] = self.loop.create_future()
        self.left = 0
        self.made.append(self)

    async def _open(self) -> None:
        await self._packed()
        await self.opens
        for key, cpu in (("a", 1), ("b", 2)):
            self.batches.places[key] = Place(key=key, name=key, has=Needs(cpu=cpu, memory=10))

    async def _leave(self) -> None:
        self.left += 1
        self.end = self.end or self._closed()

    async def _send(self, place: Place, batch: Batch) -> list[bytes]:
        ran = {"lines": [], "ran": [place.name, 1, 0.0]}
        return [canonical.encode({"output": canonical.decode(data)["data"], **ran}) for data in batch.units]

    async def _abouts(self) -> Iterable[Mapping[str, str]]:
        return [{"python": "3.11.1", "flujo": flujo} for flujo in ("1.0.1", "1.0.0", "1.0.1")]

    def _without_places(self) -> FlujoError:
        return ExecutorUnavailable("no seats")

    def _closed(self) -> ExecutorUnavailable:
        return ExecutorUnavailable("it was closed")


@pytest.fixture
def there(tmp_path: Path) -> Cluster:
    """An executor whose connections are noted in `Connection.made`."""
    Connection.made = []
    project = ProjectOnWorker(root=str(tmp_path), state_providers={}, max_result=1000, flujo="1.0.0")
    table = ExecutorTable(kind="dask", address="tcp://127.0.0.1:1", code="ship")
    return Cluster("there", Connection, table, project, lambda _: None)


async def connecting(there: Cluster, count: int = 1) -> list[asyncio.Task[Any]]:
    """Return submitted units that wait for their connection."""
    units = [asyncio.ensure_future(there.submit(unit("double", number))) for number in range(count)]
    while not Connection.made:  # noqa: ASYNC110 - one turn of the event loop
        await asyncio.sleep(0)
    return units


async def test_all_units_of_an_event_loop_have_one_connection(there: Cluster) -> None:
    units = await connecting(there, 5)
    (connection,) = Connection.made
    connection.opens.set_result(None)
    assert await asyncio.gather(*units) == ["0", "1", "2", "3", "4"]
    facts = await there.check()
    assert (facts.workers, facts.has) == (2, Needs(cpu=3, memory=20))
    assert (facts.python, facts.flujo) == (("3.11.1",), ("1.0.0", "1.0.1"))
    assert Connection.made == [connection]


async def test_needs_that_no_place_has_are_refused_with_what_there_is(there: Cluster) -> None:
    units = await connecting(there)
    Connection.made[0].opens.set_result(None)
    await asyncio.gather(*units)
    with pytest.raises(ResourcesUnavailable) as refused:
        await there.submit(unit("double", 1, needs=Needs(cpu=3)))
    assert str(refused.value) == (
        "no seat of executor 'there' has 3 cpu; the seats have 1 cpu, 10 B of memory; 2 cpu, 10 B of memory"
    )
    assert refused.value.hint == "lower `resources` of the step, or start a seat that has them, at least two"


async def test_a_connection_that_cannot_be_opened_is_left_and_the_next_unit_has_another(
    there: Cluster, tmp_path: Path
) -> None:
    units = await connecting(there, 2)
    Connection.made[0].opens.set_exception(ExecutorUnavailable("nothing listens"))
    errors = await asyncio.gather(*units, return_exceptions=True)
    assert [str(error) for error in errors] == ["nothing listens"] * 2
    again = asyncio.ensure_future(there.submit(unit("double", 7)))
    while len(Connection.made) == 1:  # noqa: ASYNC110 - one turn of the event loop
        await asyncio.sleep(0)
    first, second = Connection.made
    second.opens.set_result(None)
    assert await again == "7"
    await there.aclose()
    assert first.left >= 1
    assert second.left == 1


async def test_what_connects_fails_when_it_is_closed(there: Cluster) -> None:
    units = await connecting(there, 2)
    await there.aclose()
    await there.aclose()
    errors = await asyncio.gather(*units, return_exceptions=True)
    assert [str(error) for error in errors] == ["it was closed"] * 2


async def test_a_unit_that_is_cancelled_leaves_the_connection_to_the_others(there: Cluster) -> None:
    first, second = await connecting(there, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    Connection.made[0].opens.set_result(None)
    assert await second == "1"


async def test_a_forked_child_leaves_the_connection_to_its_parent(there: Cluster) -> None:
    units = await connecting(there)
    Connection.made[0].opens.set_result(None)
    await asyncio.gather(*units)
    child = os.fork()
    if child == 0:
        os._exit(0 if there._connection is None else 1)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert there._connection is Connection.made[0]
