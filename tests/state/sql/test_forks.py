"""A forked child cannot reach the sockets of its parent, and leaves them open."""

from __future__ import annotations

import socket

from flujo.state.sql import forks


class Connection:
    """What `keep_apart` needs of a driver's connection."""

    closed = False

    def __init__(self, wire: socket.socket) -> None:
        self.wire = wire

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self.wire.fileno()


def test_a_connection_of_the_parent_is_silenced_and_stays_open() -> None:
    wire, server = socket.socketpair()
    of_parent, connection = wire.dup(), Connection(wire)
    forks.keep_apart([connection])
    of_parent.sendall(b"from the parent")
    assert server.recv(64) == b"from the parent"
    assert connection in forks.inherited
    forks.inherited.remove(connection)
    for each in (wire, server, of_parent):
        each.close()
