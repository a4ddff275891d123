"""The process of `flujo serve`."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from flujo.exceptions import SettingsError
from flujo.serve.server import run
from flujo.services.project.project import find_project
from flujo.settings_serve import ServeTable

if TYPE_CHECKING:
    from pathlib import Path


def test_the_command_says_where_it_serves_and_ends_at_sigterm(root: Path) -> None:
    words = [sys.executable, "-m", "flujo", "serve", "--port", "0"]
    with subprocess.Popen(words, cwd=root, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = re.search(r"http://127\.0\.0\.1:\d+/", process.stderr.readline())
        assert said is not None
        assert httpx.get(f"{said[0]}healthz").json() == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read() == ""
    assert process.returncode == -signal.SIGTERM, "a shell shows it as 143"


async def test_a_port_that_is_taken_is_an_error_that_names_another_one(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}") as refused:
            await run(find_project(root), ServeTable(port=port), on_start=lambda _: None)
    assert "--port 0" in str(refused.value.hint)
