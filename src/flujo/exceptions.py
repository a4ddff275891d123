"""Every error of Flujo, drawn as a tree; each has a stable code, facts as attributes, and a hint.

FlujoError
├── SettingsError            FLJ6xx  settings, the environment, words on a command line
│   ├── InputRejected                the run's input does not fit the blueprint's input_schema
│   ├── LockMismatch                 the blueprint is not what flujo.lock holds
│   ├── LockUnreadable               flujo.lock itself is broken, or of another version
│   └── GitFailed                    git is missing, or knows no such revision
├── BlueprintError           FLJ1xx  a blueprint that does not pass its checks (carries diagnostics)
│   ├── ExpressionSyntax             an expression or a text cannot be read (offsets)
│   └── PipelineError                a pipeline written in Python has an error
├── CallableError            FLJ2xx  a `module:callable` that is not allowed or cannot be imported
├── AgentError               FLJ3xx
│   ├── ProviderUnavailable          the provider's package or key is missing
│   ├── ModelUnavailable             the model cannot be reached or does not answer
│   ├── ModelDigestMismatch          a model file is not the one that was published
│   ├── OutputRejected               the answer does not fit the output schema
│   ├── ArgumentsRejected            what a step hands to a callable does not fit its parameters
│   └── ResourcesMissing             a step takes `resources`, and the runner has none
├── EngineError              FLJ4xx
│   ├── StepFailed                   foreign code raised (keeps the cause)
│   ├── StepTimeout
│   ├── ExpressionFailed
│   ├── NotJournalable               a value that JSON cannot hold
│   ├── SecretInValue                a value that contains a known secret
│   ├── LoopLimitReached
│   ├── NoBranch
│   ├── JournalConflict
│   ├── NotAvailableYet              a feature that has its place and not yet its body
│   ├── SyncInAsync                  `Flujo.run` called inside a running event loop
│   ├── RunnerClosed                 a runner was used after `aclose`
│   ├── MergeConflict                several branches wrote one field of the context
│   ├── NoTransition                 a state machine has nowhere to go
│   ├── TransitionLimitReached
│   ├── UnknownBranch                a router chose what is not there
│   ├── DeadlinePassed               a question was not answered in time
│   ├── CallInDoubt                  it is unknown whether a call took effect
│   ├── ProviderNotGiven             a reference names a state provider that the runner lacks
│   ├── ProviderFailed               a state provider does not answer
│   ├── ReferenceMissing             there is nothing under a reference's key
│   ├── ReferenceCorrupt             there is something else than what was stored
│   └── BudgetError                  the run's budget does not allow it
│       ├── UsageLimitExceeded           a limit has no room for the next request
│       ├── PriceUnknown                 the price of a request is unknown
│       └── AnswerUnbounded              the maximum response length, and so the cost, is unknown
└── StateError               FLJ5xx
    ├── StateBackendUnavailable      the database does not answer
    ├── StateBackendFull
    ├── SchemaOutdated               run `flujo migrate`
    ├── SchemaTooNew
    ├── CorruptState
    ├── RunNotFound
    ├── RunConflict                  the run id is taken by another closure or input
    ├── ResumeConflict               another process executes this run, or answered first
    ├── Fenced                       this process lost the run's lease
    ├── AmbiguousPause               several questions are open: say which
    ├── IllegalMove                  a run in this state cannot become that
    └── RunParked                    a run lost its process again and again, and waits for a human

ControlSignal                        not errors: how step code stops a run, politely
├── PausedException
└── PipelineAbortSignal
"""

from collections.abc import Mapping, Sequence
from inspect import get_annotations
from types import MappingProxyType
from typing import Any, ClassVar


class FlujoError(Exception):
    """The root: catch it to catch everything that Flujo reports as an error.

    Args:
        message: what is wrong, and where.
        hint: what to do; the class's own when it is None.
        facts: what else is known. The ones that the class declares below become attributes; all are in
            `facts`. A fact that is not declared never becomes an attribute, so none can hide another one.
    """

    code: str = "FLJ400"
    hint: str | None = None
    retryable: bool = False
    """Whether another attempt may succeed although nothing is changed."""

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint
        self.facts = facts
        for name in facts.keys() & self._declared:
            setattr(self, name, facts[name])

    _declared: ClassVar[frozenset[str]] = frozenset({"retryable"})

    def __init_subclass__(cls) -> None:
        cls._declared = cls._declared | get_annotations(cls).keys()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.hint, self.facts))

    def __str__(self) -> str:
        return self.message


