"""A service whose runner is used before the server forks its workers, as WSGI and as ASGI application.

`GET /N` runs `request-N` and returns its output and the process.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from durability.shared_program import RUNNER, check

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

for each_way in range(5):
    check(each_way)


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Run in sync code."""
    number = int(environ["PATH_INFO"].removeprefix("/"))
    output = RUNNER.run(number, run_id=f"request-{number}").output
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([output, os.getpid()]).encode()]


asgi = FastAPI()


@asgi.get("/{number}")
async def run(number: int) -> list[Any]:
    """Run in the event loop of the worker."""
    result = await RUNNER.run_result_async(number, run_id=f"request-{number}")
    return [result.output, os.getpid()]
