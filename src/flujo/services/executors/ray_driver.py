"""The process between a run and a Ray cluster: `python -m flujo.services.executors.ray_driver`.

Ray's client library ends its process when the cluster is gone, takes its signal handlers, and knows one
cluster for a whole process. So it lives in a process of its own, and this is the only home of the package
`ray`. It reads requests from its standard input and writes what happens to its standard output, as JSON in
the frames of `process_worker`. When its input ends, it leaves the cluster, which kills what was under way.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from base64 import b64decode
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from tempfile import NamedTemporaryFile
from textwrap import shorten
from typing import IO, TYPE_CHECKING, Any

import ray
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flujo.domain.wording import reason
from flujo.services.executors.process_worker import read_frame, write_frame
from flujo.services.executors.ray_worker import about_worker, execute_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

_LOOK_S = 1.0
"""How often the nodes of the cluster are read."""
_REFUSALS = 3
"""How many times in a row the head may refuse a connection before it is gone."""
_REACH_S = 3.0
"""How long the head may take to accept a connection."""
_SILENCES = 30
"""How many looks may pass without an answer of the head before it is gone, after 30 s."""
_PLACE = re.compile(r"\(pid=(?P<pid>\d+), ip=(?P<ip>[^\s,)]+)")
"""How a traceback of Ray names its worker."""
_ABOUT_S = 20.0
"""How long the workers may take to say which versions they have."""


def main() -> None:
    """Connect, and serve requests until the input ends."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints must not be read as a frame
    events: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_write, args=(events, output), daemon=True).start()
    request = read_frame(sys.stdin.buffer)
    if request is not None:
        driver = _Driver(events, json.loads(request))
        if driver.connect():
            threading.Thread(target=driver.watch, daemon=True).start()
            while (request := read_frame(sys.stdin.buffer)) is not None:
                driver.take(json.loads(request))
            ray.shutdown()
        else:
            read_frame(sys.stdin.buffer)  # until it was read why
    os._exit(0)


def _write(events: SimpleQueue[dict[str, Any]], output: IO[bytes]) -> None:
    """Tell what happens, until the cluster cannot be used any more: then this process ends."""
    event: dict[str, Any] = {}
    while "gone" not in event:
        event = events.get()
        write_frame(output, json.dumps(event).encode())
    os._exit(1)


