"""The open questions of all runs, as those who answer see them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flujo.domain import chains
from flujo.domain.paths import shown
from flujo.domain.questions import QuestionCursor, QuestionOrder, QuestionQuery, seen_digest
from flujo.domain.queues import RunKind
from flujo.domain.reach import EVERYWHERE
from flujo.domain.run import WAITS, PauseKind, RunQuery
from flujo.domain.wording import repr_short, suggest
from flujo.exceptions import SettingsError
from flujo.governance.sink import GATE
from flujo.services.given import choice, text_or_none, whole_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.questions import Escalation, OpenQuestion, QuestionClaim, Risk
    from flujo.domain.reach import Reach
    from flujo.domain.run import Pause
    from flujo.domain.store import StateStore
    from flujo.domain.usage import Usage
    from flujo.exceptions import FlujoError

KINDS = tuple(kind for kind in PauseKind if kind not in WAITS)
"""The kinds of pauses that ask a human."""

_SCANNED = 500
"""How many questions are read at once where a text is searched: the database may hold it encrypted."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question to a human, with its run."""

    run_id: str
    pipeline: str
    user_id: str | None
    metadata: Mapping[str, Any]
    queue: str | None
    usage: Usage
    """What the run had used when it paused."""
    pause: Pause
    claim: QuestionClaim | None
    """The person who works on it now."""
    escalation: Escalation | None
    risk: Risk
    """What a wrong answer can do."""
    digest: str
    """Stands for what is shown: an answer that was given to another digest is refused."""
    cursor: str
    """Its place in the list, from which `questions(cursor=…)` continues."""

    @property
    def step(self) -> str:
        """The step that asks, as pages and commands show it."""
        return shown(self.pause.pause_id)


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """An answer to one of several questions."""

    run_id: str
    pause_id: str
    answer: Any
    """JSON data that fits the question's `answer_schema`."""
    seen: str | None = None
    """The `digest` of the question that was shown."""


@dataclass(frozen=True, slots=True)
class AnswerOutcome:
    """What became of one of several answers."""

    answer: QuestionAnswer
    is_recorded: bool
    error: FlujoError | None = None
    """Why it cannot be recorded. Without one, nothing was recorded because of the other answers."""


def question_of(found: OpenQuestion, order: QuestionOrder = QuestionOrder.URGENCY) -> Question:
    """Return a question as those who answer see it."""
    run, pause = found.run, found.pause
    return Question(
        run_id=run.run_id,
        pipeline=run.pipeline,
        user_id=run.user_id,
        metadata=run.metadata,
        queue=None if run.queued is None else run.queued.queue,
        usage=run.usage,
        pause=pause,
        claim=found.claim,
        escalation=found.escalation,
        risk=found.risk,
        digest=seen_digest(run.run_id, pause),
        cursor=str(found.place(order)),
    )


def question_query(
    *,
    blueprint: Any = None,
    queue: Any = None,
    user_id: Any = None,
    metadata_filter: Any = None,
    kind: Any = None,
    run: str | None = None,
    claimed_by: Any = None,
    unclaimed: Any = False,
    order: Any = QuestionOrder.URGENCY,
    limit: Any = 100,
    cursor: Any = None,
    reach: Reach = EVERYWHERE,
) -> QuestionQuery:
    """Return the query of a list of questions, with the arguments as callers give them; `run` is a whole id.

    Raises:
        SettingsError: an argument has the wrong type, or a value that is not one of its choices.
    """
    runs = RunQuery(
        kinds=tuple(RunKind),
        pipeline=text_or_none(blueprint, "blueprint"),
        queue=text_or_none(queue, "queue"),
        user_id=text_or_none(user_id, "user_id"),
        metadata={} if metadata_filter is None else metadata_filter,
        chain=None if run is None else chains.first_of(run),
        reach=reach,
    )
    ordered = choice(QuestionOrder, order, "order")
    several = kind if isinstance(kind, list | tuple) else () if kind is None else (kind,)
    return QuestionQuery(
        runs=runs,
        kinds=tuple(map(_kind, several)),
        claimed_by=text_or_none(claimed_by, "claimed_by"),
        unclaimed=bool(unclaimed),
        order=ordered,
        limit=whole_number(limit, "limit"),
        after=None if cursor is None else _cursor(cursor, ordered),
    )


def _kind(given: Any) -> PauseKind:
    for kind in KINDS:
        if given == kind:
            return kind
    hint = suggest(str(given), [str(kind) for kind in KINDS], what="kinds")
    raise SettingsError(f"{repr_short(given)} is not a kind of question", hint=hint)


def _cursor(given: Any, order: QuestionOrder) -> QuestionCursor:
    try:
        found = QuestionCursor.parse(str(given))
    except ValueError:
        found = None
    if found is None or found.order is not order:
        raise SettingsError(
            f"{repr_short(given)} is not a cursor of a list by {order}",
            hint="pass the `cursor` of a question of the same list",
        )
    return found


async def listed_questions(store: StateStore, query: QuestionQuery, words: str | None) -> list[Question]:
    """Return the questions that match and, with `words`, show all of these words."""
    wanted = (words or "").casefold().split()
    if not wanted:
        return [question_of(each, query.order) for each in await store.open_questions(query)]
    found: list[Question] = []
    after = query.after
    while len(found) < query.limit:
        read = await store.open_questions(replace(query, after=after, limit=_SCANNED))
        listed = (question_of(each, query.order) for each in read)
        found += [each for each in listed if _shows(each, wanted)]
        if len(read) < _SCANNED:
            break
        after = read[-1].place(query.order)
    return found[: query.limit]


def _shows(question: Question, words: Sequence[str]) -> bool:
    """Return whether what is shown of a question has all words; masked text is not searched."""
    texts = (
        question.pause.message,
        question.run_id,
        question.pipeline,
        question.step,
        question.user_id or "",
    )
    shown_text = GATE.result("\n".join(texts)).casefold()
    return all(word in shown_text for word in words)