def _rebuild(kind: type[FlujoError], message: str, hint: str | None, facts: dict[str, Any]) -> FlujoError:
    return kind(message, hint=hint, **facts)


class SettingsError(FlujoError):
    """A setting, an environment variable or an option has a value that cannot be used."""

    code = "FLJ600"
    file: str | None = None
    line: int | None = None
    key: str | None = None
    path: str | None = None
    variable: str | None = None


class InputRejected(SettingsError):
    """The run's input does not fit the blueprint's `input_schema`."""

    code = "FLJ601"
    field: str | None = None


class LockMismatch(SettingsError):
    """The blueprint or one of its parts is not what `flujo.lock` holds."""

    code = "FLJ650"
    differences: tuple[str, ...] = ()
    hint = (
        "see what differs with `flujo lock verify`; write the lock again with `flujo lock` once it is tested"
    )


class LockUnreadable(SettingsError):
    """`flujo.lock` is broken, cut off, in the middle of a merge, or of another version; `line` says where."""

    code = "FLJ651"


class GitFailed(SettingsError):
    """Git is not installed, the project is in no repository of it, or it knows no such revision."""

    code = "FLJ652"
    revision: str | None = None


class BlueprintError(FlujoError):
    """A blueprint does not pass its checks; `diagnostics` has every finding, with its place."""

    code = "FLJ100"
    diagnostics: tuple[Any, ...]
    sources: Mapping[str, str] = MappingProxyType({})
    """The texts that the diagnostics point into, by their file names."""

    def __init__(
        self, message: str, *, hint: str | None = None, diagnostics: Sequence[Any] = (), **facts: Any
    ) -> None:
        super().__init__(message, hint=hint, diagnostics=tuple(diagnostics), **facts)


class ExpressionSyntax(BlueprintError):
    """An expression or a text cannot be read; `start` and `end` are offsets into its source."""

    code = "FLJ199"
    expression: str = ""
    start: int = 0
    end: int = 0


class PipelineError(BlueprintError):
    """A pipeline written in Python has an error; its `code` is that of the same error in a blueprint."""

    code: str = "FLJ198"


class CallableError(FlujoError):
    """A `module:callable` is not allowed, cannot be imported, or is not callable."""

    code = "FLJ250"
    target: str | None = None


class AgentError(FlujoError):
    """An agent could not be built or did not answer."""

    code = "FLJ300"


class ProviderUnavailable(AgentError):
    """The provider's package is not installed, or its key is not in the environment."""

    code = "FLJ301"
    provider: str | None = None
    variable: str | None = None


class ModelUnavailable(AgentError):
    """The model cannot be reached, is unknown, or did not answer."""

    code = "FLJ302"
    model: str | None = None
    provider: str | None = None
    status: int | None = None


class ModelDigestMismatch(AgentError):
    """A model file on this machine is not the one that was published."""

    code = "FLJ303"
    path: str | None = None
    expected: str | None = None
    found: str | None = None


class OutputRejected(AgentError):
    """The answer of an agent or a callable does not fit the output schema."""

    code = "FLJ304"
    reason: str | None = None
    """Why, in words that a model can act on."""
    violations: tuple[str, ...] = ()
    validator: str | None = None
    path: str | None = None
    hint = "change what gives the value, or what it is held to"


class ArgumentsRejected(AgentError):
    """What a step hands to a callable does not fit the callable's parameters."""

    code = "FLJ305"
    callable: str | None = None
    parameter: str | None = None


class ResourcesMissing(AgentError):
    """A step takes the application's resources, and the runner has none."""

    code = "FLJ306"
    callable: str | None = None
    hint = (
        "give `Flujo(…, resources=MyResources(…))`, or say who makes them: `[project] resources = 'app:make'`"
    )


class EngineError(FlujoError):
    """A run could not go on."""

    code = "FLJ400"


class StepFailed(EngineError):
    """Code of yours raised inside a step; the cause is kept."""

    code = "FLJ401"
    hint = "`flujo --debug` shows where in your code; for transient errors set `config.max_retries`"


