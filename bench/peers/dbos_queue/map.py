"""A map of DBOS: one workflow in a queue for each item, executed by worker processes; see `mapped.py`."""

import sys
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mapped import FUNCTIONS, arguments, fastest_s, say
from workers import SPAWN, started

AT_ONCE = 50
"""How many jobs a worker executes at once."""


def configured(uri: str, function: str) -> None:
    """Register the job and its queue, and launch DBOS."""
    DBOS(config={"name": "bench", "system_database_url": uri, "log_level": "ERROR"})
    call = FUNCTIONS[function]

    @DBOS.workflow(name="job")
    def job(data: int) -> int:
        return call(data)

    DBOS.launch()
    DBOS.register_queue("bench", worker_concurrency=AT_ONCE, polling_interval_sec=0.1)


def work(uri: str, function: str, ended: Any, barrier: Any) -> None:
    """Be a worker process."""
    barrier.wait(60)
    configured(uri, function)
    ended.wait()


def prepare(uri: str) -> None:
    """Create the tables."""
    DBOS(config={"name": "bench", "system_database_url": uri, "log_level": "ERROR"})
    DBOS.launch()
    DBOS.destroy()


def main() -> None:
    """Measure from the first job that is put into the queue to the last result."""
    workers, function, count, uri = arguments()
    preparing = SPAWN.Process(target=prepare, args=(uri,))
    preparing.start()
    preparing.join()
    client = DBOSClient(system_database_url=uri)
    ended = SPAWN.Event()
    processes = started(work, workers, uri, function, ended)

    def mapped(count: int) -> list[int]:
        options: Any = {"queue_name": "bench", "workflow_name": "job"}
        handles = [client.enqueue(options, number) for number in range(count)]
        return [handle.get_result(polling_interval_sec=0.02) for handle in handles]

    durable = fastest_s(mapped, count)
    ended.set()
    for process in processes:
        process.kill()
    say("dbos", durable=durable)


if __name__ == "__main__":
    main()
