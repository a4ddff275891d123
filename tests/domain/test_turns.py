"""One task at a time holds a turn, in whatever event loop; a loop that has stopped loses it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from flujo.domain.turns import Turn


def test_tasks_of_several_event_loops_take_turns() -> None:
    turn, inside, most = Turn(), [0], [0]

    async def task() -> None:
        async with turn.taken():
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            await asyncio.sleep(0.001)
            inside[0] -= 1

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(10)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: asyncio.run(tasks()), range(4)))
    assert most == [1]


def test_a_task_of_a_stopped_event_loop_loses_its_turn() -> None:
    turn, stopped = Turn(), asyncio.new_event_loop()

    async def stay() -> None:
        async with turn.taken():
            stopped.stop()
            await asyncio.Event().wait()

    async def take() -> bool:
        async with asyncio.timeout(5), turn.taken():
            return True

    staying = stopped.create_task(stay())
    stopped.run_forever()
    assert asyncio.run(take())
    staying.cancel()
    stopped.run_until_complete(asyncio.wait([staying]))
    stopped.close()
    assert asyncio.run(take())