class JournalConflict(EngineError):
    """The journal holds another step or another decision at this path, so the run cannot resume from it."""

    code = "FLJ402"
    path: str = ""
    recorded: Any = None
    """What the journal holds there."""
    now: Any = None
    """What this execution has instead."""
    hint = "resume with the blueprint that this run was started with, or start a new run"


class StepTimeout(EngineError):
    """An attempt took longer than the step's `timeout_s`."""

    code = "FLJ403"
    retryable = True


class ExpressionFailed(EngineError):
    """An expression could not be evaluated on the values of this run."""

    code = "FLJ404"
    expression: str | None = None
    reason: str | None = None
    hint = "see what it reads with `flujo trace RUN`; guard what may be missing: `has(x.y)`, `get(x, 'y', z)`"


class NotJournalable(EngineError):
    """A value cannot be written as canonical JSON; `path` says where in the value."""

    code = "FLJ405"
    path: str = ""
    hint = "return JSON data: text, finite numbers, booleans, null, lists, and mappings with text keys"


class SecretInValue(EngineError):
    """A value that would be stored contains a known secret: a provider's key, or the password of a URL."""

    code = "FLJ416"
    hint = "keep the secret out of inputs, outputs and answers: read it from the environment where it is used"


class LoopLimitReached(EngineError):
    """A loop came to `max_iterations` before its `until` held."""

    code = "FLJ406"
    limit: int | None = None
    hint = "raise `max_iterations`, or say `on_limit: continue` and look at `steps.NAME.exhausted`"


class NoBranch(EngineError):
    """A `switch` has no branch for its value and no `default`."""

    code = "FLJ407"
    value: Any = None
    hint = "add the branch, or a `default:`"


class NotAvailableYet(EngineError):
    """The feature has its place in the tree; its implementation has not arrived."""

    code = "FLJ408"


class SyncInAsync(EngineError):
    """`Flujo.run` was called inside a running event loop."""

    code = "FLJ409"
    hint = "inside async code write `await runner.run_result_async(...)`"


class RunnerClosed(EngineError):
    """A runner was used after `aclose`."""

    code = "FLJ415"
    hint = "close a runner once, when the application shuts down; build another one to go on"


class MergeConflict(EngineError):
    """Several branches wrote one field of the context, and `merge` does not decide between them."""

    code = "FLJ411"
    field: str = ""
    branches: tuple[str, ...] = ()
    hint = "let one branch write it, let all append to it, or say which one counts: `field_mapping`, `merge`"


class NoTransition(EngineError):
    """A state machine is in a state that is not final, and no transition leads anywhere."""

    code = "FLJ412"
    state: str | None = None
    hint = "add a transition without `when` as the `else`, or name the state in `final`"


class TransitionLimitReached(EngineError):
    """A state machine made `max_transitions` transitions and came to no final state."""

    code = "FLJ413"
    limit: int | None = None
    hint = "raise `max_transitions`, or look at what its transitions wait for"


class UnknownBranch(EngineError):
    """A router chose an unknown branch, and did so again after it got the error."""

    code = "FLJ414"
    answer: Any = None
    hint = "a router answers with a list of names of branches, or with one name"


class DeadlinePassed(EngineError):
    """A question was not answered before its deadline, and `on_deadline` says that this fails the step."""

    code = "FLJ440"
    step: str | None = None
    hint = (
        "`flujo resume RUN --retry-failed` asks again; `on_deadline: {answer: …}` continues without an answer"
    )


class ProviderNotGiven(EngineError):
    """A reference asks for a state provider that the runner was not given."""

    code = "FLJ460"
    provider_id: str | None = None
    given: tuple[str, ...] = ()
    field: str | None = None


class ProviderFailed(EngineError):
    """A state provider could not read or write; the step is worth retrying."""

    code = "FLJ461"
    provider_id: str | None = None
    key: str | None = None
    hint = "try again when the storage answers: `config.max_retries`, or `flujo resume --retry-failed RUN`"
    retryable = True


class ReferenceMissing(EngineError):
    """A state provider has nothing under a reference's key."""

    code = "FLJ462"
    provider_id: str | None = None
    key: str | None = None
    field: str | None = None
    hint = "restore the file, then run `flujo resume --retry-failed RUN`"


