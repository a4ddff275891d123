"""Jobs in a queue of DBOS. Usage: bench.py URI JOBS WORKERS CONCURRENCY; prints one line of JSON."""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
from dbos import DBOS, DBOSClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workers import SPAWN, arguments, started


def configured(uri: str, concurrency: int) -> None:
    """Register the job and its queue, and launch DBOS."""
    DBOS(config={"name": "bench", "system_database_url": uri, "log_level": "ERROR"})

    @DBOS.workflow(name="job")
    def job(data: int) -> int:
        return data

    DBOS.launch()
    DBOS.register_queue("bench", worker_concurrency=concurrency, polling_interval_sec=0.1)


def work(uri: str, concurrency: int, ended: Any, barrier: Any) -> None:
    """Be a worker process."""
    barrier.wait(60)
    configured(uri, concurrency)
    ended.wait()


def prepare(uri: str) -> None:
    """Create the tables."""
    DBOS(config={"name": "bench", "system_database_url": uri, "log_level": "ERROR"})
    DBOS.launch()
    DBOS.destroy()


def done(uri: str) -> int:
    """Return how many jobs have ended."""
    with psycopg.connect(uri) as connection:
        query = "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'"
        return connection.execute(query).fetchone()[0]


def main() -> None:
    """Measure from the first completion, because a worker takes jobs as soon as it is launched."""
    uri, jobs, workers, concurrency = arguments()
    preparing = SPAWN.Process(target=prepare, args=(uri,))
    preparing.start()
    preparing.join()
    client = DBOSClient(system_database_url=uri)
    for number in range(jobs):
        client.enqueue({"queue_name": "bench", "workflow_name": "job"}, number)
    ended = SPAWN.Event()
    processes = started(work, workers, uri, concurrency, ended)
    while not (first := done(uri)):
        time.sleep(0.005)
    began = time.perf_counter()
    while done(uri) < jobs:
        time.sleep(0.02)
    spent = time.perf_counter() - began
    ended.set()
    for process in processes:
        process.kill()
    print(json.dumps({"jobs_per_s": (jobs - first) / spent, "versions": f"dbos {version('dbos')}"}))


if __name__ == "__main__":
    main()
