"""Whether a callable can be executed in another process."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from flujo.agents.function import FunctionAgent
from flujo.domain.executor import only_here
from flujo.exceptions import CallableError


def require_portable(target: str, fn: Any, where: str) -> None:
    """Refuse a callable that a worker cannot import by its name, or that needs objects of this process.

    Args:
        target: the name, `module:callable`.
        fn: the callable.
        where: which step or tool runs on which executor, for messages.

    Raises:
        CallableError: a worker cannot import it.
        PipelineError: it takes `context`.
    """
    module, _, name = target.partition(":")
    if module == "__main__" or not hasattr(fn, "__qualname__") or "<" in fn.__qualname__:
        raise CallableError(
            f"{where}, and `{target}` cannot be imported there: a worker imports `module:callable`",
            hint="move the callable to a module of the project, as a function with a name",
        )
    loaded = sys.modules.get(module) or importlib.import_module(module)
    if getattr(loaded, name, None) is not fn:
        raise CallableError(
            f"{where}, and `{target}` there is another object than the callable that is named",
            hint="name the callable as it is called in its module",
        )
    if callable(fn) and FunctionAgent(fn).wants_context:
        raise only_here(where, target)
