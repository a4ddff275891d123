"""Checks before a run is accepted that the storage of runs can have the transactions of its tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.conversations import require_transaction
from flujo.domain.transactions import TransactionalStore

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding
    from flujo.domain.store import StateStore


def require_transactions(pipeline: Pipeline, binding: Binding, store: StateStore) -> None:
    """Refuse a pipeline with a transactional tool that cannot write to the storage of runs.

    An agent that is written by hand, and knows its tools only in a conversation, is checked when its step
    begins.

    Raises:
        TransactionRefused: names the step and the tool.
    """
    database = store if isinstance(store, TransactionalStore) else None
    for path, step in pipeline.walk():
        if step.kind == "granular":  # no other step records what a tool writes
            for agent in step.names():
                for tool in getattr(binding.agent(agent), "tools", {}).values():
                    require_transaction(path, tool, database)
