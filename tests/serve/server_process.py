"""`flujo serve` as a process of its own, which a test may kill."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def server_process(root: Path, port: int = 0) -> Iterator[tuple[warm.Popen, int]]:
    """Serve the project in a folder; return the process and its port. At the end it is killed."""
    words = [sys.executable, "-m", "flujo", "serve", "--port", str(port)]
    with warm.Popen(words, cwd=root, stderr=subprocess.PIPE) as process:
        try:
            said = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", said)
            assert found is not None, said + process.stderr.read()
            yield process, int(found[1])
        finally:
            process.kill()
