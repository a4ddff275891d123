"""The configuration of gunicorn: two workers are forked after the application was loaded, and log that they are ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

preload_app = True
workers = 2
control_socket_disable = True  # its path is the same for every test

READY, LEAVING = "Worker is ready", "Autorestarting worker"
"""What the log has for each worker that can receive a signal, and for each that reached its limit of requests."""


def post_worker_init(worker: Worker) -> None:
    """Log that the handlers of signals are in place; a signal that comes earlier is lost."""
    worker.log.info(READY)
