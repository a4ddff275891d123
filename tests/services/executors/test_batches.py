"""Units that wait for the workers of a cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from flujo.domain.executor import Needs
from flujo.exceptions import ResourcesUnavailable, WorkerLost
from flujo.services.executors.batches import Batch, Batches, Place

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence


class Cluster:
    """Workers that answer when a test lets them."""

    def __init__(self, *has: Needs, batch_size: int = 1) -> None:
        self.batches = Batches("there", batch_size, self._send)
        self.sent: list[tuple[str, list[bytes]]] = []
        self._gates: list[asyncio.Future[None]] = []
        for number, each in enumerate(has):
            self.batches.places[str(number)] = Place(key=str(number), name=f"w{number}", has=each)

    async def _send(self, place: Place, batch: Batch) -> Sequence[bytes]:
        self.sent.append((place.name, batch.units))
        gate = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        await gate
        return [b"did " + unit for unit in batch.units]

    def answer(self, error: Exception | None = None) -> None:
        """Let all answer that has been sent so far."""
        for gate in self._gates:
            if gate.done():
                continue
            if error is None:
                gate.set_result(None)
            else:
                gate.set_exception(error)


def asked(work: Coroutine[None, None, bytes]) -> asyncio.Task[bytes]:
    return asyncio.get_running_loop().create_task(work)


async def turns() -> None:
    """Let everything happen that is ready."""
    for _ in range(10):
        await asyncio.sleep(0)


ONE = Needs()


async def test_a_worker_gets_what_it_has_room_for_and_the_rest_waits() -> None:
    cluster = Cluster(Needs(cpu=1), Needs(cpu=1))
    answers = [asked(cluster.batches.ask(b"%d" % number, ONE)) for number in range(7)]
    await turns()
    assert [units for _, units in cluster.sent] == [[b"0"], [b"1"], [b"2"], [b"3"]]
    assert sorted(name for name, _ in cluster.sent) == ["w0", "w0", "w1", "w1"]
    cluster.answer()
    await turns()
    assert len(cluster.sent) == 7
    cluster.answer()
    assert list(await asyncio.gather(*answers)) == [b"did %d" % number for number in range(7)]


async def test_a_batch_has_what_is_there_shared_among_the_workers() -> None:
    cluster = Cluster(Needs(cpu=1), Needs(cpu=1), batch_size=3)
    alone = asked(cluster.batches.ask(b"a", ONE))
    await turns()
    assert cluster.sent == [("w0", [b"a"])]
    others = [asked(cluster.batches.ask(b"%d" % number, ONE)) for number in range(12)]
    await turns()
    assert [len(units) for _, units in cluster.sent[1:]] == [3, 3, 3]
    cluster.answer()
    await turns()
    cluster.answer()
    assert await asyncio.gather(alone, *others)


@pytest.mark.parametrize(
    ("has", "needs", "at_once"),
    [
        (Needs(cpu=4), Needs(cpu=2), 2),
        (Needs(cpu=8, gpu=1), Needs(gpu=1), 1),
        (Needs(cpu=8, gpu=1), Needs(gpu=0.5), 2),
        (Needs(cpu=8, memory=10), Needs(memory=4), 2),
        (Needs(cpu=1), Needs(cpu=0.5), 4),
    ],
)
async def test_a_worker_gets_what_its_resources_allow(has: Needs, needs: Needs, at_once: int) -> None:
    cluster = Cluster(has)
    answers = [asked(cluster.batches.ask(b"x", needs)) for _ in range(8)]
    await turns()
    assert len(cluster.sent) == at_once
    for _ in range(8):
        cluster.answer()
        await turns()
    assert len(await asyncio.gather(*answers)) == 8


async def test_a_waiting_unit_that_is_cancelled_is_never_sent() -> None:
    cluster = Cluster(Needs(cpu=1))
    first, second, third = (asked(cluster.batches.ask(b"%d" % number, Needs(cpu=1.5))) for number in range(3))
    await turns()
    assert not cluster.sent  # it fits nowhere
    second.cancel()
    cluster.batches.places["big"] = Place(key="big", name="big", has=Needs(cpu=1.5))
    cluster.batches.move()
    await turns()
    cluster.answer()
    await turns()
    cluster.answer()
    both = list(await asyncio.gather(first, third))
    assert both == [b"did 0", b"did 2"]
    assert [units for _, units in cluster.sent] == [[b"0"], [b"2"]]


async def test_a_worker_that_does_not_confirm_a_cancel_gets_nothing() -> None:
    cluster = Cluster(Needs(cpu=1), Needs(cpu=1))
    cluster.batches.places["0"].stopping += 1
    answers = [asked(cluster.batches.ask(b"x", ONE)) for _ in range(2)]
    await turns()
    assert [name for name, _ in cluster.sent] == ["w1", "w1"]
    cluster.answer()
    await asyncio.gather(*answers)


async def test_the_units_of_a_lost_worker_fail_each_with_its_own_error() -> None:
    cluster = Cluster(Needs(cpu=1), batch_size=2)
    answers = [asked(cluster.batches.ask(b"%d" % number, ONE)) for number in range(4)]
    await turns()
    cluster.batches.lose("0", WorkerLost("w0 is gone", executor="there"))
    errors = await asyncio.gather(*answers, return_exceptions=True)
    assert [str(error) for error in errors] == ["w0 is gone"] * 4
    assert len({id(error) for error in errors}) == 4
    assert all(isinstance(error, WorkerLost) and error.executor == "there" for error in errors)


async def test_an_error_of_the_library_is_a_lost_worker() -> None:
    cluster = Cluster(Needs(cpu=1))
    answer = asked(cluster.batches.ask(b"x", ONE))
    await turns()
    cluster.answer(RuntimeError("the line is cut"))
    with pytest.raises(WorkerLost, match=r"w0 gave no answer \(executor 'there'\): the line is cut"):
        await answer


async def test_a_waiting_unit_is_refused_when_no_worker_is_left_for_it() -> None:
    cluster = Cluster(Needs(cpu=1))
    large, small = (asked(cluster.batches.ask(b"x", Needs(cpu=cpu))) for cpu in (3, 1))
    await turns()
    cluster.batches.refuse(lambda needs: ResourcesUnavailable("too much") if needs.cpu > 1 else None)
    with pytest.raises(ResourcesUnavailable):
        await large
    cluster.answer()
    assert await small == b"did x"
