"""An agent that answers from a script, for tests."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from flujo.domain.agents import Ask, Reply
from flujo.domain.usage import NOTHING, Usage
from flujo.domain.wording import plural
from flujo.exceptions import AgentError


class ScriptedAgent:
    """Returns prepared answers, one per `ask`, and records each `Ask` in `asked`.

    Args:
        answers: values in the order of the calls, or a callable (sync or async) that gets the `Ask` and
            returns a value. An exception is raised; a `Reply` is returned unchanged.
        usage: the usage of each answer that is not a `Reply`.
        worst: the usage that is reserved of a run's budget before each answer. Default: `usage`.
        model: the model id of the replies.
        wants_context: whether the engine passes a separate context to each call.
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
        """The number of calls so far."""
        return len(self.asked)

    async def ask(self, ask: Ask) -> Reply:
        """Return the next answer of the script.

        Raises:
            AgentError: the script has no answer left.
            UsageLimitExceeded: the run's budget has no room for the answer; the call is not recorded.
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
                f"the script has {plural(len(answers), 'answer')}, and this is call number {self.count}",
                hint="add an answer, or check `asked` for a step that calls more often than you expect",
            )
        return answers[self.count - 1]