class ReferenceCorrupt(EngineError):
    """A state provider has other bytes under a reference's key than were stored, or none of its type."""

    code = "FLJ463"
    provider_id: str | None = None
    key: str | None = None
    expected: str | None = None
    found: str | None = None
    hint = "restore the bytes that were stored, then run `flujo resume --retry-failed RUN`"


class CallInDoubt(EngineError):
    """A call may or may not have taken effect. A callable may raise it itself, when it cannot tell."""

    code = "FLJ441"
    key: str | None = None
    hint = "look on the other side under the call's key; `flujo resume RUN --retry-failed` calls anew"


class BudgetError(EngineError):
    """The run's budget does not allow a request, so it was not made."""

    code = "FLJ420"


class UsageLimitExceeded(BudgetError):
    """A limit has no room for what comes next; `limit`, `allowed`, `spent`, `needed` and `where` say more."""

    code = "FLJ421"
    limit: str | None = None
    step: str = ""
    """The path of the step that there is no room for."""
    budget: str = ""
    """The path of the part of the run whose budget it is; empty for the run's own."""
    allowed: Any = None
    spent: Any = None
    held: Any = None
    needed: Any = None
    where: tuple[Any, ...] = ()


class PriceUnknown(BudgetError):
    """There is a limit on cost, and the price of a request to this model is unknown."""

    code = "FLJ422"
    model: str | None = None
    hint = "use a model whose price is known, or let it be: `unknown_price: allow` counts its tokens alone"


class AnswerUnbounded(BudgetError):
    """Under a limit on cost or tokens nothing bounds how long an answer may become."""

    code = "FLJ423"
    model: str | None = None
    hint = "bound it in the agent: `model_settings: {max_tokens: 1000}`"


class StateError(FlujoError):
    """The journal could not be read or written."""

    code = "FLJ500"


class StateBackendUnavailable(StateError):
    """The database does not answer; the run stays resumable."""

    code = "FLJ501"
    retryable = True


class StateBackendFull(StateError):
    """The database has no room left; the run is resumable when there is room again."""

    code = "FLJ502"


class SchemaOutdated(StateError):
    """The database has an older schema than this Flujo needs."""

    code = "FLJ503"
    hint = "run `flujo migrate`"


class SchemaTooNew(StateError):
    """The database was migrated by a newer Flujo than this one."""

    code = "FLJ504"
    hint = "upgrade Flujo on this machine, or use another database"


class CorruptState(StateError):
    """A row is not what was written: its digest differs, or an entry is missing."""

    code = "FLJ505"
    run_id: str | None = None
    seq: int | None = None


class RunNotFound(StateError):
    """No run, or more than one, has this id or prefix."""

    code = "FLJ506"
    run_id: str | None = None
    candidates: tuple[str, ...] = ()
    hint = "`flujo tasks list` shows the runs"


class RunConflict(StateError):
    """The run id is taken by a run with another blueprint or another input."""

    code = "FLJ507"
    run_id: str | None = None


class ResumeConflict(StateError):
    """Another process is executing this run, or its question was answered already."""

    code = "FLJ508"
    run_id: str | None = None
    status: Any = None
    record: Any = None
    """The run as it is, where its id was taken by the same run."""
    owner: str | None = None
    lease_left_s: float | None = None
    won: str | None = None


class Fenced(StateError):
    """This process lost the run's lease, so its write was refused."""

    code = "FLJ509"
    run_id: str | None = None
    fence: int | None = None


class AmbiguousPause(StateError):
    """Several questions of this run are open; an answer has to name one."""

    code = "FLJ510"
    pauses: tuple[str, ...] = ()


class IllegalMove(StateError):
    """A run in this state cannot move to that one; nothing of the write was made."""

    code = "FLJ511"
    run_id: str | None = None
    status: Any = None


class RunParked(StateError):
    """A run lost its process several times in a row without finishing a step: it waits for a human."""

    code = "FLJ520"
    run_id: str | None = None
    recoveries: int | None = None


class ControlSignal(Exception):
    """Raised by step code to stop the run politely; never a failure."""


class PausedException(ControlSignal):
    """The run waits for a human; the pause is committed before this is raised."""

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class PipelineAbortSignal(ControlSignal):
    """Step code asks to stop the run; its status becomes `cancelled`."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
