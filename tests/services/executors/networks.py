"""Two networks with a router between them, as namespaces of the kernel: each program of a test is in one of them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import Self

HERE, THERE = 1, 2
"""The two networks."""


def why_not() -> str | None:
    """Return why this host allows no namespaces; None if it does."""
    for program in ("ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"no program `{program}`"
    done = subprocess.run(
        ["unshare", "-n", "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1"],
        capture_output=True,
        check=False,
        text=True,
    )
    return None if done.returncode == 0 else done.stderr.strip()


def address(network: int) -> str:
    """Return the address of the host in a network."""
    return f"10.77.{network}.2"


@dataclass(frozen=True)
class _Space:
    """A namespace, which is there as long as a process in it."""

    keeper: subprocess.Popen[bytes]

    @classmethod
    def made(cls) -> _Space:
        pipe = subprocess.PIPE
        space = cls(subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; cat"], stdin=pipe, stdout=pipe))
        assert space.keeper.stdout is not None
        space.keeper.stdout.readline()
        return space

    @property
    def enter(self) -> list[str]:
        """The words before a command that is executed in it."""
        return ["nsenter", "-t", str(self.keeper.pid), "-n"]

    def sh(self, line: str) -> None:
        """Execute a line in it."""
        subprocess.run([*self.enter, "sh", "-c", line], check=True)


class Networks:
    """The networks, which end with this process. A cut drops packets in silence, and neither end learns of it."""

    def __enter__(self) -> Self:
        self._router, *ends = (_Space.made() for _ in range(3))
        self._ends = dict(zip((HERE, THERE), ends, strict=True))
        self._router.sh("echo 1 > /proc/sys/net/ipv4/ip_forward")
        for network, end in self._ends.items():
            self._router.sh(
                f"ip link add n{network} type veth peer name eth0 netns {end.keeper.pid} && "
                f"ip addr add 10.77.{network}.1/24 dev n{network} && ip link set n{network} up"
            )
            end.sh(
                f"ip link set lo up && ip addr add {address(network)}/24 dev eth0 && ip link set eth0 up && "
                f"ip route add default via 10.77.{network}.1"
            )
        return self

    def enter(self, network: int) -> list[str]:
        """Return the words before a command that is executed in a network."""
        return self._ends[network].enter

    def cut(self, *towards: int) -> None:
        """Drop what is sent towards a network: both, if none is named."""
        for network in towards or (HERE, THERE):
            self._router.sh(f"ip route add blackhole {address(network)}/32")

    def repair(self) -> None:
        """Let every packet pass."""
        for network in (HERE, THERE):
            self._router.sh(f"ip route del blackhole {address(network)}/32 2>/dev/null || true")

    def __exit__(self, *_: object) -> None:
        for space in (self._router, *self._ends.values()):
            space.keeper.kill()
            space.keeper.communicate()
