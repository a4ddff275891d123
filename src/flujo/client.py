"""Public client to list, show and answer runs: `from flujo.client import TaskClient`."""

from flujo.services.inspection.task_client import TaskClient

__all__ = ["TaskClient"]
