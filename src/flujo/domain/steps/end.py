"""`end`: ends a blueprint or a body before its last step, with an output or with a failure."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar

from flujo.domain import values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, Ends
from flujo.domain.values import Text, Value, Valued
from flujo.exceptions import PipelineError


def _text(given: Any, where: str) -> Text:
    if not isinstance(given, str | Text):
        raise PipelineError(f"{where} is {given!r}; expected text")
    return given if isinstance(given, Text) else Text(given)


@node
class EndStep(BaseStep[Any, Any]):
    """Ends the pipeline or the body around it; the steps after it do not run."""

    kind: ClassVar[str] = "end"
    is_computed: ClassVar[bool] = True

    _: KW_ONLY
    of: Ends = takes(values.one_of("blueprint", "body"), default="blueprint")
    """What it ends: the pipeline that it is written in, or only the list of steps around it."""
    output: Takes[Valued, Value] = takes(values.value, default=None)
    """The output of what it ends, with placeholders; by default that of the step before."""
    fail: Takes[Text | str | None, Text | None] = takes(_text, default=None)
    """The message, with placeholders, with which the step fails; then it has no output and no `of`."""

    def _adapt(self, arguments: dict[str, Any]) -> None:
        if arguments["fail"] is None:
            return
        for key, usual in (("output", None), ("of", "blueprint")):
            if arguments[key] != usual:
                owner = self._owned_by(arguments).rstrip(": ")
                raise PipelineError(
                    f"{owner} has `fail` and `{key}`", hint=f"remove `{key}`: a failure has none"
                )

    @property
    def ends(self) -> Ends | None:
        """What it ends."""
        return None if self.fail is not None else self.of

    def summary(self) -> str:
        """Return what it ends, and with what."""
        if self.fail is not None:
            return f"fails: {self.fail}"
        what = "the blueprint" if self.of == "blueprint" else "the steps around it"
        given = "" if self.output is None else f" with {values.one_line(self.output)}"
        return f"ends {what}{given}"
