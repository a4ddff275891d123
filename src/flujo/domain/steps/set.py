"""`set`: writes values to the context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep
from flujo.domain.values import Value, Valued, mapping


@node
class SetStep(BaseStep[Any, Any]):
    """Writes values to fields of the context; its output is what it has written, by field."""

    kind: ClassVar[str] = "set"
    is_computed: ClassVar[bool] = True

    values: Takes[Mapping[str, Valued], Mapping[str, Value]] = takes(mapping)
    """The values by field, with placeholders; all of them see the context as it was before the step."""

    def summary(self) -> str:
        """Return the fields."""
        return f"sets {', '.join(self.values)} in the context"

    def writes(self) -> Iterator[tuple[str, str]]:
        """Yield its fields as well."""
        yield from super().writes()
        yield from (("set", name) for name in self.values)
