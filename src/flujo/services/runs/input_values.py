"""Values of expressions that read the input of a run and nothing else, before the run begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flujo.domain.ports import Binding, Chain
    from flujo.domain.values import Expr


def value_of_input(expression: Expr, binding: Binding, data: Any) -> Any:
    """Return the value of an expression over `input`.

    Args:
        expression: the expression.
        binding: compiles it.
        data: the input, JSON data.

    Raises:
        ExpressionFailed: it has no value for this input.
        ExpressionSyntax: it does not parse.
    """
    known = {"input": data}

    def lookup(chain: Chain) -> Any:
        value: Any = known
        for name in chain:
            if not isinstance(value, dict):
                raise KeyError(name)
            value = value[name]
        return value

    return binding.evaluator(expression)(lookup)
