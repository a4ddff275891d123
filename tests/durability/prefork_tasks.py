"""A Celery application whose runner is used before the worker forks its pool: `python prefork_tasks.py COUNT` sends.

The folder `FLUJO_TEST_BROKER` is the broker. The sender writes the list of the tasks' results, each the output of
run `task-N` and the process, to stdout.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery

from durability.shared_program import RUNNER, check

FOLDER = Path(os.environ["FLUJO_TEST_BROKER"])
QUEUE, RESULTS, CONTROL = (FOLDER / name for name in ("queue", "results", "control"))
for folder in (QUEUE, RESULTS, CONTROL):
    folder.mkdir(parents=True, exist_ok=True)

app = Celery("prefork", broker="filesystem://", backend=f"file://{RESULTS}")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(QUEUE),
        "data_folder_out": str(QUEUE),
        "control_folder": str(CONTROL),
        "polling_interval": 0.05,
    },
    worker_enable_remote_control=False,
)


@app.task(name="run")  # type: ignore[untyped-decorator]  # Celery has no types
def run(number: int) -> list[Any]:
    """Run in sync code, or in an event loop of this task."""
    run_id = f"task-{number}"
    if number % 2:
        result = asyncio.run(RUNNER.run_result_async(number, run_id=run_id))
    else:
        result = RUNNER.run(number, run_id=run_id)
    return [result.output, os.getpid()]


def main(count: int) -> None:
    """Send the tasks and await their results."""
    sent = [run.delay(number) for number in range(count)]
    json.dump([each.get(interval=0.05) for each in sent], sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
else:
    for each_way in range(5):
        check(each_way)
