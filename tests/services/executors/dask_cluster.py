"""A Dask cluster of this host for tests: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

TESTS = Path(__file__).parents[2]

_QUIET = {
    "DASK_LOGGING__DISTRIBUTED": "critical",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10 minutes",  # a frozen worker stays
}


class DaskCluster:
    """A scheduler and its workers.

    Args:
        folder: for their files.
        options: of the scheduler and of each worker, for instance certificates.
        host: the address of the scheduler.
        enter: the words before its command; see `Networks.enter`.
        settings: of Dask, as variables.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        host: str = "127.0.0.1",
        enter: Sequence[str] = (),
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._folder = folder
        self._options = options
        self._settings = settings
        self._file = folder / "scheduler.json"
        self._count = 0
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start(
            "from distributed.cli.dask_scheduler import main", "--host", host, "--port", "0", enter=enter
        )
        self.address: str = wait(self._address)

    def _start(self, program: str, *options: str, enter: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        self._count += 1
        home = self._folder / f"{self._count}"
        home.mkdir()
        with (home / "log").open("wb") as log:
            return subprocess.Popen(
                [
                    *enter,
                    sys.executable,
                    "-c",
                    f"{program}; main()",
                    *("--no-dashboard", "--scheduler-file", str(self._file), *options, *self._options),
                ],
                cwd=home,
                env={**os.environ, **_QUIET, **self._settings, "PYTHONPATH": str(TESTS), "TMPDIR": str(home)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _address(self) -> str | None:
        try:
            return str(json.loads(self._file.read_text("utf-8"))["address"])
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def add_worker(
        self, *options: str, before: str = "", enter: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a worker of one thread.

        Args:
            options: of `dask worker`.
            before: Python that its process executes first.
            enter: as for the cluster.
        """
        worker = self._start(
            f"{before}; from distributed.cli.dask_worker import main"
            if before
            else "from distributed.cli.dask_worker import main",
            *("--no-nanny", "--nthreads", "1", "--memory-limit", "0", *options),
            enter=enter,
        )
        self.workers.append(worker)
        return worker

    def wait_for_workers(self, count: int) -> None:
        """Wait until the scheduler knows so many workers."""

        async def known() -> None:
            async with connected(self.address) as client:
                await client.wait_for_workers(count)

        asyncio.run(known())

    def remove_dead(self) -> None:
        """Forget workers that were killed."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]

    def close(self) -> None:
        """Kill everything."""
        for process in (*self.workers, self.scheduler):
            process.send_signal(signal.SIGKILL)
        for process in (*self.workers, self.scheduler):
            process.wait()


def wait(found: Callable[[], Any]) -> Any:
    """Return what a function finds, a minute at most."""
    ends_at = time.monotonic() + 60
    while (it := found()) is None:
        if time.monotonic() > ends_at:
            raise TimeoutError
        time.sleep(0.02)
    return it


@asynccontextmanager
async def connected(address: str, security: Any = None) -> AsyncIterator[Any]:
    """Connect to a cluster without Flujo."""
    from distributed import Client

    async with Client(address, asynchronous=True, set_as_default=False, security=security) as client:
        yield client


def forget(package: str) -> None:
    """Let this worker import a package again."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


@dataclass(frozen=True)
class Certificates:
    """A certificate that signs itself, and its key, for a scheduler, a worker and a client."""

    certificate: Path
    key: Path

    @classmethod
    def made(cls, folder: Path) -> Certificates:
        """Write them into a folder."""
        from distributed import Security

        made = Security.temporary()
        files = cls(folder / "certificate.pem", folder / "key.pem")
        files.certificate.write_text(str(made.tls_ca_file), "utf-8")
        files.key.write_text(str(made.tls_scheduler_key), "utf-8")
        return files

    @property
    def options(self) -> tuple[str, ...]:
        """Those of `dask scheduler` and `dask worker`."""
        files = ("--tls-ca-file", self.certificate, "--tls-cert", self.certificate, "--tls-key", self.key)
        return ("--protocol", "tls", *map(str, files))

    @property
    def table(self) -> str:
        """The keys of `[executors.NAME]`."""
        return f'tls_ca = "{self.certificate.name}"\ntls_cert = "{self.certificate.name}"\ntls_key = "{self.key.name}"'

    def security(self) -> Any:
        """Return what a client needs."""
        from distributed import Security

        return Security(
            require_encryption=True,
            tls_ca_file=str(self.certificate),
            tls_client_cert=str(self.certificate),
            tls_client_key=str(self.key),
        )
