"""Threads: conversations that several agents share.

A thread is the order of its exchanges, each named by the path of its step. The messages themselves are the
input and the output of that step's entries, so no message is stored twice. The threads of a scope are a part
of its context's tree: branches fork them, and an entry's patch has what a step or a composite added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import merge
from flujo.domain.fast_dataclass import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.merge import Op, Patch
    from flujo.domain.paths import StepPath

THREADS = "~threads"
"""The key of the threads in the tree of a context; no field of a context can have this name."""

HUMAN = "human"
"""The author of an answer that a human gave in place of an agent."""


@record(frozen=True, slots=True)
class Exchange:
    """What one step adds to a thread: its prompt, and its output as the answer of its agent."""

    author: str
    """The agent that answered."""
    prompt: str
    answer: str
    is_own: bool = False
    """Whether the reader of the thread is the author."""


def exchanges(tree: Any, thread: str) -> Sequence[StepPath]:
    """Return the paths of the steps that have added to a thread, in order."""
    named: Sequence[StepPath] = tree.get(THREADS, {}).get(thread, ())
    return named


def added(thread: str, path: StepPath) -> Op:
    """Return the operation of a patch that adds the exchange of the step at `path`."""
    return ["append", [THREADS, thread], [path]]


def is_of_threads(op: Op) -> bool:
    """Return whether an operation of a patch changes a thread, not a field."""
    return bool(op[1][0] == THREADS)


def only_fields(tree: Any) -> Any:
    """Return the fields of a context's tree, without its threads."""
    if THREADS not in tree:
        return tree
    return {name: value for name, value in tree.items() if name != THREADS}


def apart(tree: Any, patches: Mapping[str, Patch]) -> tuple[Mapping[str, Patch], Mapping[str, Patch]]:
    """Return the patches of several branches without the threads, and apart from them those of the threads.

    The second patches apply to a tree of threads alone, and set each thread that a branch has added to.
    """
    if not any(is_of_threads(op) for patch in patches.values() for op in patch):
        return patches, {}
    fields = {name: [op for op in patch if not is_of_threads(op)] for name, patch in patches.items()}
    threads: dict[str, Patch] = {}
    before = tree.get(THREADS, {})
    for name, patch in patches.items():
        after = merge.apply(tree, [op for op in patch if is_of_threads(op)]).get(THREADS, {})
        threads[name] = [["set", [each], paths] for each, paths in after.items() if paths != before.get(each)]
    return fields, threads