class _Driver:
    """A connection to a cluster.

    Args:
        events: what goes to the process of the run.
        first: its first request: the address of the head, None for the cluster of this host; the project; and
            the modules that the workers are sent, a zip file as Base64, None if they have them.
    """

    def __init__(self, events: SimpleQueue[dict[str, Any]], first: dict[str, Any]) -> None:
        self._events = events
        self._address: str | None = first["address"]
        self._project: bytes = first["project"].encode()
        self._code: str | None = first["code"]
        self._head = ("", 0)
        self._silences = 0
        """How many looks have passed since the head has answered."""
        self._refs: dict[int, ray.ObjectRef[Any]] = {}
        # Ray repeats nothing: neither after the loss of a worker, nor to make a lost result anew.
        self._execute = ray.remote(max_retries=0, retry_exceptions=False)(execute_all)
        self._about = ray.remote(max_retries=0, num_cpus=0)(about_worker)

    def connect(self) -> bool:
        """Connect, and tell the nodes; or tell why not, and return False."""
        try:
            address = _head_of(self._address)
            host, _, port = address.rpartition(":")
            self._head = (host, int(port))
            socket.create_connection(self._head, timeout=_REACH_S).close()
            with _sent(self._code) as environment:
                ray.init(
                    address=address,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    runtime_env=environment,
                )
        except (OSError, ValueError, RuntimeError, RayError) as error:
            kind = "differs" if "ersion mismatch" in str(error) else "unavailable"
            self._events.put({kind: _text(error)})
            return False
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN
        )  # at a shutdown of the host, the run decides when to stop
        self._events.put({"nodes": _nodes()})
        return True

    def watch(self) -> None:
        """Tell the nodes whenever they change, and end this process when the head or its own node is gone.

        The library would wait for the head for a minute, and for its own node forever.
        """
        threading.Thread(target=self._listen, daemon=True).start()
        own = ray.get_runtime_context().get_node_id()
        before, refusals = _nodes(), 0
        while True:
            time.sleep(_LOOK_S)
            try:
                socket.create_connection(self._head, timeout=_REACH_S).close()
                refusals = 0
            except ConnectionRefusedError:
                refusals += 1
            except OSError:
                continue  # it may be slow: `_listen` waits for it
            if refusals == _REFUSALS or (not refusals and own not in _living()):
                os._exit(1)
            if refusals:
                continue
            if (nodes := _nodes()) != before:
                before = nodes
                self._events.put({"nodes": nodes})
            self._silences = 0

    def _listen(self) -> None:
        """Count the looks without an answer: of a network that is cut the library may learn nothing."""
        while self._silences < _SILENCES:
            time.sleep(_LOOK_S)
            self._silences += 1
        self._events.put({"gone": f"its head has not answered for {_SILENCES * _LOOK_S:g} s"})

    def take(self, request: dict[str, Any]) -> None:
        """Serve a request: execute a batch, cancel one, or say what the workers have."""
        if "units" in request:
            self._begin(request["batch"], request["units"], *request["needs"])
        elif "cancel" in request:
            ref = self._refs.get(request["cancel"])
            if ref is not None:
                ray.cancel(ref, force=True)  # a callable cannot be stopped otherwise
        else:
            threading.Thread(target=self._tell_about, daemon=True).start()

    def _begin(self, batch: int, units: list[str], cpu: float, gpu: float, memory: int) -> None:
        execute = self._execute.options(num_cpus=cpu, num_gpus=gpu, memory=memory or None)
        ref = self._refs[batch] = execute.remote(
            [unit.encode() for unit in units], self._project, self._code is not None
        )
        ref.future().add_done_callback(partial(self._end, batch))

    def _end(self, batch: int, answers: Future[list[bytes]]) -> None:
        self._refs.pop(batch, None)
        event: dict[str, Any] = {"batch": batch}
        error = answers.exception()
        if error is None:
            event["answers"] = [answer.decode() for answer in answers.result()]
        elif isinstance(error, RuntimeEnvSetupError) or "failed to import" in str(error):  # it never began
            event |= {"differs": _text(error), "place": _place(error)}
        else:
            event["lost"] = _text(error)
        self._events.put(event)

    def _tell_about(self) -> None:
        """Tell the versions and hosts of the workers, of those nodes that answer in time."""
        places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in _nodes()]
        refs = [self._about.options(scheduling_strategy=place).remote() for place in places]
        try:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=_ABOUT_S)
            self._events.put({"about": ray.get(ready)})
        except (RayError, ValueError) as error:
            self._events.put({"about": [], "problem": _text(error), "place": _place(error)})


def _head_of(address: str | None) -> str:
    """Return `HOST:PORT` of the head: at an address, or of the cluster of this host if there is none.

    Ray has no public function for this, apart from connecting, which ends this process when no head answers.

    Raises:
        ConnectionError: there is no cluster on this host, or there are several.
    """
    return canonicalize_bootstrap_address_or_die(address or "auto")


@contextmanager
def _sent(code: str | None) -> Iterator[dict[str, Any] | None]:
    """Yield the environment of workers that are sent modules, for the upload; None if they have them."""
    if code is None:
        yield None
        return
    with NamedTemporaryFile(suffix=".zip") as file:
        file.write(b64decode(code))
        file.flush()
        yield {"working_dir": file.name}


def _living() -> dict[str, dict[str, float]]:
    """Return the resources of each node that is there, by its id."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}


def _nodes() -> dict[str, list[float]]:
    """Return the cores, GPUs and bytes of memory of each node that can execute something."""
    return {
        node: [float(has.get(name, 0)) for name in ("CPU", "GPU", "memory")]
        for node, has in _living().items()
        if has.get("CPU")
    }


def _place(error: BaseException) -> str:
    """Return which worker has raised an error, if its text names one."""
    found = _PLACE.search(str(error))
    return f" on {found['ip']} (pid {found['pid']})" if found else ""


def _text(error: BaseException) -> str:
    """Return the last line of a worker's traceback, or why else something failed."""
    last = str(error).strip().splitlines()[-1:] if isinstance(error, RayTaskError) else None
    return shorten(last[0] if last else reason(error), 180, placeholder=" …")


if __name__ == "__main__":
    main()
