"""A worker of DBOS among faults; see `faulty.py`. A restarted worker has the name of the killed one."""

import sys
import threading
import time
from pathlib import Path

from dbos import DBOS, DBOSClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faulty import JOB_S, main, note


def fill(uri: str, jobs: int) -> None:
    """Make the tables, and put jobs into the queue."""
    DBOS(config={"name": "bench", "system_database_url": uri, "log_level": "ERROR"})
    DBOS.launch()
    DBOS.destroy()
    client = DBOSClient(system_database_url=uri)
    for number in range(jobs):
        client.enqueue({"queue_name": "bench", "workflow_name": "job", "app_version": "1"}, number)


def work(uri: str, name: str, concurrency: int, ledger: str) -> None:
    """Execute jobs."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": uri,
            "log_level": "ERROR",
            "executor_id": name,
            "application_version": "1",
        }
    )

    @DBOS.workflow(name="job")
    def job(data: int) -> int:
        time.sleep(JOB_S)
        note(ledger, data)
        return data

    DBOS.launch()
    DBOS.register_queue("bench", worker_concurrency=concurrency, polling_interval_sec=0.1)
    threading.Event().wait()


if __name__ == "__main__":
    main(fill, work)
