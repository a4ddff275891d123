"""An agent that answers from a script: for tests, of Flujo and of those who use it."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from flujo.domain.agents import Ask, Reply
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import AgentError


class ScriptedAgent:
    """Gives prepared answers, one an ask, and remembers what it was asked.

    Args:
        answers: values in the order of the asks, or a callable (sync or async) that is handed the `Ask` and
            returns one. A value that is an exception is raised; one that is a `Reply` is given as it is.
        usage: what each answer counts as, unless it is a `Reply` of its own.
        worst: what is reserved of a run's budget before each answer. Default: `usage`.
        model: the model id that replies name.
        wants_context: whether the engine hands each ask a context of its own.
    """

    def __init__(
        self,
        answers: Sequence[Any] | Callable[[Ask], Any],
        *,
        usage: Usage = NOTHING,
        worst: Usage | None = None,
        model: str | None = "scripted",
        wants_context: bool = False,
    ) -> None:
        self.answers = answers
        self.usage = usage
        self.worst = usage if worst is None else worst
        self.model = model
        self.wants_context = wants_context
        self.asked: list[Ask] = []

    @property
    def count(self) -> int:
        """How often it was asked."""
        return len(self.asked)

    async def ask(self, ask: Ask) -> Reply:
        """Return the next answer of the script.

        Raises:
            AgentError: the script has no answer left.
            UsageLimitExceeded: the run's budget has no room for the answer; it was not asked then.
        """
        if ask.meter is None or not self.worst:
            return await self._reply(ask)
        reserved = await ask.meter.reserve(self.worst)
        try:
            reply = await self._reply(ask)
        except BaseException:
            reserved.settle(NOTHING)
            raise
        reserved.settle(reply.usage)
        return reply

    async def _reply(self, ask: Ask) -> Reply:
        self.asked.append(ask)
        answer = self.answers(ask) if callable(self.answers) else self._next(self.answers)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Reply):
            return answer
        if ask.on_text is not None and isinstance(answer, str):
            await ask.on_text(answer)
        return Reply(output=answer, usage=self.usage, model=self.model)

    def _next(self, answers: Sequence[Any]) -> Any:
        if self.count > len(answers):
            raise AgentError(
                f"the script has {len(answers)} answers and was asked for number {self.count}",
                hint="add an answer, or look at `asked` for a step that asks more often than you expect",
            )
        return answers[self.count - 1]
