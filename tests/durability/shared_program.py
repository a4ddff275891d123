"""A program that shares one runner: `python shared_program.py threads|fork|spawn|forkserver|os.fork`.

The database is that of `FLUJO_STATE_URI`. It exits with 0 when every call returned the right output.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from flujo import Flujo, Pipeline, Step, TaskClient
from flujo.domain.steps import CachePolicy, CallableRef

THREADS = 8
PAUSE_S = 0.02
"""Between two runs of a busy thread: the children need the processor as well."""
CALLS, CHILDREN = (104, 4) if "FLUJO_KILLS" in os.environ else (40, 2)


async def more(data: int) -> int:
    """Add one, in the event loop."""
    await asyncio.sleep(0.001)
    return data + 1


def twice(data: int) -> int:
    """Double, in a thread."""
    return data * 2


def fail(data: int) -> int:
    """Fail for a negative number."""
    if data < 0:
        raise ValueError("negative")
    return data


PIPELINE = Pipeline(
    (
        Step(name="more", call=CallableRef.of(more)),
        replace(Step(name="twice", call=CallableRef.of(twice)), cache=CachePolicy()),
        Step(name="fail", call=CallableRef.of(fail)),
    ),
    name="shared",
)
RUNNER = Flujo[Any, Any, Any](PIPELINE)
CLIENT = TaskClient()


def check(number: int) -> None:
    """Run once, in one of the ways in which programs do."""
    match number % 5:
        case 0:
            output = RUNNER.run(number).output
        case 1:
            output = asyncio.run(RUNNER.run_result_async(number)).output
        case 2:
            output = asyncio.run(_streamed(number))
        case 3:
            output = asyncio.run(_three(number))
        case _:
            output = (number + 1) * 2 if RUNNER.run(-9).status == "failed" else None
            asyncio.run(CLIENT.list_tasks(limit=1))
    assert output == (number + 1) * 2, output


async def _streamed(number: int) -> Any:
    async with RUNNER.run_stream(number) as stream:
        *_, result = [item async for item in stream]
    return result.output  # type: ignore[union-attr]  # the last one


async def _three(number: int) -> Any:
    results = await asyncio.gather(*(RUNNER.run_result_async(number) for _ in range(3)))
    return results[2].output


def child(number: int) -> None:
    """Use the runner of the parent, and close it."""
    for more_of_them in range(5):
        check(number * 10 + more_of_them)
    asyncio.run(RUNNER.aclose())
    asyncio.run(CLIENT.aclose())


def forked(number: int) -> int:
    """Return the exit code of a child that `os.fork` made."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            child(number)
            code = 0
        except BaseException:  # noqa: BLE001 - the child must not return from here
            traceback.print_exc()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def processes(method: Any) -> list[int | None]:
    """Return the exit codes of children that `multiprocessing` made."""
    context = multiprocessing.get_context(method)
    children = [context.Process(target=child, args=(number,)) for number in range(CHILDREN)]
    for each in children:
        each.start()
    for each in children:
        each.join()
    return [each.exitcode for each in children]


def main(how: str) -> None:
    """Share the runner, and use it meanwhile and afterwards."""
    # Python 3.12 warns of every fork of a process with threads, which is the case under test.
    warnings.filterwarnings("ignore", message=".*multi-threaded", category=DeprecationWarning)
    if how == "threads":
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(check, range(CALLS)))
    else:
        check(1)
        ended = threading.Event()
        done: list[bool] = []

        def busy() -> None:
            while not ended.wait(PAUSE_S):
                check(len(done))
                done.append(True)

        with ThreadPoolExecutor(2) as pool:
            working = [pool.submit(busy) for _ in range(2)]
            codes = [forked(n) for n in range(CHILDREN)] if how == "os.fork" else processes(how)
            ended.set()
        assert codes == [0] * CHILDREN, codes
        assert [each.result() for each in working] == [None, None]
    check(0)
    asyncio.run(RUNNER.aclose())
    asyncio.run(CLIENT.aclose())


if __name__ == "__main__":
    main(sys.argv[1])
