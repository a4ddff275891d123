"""A Ray cluster on the loopback interface: `python ray_cluster.py FOLDER NETWORK`.

It has two nodes of one core, and prints a line of JSON: the address of the head, its process id and that of
its node. For each line of its standard input, a number of GPUs and variables as JSON, it starts a node and prints its
process id. It lives until the input ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any


def main(folder: str, network: str) -> None:
    """Start the nodes, each on an address of its own, and stop them at the end of the input."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder}
    from ray.cluster_utils import Cluster  # it reads the environment

    quick = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 300,
        "health_check_timeout_ms": 2000,
    }
    nodes = Nodes(Cluster(), network)
    node = nodes.start(include_dashboard=False, no_monitor=True, _system_config=quick)
    nodes.start(num_gpus=1)
    head = nodes.cluster.head_node.all_processes["gcs_server"][0].process.pid
    _say({"address": nodes.cluster.address, "head": head, "node": node})
    threading.Thread(target=nodes.reap, daemon=True).start()
    for line in sys.stdin:
        gpus, variables = json.loads(line)
        _say(nodes.start(num_gpus=gpus, env_vars=variables))
    nodes.cluster.shutdown()
    os.killpg(0, signal.SIGKILL)


class RayCluster:
    """A cluster of two nodes of one core; the second one has a GPU, for which this host needs none."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: paths of sockets have a limit
        network = f"127.{64 + os.getpid() // 256 % 128}.{os.getpid() % 256}"
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self.folder), network],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        told = self._told()
        self.address: str = told["address"]
        self.head: int = told["head"]
        self.node: int = told["node"]

    def _told(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def with_node(self, gpus: int, **variables: str) -> int:
        """Start another node, with variables for its workers, and return the id of its process."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([gpus, variables]) + "\n")
        self._process.stdin.flush()
        return int(self._told())

    def close(self) -> None:
        """Stop it."""
        self._process.communicate(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)


class Nodes:
    """Starts nodes of one core, each on an address of its own."""

    def __init__(self, cluster: Any, network: str) -> None:
        self.cluster = cluster
        self._network = network
        self._processes: list[Any] = []

    def start(self, **given: Any) -> int:
        """Start a node, and return its process id."""
        node = self.cluster.add_node(
            node_ip_address=f"{self._network}.{len(self._processes) + 1}",
            object_store_memory=80_000_000,
            include_log_monitor=False,
            num_cpus=1,
            **given,
        )
        process = node.all_processes["raylet"][0].process
        self._processes.append(process)
        return int(process.pid)

    def reap(self) -> None:
        """Wait for nodes that end: a worker ends when the process of its node is no longer there."""
        while True:
            for each in self._processes:
                each.poll()
            time.sleep(0.05)


def _say(told: Any) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
