"""Every error of Flujo, drawn as a tree; each has a stable code, facts as attributes, and a hint.

FlujoError
├── SettingsError            FLJ6xx  settings, the environment, words on a command line
│   ├── TelemetryUnavailable         flujo.toml names a collector, and the extra `otel` is not installed
│   ├── NamesUnavailable             names are masked, and the extra `pii` is not installed
│   ├── PseudonymsNeedKeys           personal data is tokenised, and the database has no key for it
│   ├── KeyRingError                 the keys that encrypt the database are missing or malformed
│   ├── InputRejected                the run's input does not match the blueprint's input_schema
│   ├── EvaluatorUnknown             flujo.toml has no evaluator with this name
│   ├── RatingRefused                a score is not from 0 to 1, or scores a step that a run does not have
│   ├── ErasureRefused               a run of a person to erase is executed, or waits
│   ├── AccessDenied                 a principal has no right to do this
│   ├── TokenRefused                 an API token is unknown, expired or revoked
│   ├── TokenExists                  the name of a token is taken
│   ├── RequestRefused               a request to the server has a part that cannot be used
│   │   ├── BodyTooLarge                 its body is larger than the server takes
│   │   ├── MediaTypeRefused             its body is of a type that the server does not take
│   │   ├── WebhookNotSigned             it is not signed with the secret of its webhook
│   │   ├── WebhookTooOld                it is signed, and its timestamp is not of now
│   │   └── WebhookUnknown               there is no webhook of this name
│   ├── LoginMissing                 others could reach the server, and it has no login
│   ├── LoginRequired                a request does not say who sends it
│   ├── LoginRefused                 the name or the password of a login is wrong
│   ├── OriginRefused                a request may come from another site
│   ├── TooManyRequests              too many logins or changes in a short time
│   ├── CasesRefused                 a run cannot become a case, or a file cannot be extended
│   ├── LockMismatch                 the blueprint differs from flujo.lock
│   ├── ProjectNotTrusted            another user of this machine controls the project
│   ├── LockUnreadable               flujo.lock is corrupt, or has another format version
│   └── GitFailed                    git is missing, or the revision does not exist
├── BlueprintError           FLJ1xx  a blueprint that does not pass its checks (carries diagnostics)
│   ├── ExpressionSyntax             an expression or a text cannot be read (offsets)
│   ├── PipelineError                a pipeline written in Python has an error
│   └── CasesInvalid                 a file of cases has errors
├── CallableError            FLJ2xx  a `module:callable` that is not allowed or cannot be imported
├── AgentError               FLJ3xx
│   ├── ProviderUnavailable          the provider's package or key is missing
│   ├── ModelUnavailable             the model cannot be reached or does not answer
│   ├── ModelDigestMismatch          a model file differs from the published one
│   ├── OutputRejected               the answer does not match the output schema
│   │   └── OutputTruncated          the answer was cut off at a limit of its length
│   ├── ArgumentsRejected            a step's arguments do not match the callable's parameters
│   ├── ResourcesMissing             a step takes `resources`, and the runner has none
│   ├── SecretNotSet                 a tool needs a secret that is not in the environment
│   ├── TransactionRefused           a transactional tool cannot be called, or ends its transaction itself
│   └── CassetteMismatch             a cassette has no answer to what a blueprint asks
├── EngineError              FLJ4xx
│   ├── ScoreRejected                an evaluator answered something that is not a score
│   ├── StepFailed                   user code raised (keeps the cause)
│   ├── EndedInFailure               a `kind: end` step with `fail` ended the run
│   ├── StepTimeout
│   ├── ExpressionFailed
│   ├── NotJournalable               a value that JSON cannot hold
│   ├── SecretInValue                a value that contains a known secret
│   ├── NotCacheable                 a cached step depends on an object that cannot be compared
│   ├── LoopLimitReached
│   ├── TurnLimitReached             an agent gave no answer within `max_turns`
│   ├── HistoryLimitTooSmall         a conversation does not fit into `history.max_tokens`
│   ├── EndedInFailure               a step of kind `end` has ended the run with `fail`
│   ├── NoBranch
│   ├── JournalConflict
│   │   ├── AgentChanged             the agent is not the one that a conversation began with
│   │   └── ReplayDiverged           a replay computes something else than the run has recorded
│   ├── NotAvailableYet              the feature is not implemented yet
│   ├── SyncInAsync                  `Flujo.run` called inside a running event loop
│   ├── RunnerClosed                 a runner was used after `aclose`
│   ├── MergeConflict                several branches wrote one field of the context
│   │   └── ThreadConflict               several branches added to one thread
│   ├── NoTransition                 no transition leads out of a state that is not final
│   ├── TransitionLimitReached
│   ├── UnknownBranch                a router chose a branch that does not exist
│   ├── AgentNotListed               an expression chose an agent that the step does not list
│   ├── DeadlinePassed               a question was not answered in time
│   ├── CallInDoubt                  it is unknown whether a call took effect
│   ├── NotSent                      a call has not reached the other side
│   ├── ExecutorError                an executor of flujo.toml did not execute a callable
│   │   ├── ExecutorUnavailable          there is no executor at its address (also `NotSent`)
│   │   ├── ResourcesUnavailable         no worker has what a step needs (also `NotSent`)
│   │   ├── CodeDiffers                  a worker has other code than the run's process (also `NotSent`)
│   │   ├── WorkerLost                   a worker was gone before the result arrived
│   │   └── ResultRefused                the result of a callable cannot leave its worker
│   ├── McpServerFailed              an MCP server cannot be started or reached
│   ├── McpCallFailed                a call of a tool of an MCP server failed, or its response was lost
│   ├── ProviderNotGiven             a reference names a state provider that the runner lacks
│   ├── ProviderFailed               a state provider does not answer
│   ├── ReferenceMissing             a state provider has no value under a reference's key
│   ├── ReferenceCorrupt             the value under a reference's key differs from the stored one
│   ├── FileNotTaken                 a model does not take files of a type
│   ├── FileRefused                  a file cannot or must not be sent to a model
│   ├── ToolDenied                   a tool is not on the list of allowed tools
│   └── BudgetError                  the run's budget does not allow the request
│       ├── UsageLimitExceeded           a limit has no room for the next request
│       │   └── SharedBudgetExceeded         a budget of several runs has none
│       ├── TaskUnderLimit               a step runs in the background under a limit
│       ├── PriceUnknown                 the price of a request is unknown
│       └── AnswerUnbounded              the maximum response length, and so the cost, is unknown
└── StateError               FLJ5xx
    ├── StateBackendUnavailable      the database does not answer
    │   └── ServerUnavailable            the server that a client of the API uses does not answer
    ├── StateBackendFull
    ├── SchemaOutdated               run `flujo migrate`
    ├── SchemaTooNew
    ├── CorruptState
    ├── KeyMissing                   a value is encrypted with a key that this process does not have
    ├── WrongKey                     a value is encrypted with another key than the one of its id
    ├── RunNotFound
    ├── ChangesRefused               a run cannot continue with a changed blueprint
    ├── RunConflict                  the run id is taken by a run with another identity
    ├── ResumeConflict               another process executes this run, or answered first
    │   ├── QuestionChanged          another question is open than the one that was shown
    │   └── QuestionClaimed          another person works on the question
    ├── Fenced                       this process lost the run's lease
    ├── AmbiguousPause               several questions are open: name one
    ├── WrongPauseKind               the command is for another kind of pause
    ├── IllegalMove                  the run's state does not allow this transition
    ├── DatabaseMissing              the SQLite file does not exist, and the command creates none
    ├── QueueUnknown                 a queue is neither `default` nor in the settings
    ├── StartFailed                  no worker could start the run: it is parked
    ├── ScheduleNotFound
    ├── ScheduleConflict             the files, the database or another schedule differ
    ├── ScheduleBusy                 an earlier run of the schedule has not ended
    ├── WaitTimedOut                 the run has not ended within the time that a caller waits
    ├── RunDeadlinePassed            the run has not ended before its own deadline
    ├── MessageNotFound              no message of the outbox has this id
    ├── EventConflict                the id of an event is taken by another event
    ├── EventRefused                 the run cannot take the event
    ├── ExportDamaged                the file of an exported run is not as it was written
    ├── ExportTooNew                 a newer Flujo wrote the file of an exported run
    ├── ExportMasked                 a secret is masked in what an exported run executes
    ├── CassetteDamaged              a cassette cannot be read, or something in it is wrong
    ├── CassetteTooNew               a newer Flujo wrote the cassette
    ├── CassetteRefused              a run cannot be made a cassette
    ├── ForkPointMissing             a run has not reached the path at which it is forked
    ├── ForkRefused                  the run cannot be forked now, or not in this way
    └── RunParked                    the run lost its process too often and needs a human

ControlSignal                        not errors: step code stops a run with them
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
        hint: what to do. Default: the hint of the class.
        facts: further details, all kept in `facts`. Those that the class declares also become attributes;
            others do not, so that no fact can replace another attribute.
    """

    code: str = "FLJ400"
    hint: str | None = None
    retryable: bool = False
    """Whether another attempt may succeed without any change."""

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
    """A setting, an environment variable or an option has an unusable value."""

    code = "FLJ600"
    file: str | None = None
    line: int | None = None
    key: str | None = None
    path: str | None = None
    variable: str | None = None


class TelemetryUnavailable(SettingsError):
    """flujo.toml names a collector for telemetry, and the packages that send to it are not installed."""

    code = "FLJ570"
    hint = "`pip install 'flujo[otel]'`, or set `enabled = false` in [telemetry]"


class NamesUnavailable(SettingsError):
    """`pii_strong` masks names, and the packages that find them are not installed."""

    code = "FLJ595"
    hint = "`pip install 'flujo[pii]'`, or unset FLUJO_GOVERNANCE_PII_STRONG and `pii_strong` in [governance]"


class PseudonymsNeedKeys(SettingsError):
    """Personal data is to be tokenised, and the database of runs encrypts nothing: it has no key."""

    code = "FLJ455"
    hint = (
        "`flujo keys new` prints a key; set FLUJO_STATE_KEYS to it, and write "
        '`[state] encryption = "FLUJO_STATE_KEYS"` in flujo.toml'
    )


class KeyRingError(SettingsError):
    """The variable that `[state] encryption` names is not set, or holds no usable keys."""

    code = "FLJ620"


class InputRejected(SettingsError):
    """The run's input does not match the blueprint's `input_schema`."""

    code = "FLJ601"
    field: str | None = None
    violations: tuple[str, ...] = ()
    """What does not fit the schema, each beginning with its place in the value."""


class EvaluatorUnknown(SettingsError):
    """No table `[evaluation.evaluators.NAME]` of flujo.toml has this name."""

    code = "FLJ605"
    evaluator: str | None = None


class RatingRefused(SettingsError):
    """A person rates a run with a number that is not from 0 to 1, or a step that the run has not reached."""

    code = "FLJ606"
    run_id: str | None = None


class ProjectNotTrusted(SettingsError):
    """Another user of this machine controls the project: its flujo.toml, its folder or its database."""

    code = "FLJ602"


class LockMismatch(SettingsError):
    """The blueprint or one of its parts differs from `flujo.lock`."""

    code = "FLJ650"
    differences: tuple[str, ...] = ()
    hint = "list the differences with `flujo lock verify`; once they are tested, update it with `flujo lock`"


class LockUnreadable(SettingsError):
    """`flujo.lock` is corrupt, has merge conflicts, or has another format version; `line` is the place."""

    code = "FLJ651"


class GitFailed(SettingsError):
    """Git is not installed, the project is not in a Git repository, or the revision does not exist."""

    code = "FLJ652"
    revision: str | None = None


class BlueprintError(FlujoError):
    """A blueprint does not pass validation; `diagnostics` holds every finding with its place."""

    code = "FLJ100"
    diagnostics: tuple[Any, ...]
    sources: Mapping[str, str] = MappingProxyType({})
    """The source texts of the diagnostics, by file name."""

    def __init__(
        self, message: str, *, hint: str | None = None, diagnostics: Sequence[Any] = (), **facts: Any
    ) -> None:
        super().__init__(message, hint=hint, diagnostics=tuple(diagnostics), **facts)


class ExpressionSyntax(BlueprintError):
    """An expression or a template has a syntax error; `start` and `end` are offsets into its source."""

    code = "FLJ199"
    expression: str = ""
    start: int = 0
    end: int = 0


class PipelineError(BlueprintError):
    """A pipeline written in Python has an error; its `code` is that of the same error in a blueprint."""

    code: str = "FLJ198"


class CasesInvalid(BlueprintError):
    """A file of cases has errors; `diagnostics` holds every finding with its place."""

    code = "FLJ480"


class ErasureRefused(SettingsError):
    """A run of a person who is to be erased is executed, or waits and no option says what happens to it."""

    code = "FLJ615"
    run_id: str | None = None


class CasesRefused(SettingsError):
    """A run cannot become a case, or a file of cases cannot be extended."""

    code = "FLJ610"
    run_id: str | None = None
    file: str | None = None


class AccessDenied(SettingsError):
    """The role of a principal does not have the right to do this."""

    code = "FLJ660"
    principal: str | None = None
    right: str | None = None


class TokenRefused(SettingsError):
    """An API token is unknown, has expired or was revoked."""

    code = "FLJ661"
    token: str | None = None
    hint = "`flujo tokens list` shows the tokens, `flujo tokens create NAME --role ROLE` creates one"


class TokenExists(SettingsError):
    """A token has this name, which acts refer to, so that no other one can have it."""

    code = "FLJ662"
    token: str | None = None
    hint = "choose another name; `flujo tokens list` shows those that are taken"


class RequestRefused(SettingsError):
    """A parameter, a header or the body of a request to the server cannot be used; nothing was changed."""

    code = "FLJ663"
    where: str = ""
    """The parameter, the header, or the place in the body: `limit`, `body.answer`."""
    hint = "`GET /api/v1/openapi.json` describes every request"


class BodyTooLarge(RequestRefused):
    """The body of a request is larger than the server takes; nothing was changed."""

    code = "FLJ664"
    limit: int = 0
    """In bytes."""


class MediaTypeRefused(RequestRefused):
    """The body of a request is of a media type that the server does not take; nothing was changed."""

    code = "FLJ665"


class WebhookNotSigned(RequestRefused):
    """A request to an incoming webhook is not signed with the secret of its table; nothing was changed."""

    code = "FLJ666"
    hint = "sign with the secret of [serve.hooks.NAME] by the rules of https://www.standardwebhooks.com"


class WebhookTooOld(RequestRefused):
    """A request to an incoming webhook is signed, and its timestamp is not of now; nothing was changed."""

    code = "FLJ668"
    hint = "sign each try with the current time, and check the clocks of both machines"


class WebhookUnknown(RequestRefused):
    """There is no incoming webhook of this name."""

    code = "FLJ669"
    hint = "the last part of the path is the NAME of a table [serve.hooks.NAME] in flujo.toml"


class LoginMissing(SettingsError):
    """`flujo serve` would listen where others can reach it, and has no login."""

    code = "FLJ670"
    hint = (
        "write [serve.users.NAME] with a hash from `flujo tokens hash-password`, or [serve.proxy], into "
        "flujo.toml, or listen on 127.0.0.1"
    )


class LoginRequired(SettingsError):
    """A request to `flujo serve` does not say who sends it: it has no session and no token that is valid."""

    code = "FLJ671"
    hint = "log in; a program sends `Authorization: Bearer TOKEN`"


class LoginRefused(SettingsError):
    """The name or the password of a login is wrong, or the person has no role."""

    code = "FLJ672"
    user: str | None = None


class OriginRefused(SettingsError):
    """A request may come from another site, or was sent to a host that `flujo serve` does not stand for."""

    code = "FLJ673"


class TooManyRequests(SettingsError):
    """A person, a program or an address has sent too many logins or changes in a short time."""

    code = "FLJ674"
    retry_after_s: int = 1


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
    retry_after_s: float | None = None
    """How long the provider asks to wait before the next request."""


class ModelDigestMismatch(AgentError):
    """A model file on this machine differs from the published one."""

    code = "FLJ303"
    path: str | None = None
    expected: str | None = None
    found: str | None = None


class OutputRejected(AgentError):
    """The answer of an agent or a callable does not match the output schema."""

    code = "FLJ304"
    reason: str | None = None
    """The reason, worded for the model that writes the next answer."""
    violations: tuple[str, ...] = ()
    validator: str | None = None
    path: str | None = None
    hint = "change the step that produces the value, or the schema or validator that rejects it"


class OutputTruncated(OutputRejected):
    """The answer of a model, or a tool call in it, was cut off at a limit of its length.

    A cut answer is never used, also if what is there could be read.
    """

    code = "FLJ307"
    max_tokens: int | None = None
    """The limit in the agent's settings; None if it is the provider's."""
    hint = "raise `max_tokens` in the agent's `model_settings`"


class ArgumentsRejected(AgentError):
    """A step's arguments do not match the callable's parameters."""

    code = "FLJ305"
    callable: str | None = None
    parameter: str | None = None


class ResourcesMissing(AgentError):
    """A callable has a `resources` parameter, and the runner has no resources."""

    code = "FLJ306"
    callable: str | None = None
    hint = (
        "in a program pass `Flujo(…, resources=MyResources(…))`; for `flujo run` and workers set "
        "`[project] resources = 'app:make'` in flujo.toml"
    )


class SecretNotSet(AgentError):
    """A tool needs a secret (`{secret: NAME}`) that is not in the environment, or too short to be hidden."""

    code = "FLJ465"
    secret: str | None = None
    """The name of the variable."""
    hint = "set the variable where Flujo runs; a value has at least 8 characters"


class TransactionRefused(AgentError):
    """A transactional tool cannot be called, or its transaction cannot be committed; nothing is written."""

    code = "FLJ466"
    hint = "write `def tool(…, connection)`, execute statements on it, and leave the commit to Flujo"


class CassetteMismatch(AgentError):
    """A cassette is of another blueprint, or it has no answer to a request or a call of this one."""

    code = "FLJ566"
    hint = "undo the change, or record the cassette again: `pytest --flujo-refresh FILE`"


class EngineError(FlujoError):
    """A run could not continue."""

    code = "FLJ400"


class ScoreRejected(EngineError):
    """An evaluator answered something else than a number from 0 to 1, a boolean, or a score with a reason."""

    code = "FLJ470"
    hint = "an evaluator returns a number from 0 to 1, a boolean, or `{score, reason}`"


class StepFailed(EngineError):
    """Code called by a step raised an exception, which is kept as the cause."""

    code = "FLJ401"
    hint = "`flujo --debug trace RUN STEP` shows the traceback; for transient errors set `config.max_retries`"


class EndedInFailure(EngineError):
    """A step of `kind: end` has failed, with the message of its `fail`."""

    code = "FLJ424"
    hint = "the blueprint decided so; `flujo resume RUN --retry-failed` evaluates the step again"


class JournalConflict(EngineError):
    """The journal holds another step or another decision at this path, so the run cannot resume from it."""

    code = "FLJ402"
    path: str = ""
    recorded: Any = None
    """The value in the journal."""
    now: Any = None
    """The value in this execution."""
    hint = "resume with the blueprint that this run was started with, or start a new run"


class StepTimeout(EngineError):
    """An attempt took longer than the step's `timeout_s`."""

    code = "FLJ403"
    retryable = True


class ExpressionFailed(EngineError):
    """An expression could not be evaluated with the values of this run."""

    code = "FLJ404"
    expression: str | None = None
    reason: str | None = None
    hint = "inspect the values with `flujo trace RUN`; guard optional ones: `has(x.y)`, `get(x, 'y', z)`"


class NotJournalable(EngineError):
    """A value cannot be written as canonical JSON; `path` is the place in the value."""

    code = "FLJ405"
    path: str = ""
    hint = "return JSON data: text, finite numbers, booleans, null, lists, and mappings with text keys"


class SecretInValue(EngineError):
    """A value that would be stored contains a known secret: a provider's key, or the password of a URL."""

    code = "FLJ416"
    hint = "keep secrets out of inputs, outputs and answers; read them from the environment where needed"


class NotCacheable(EngineError):
    """A cached step is executed every time, because it depends on an object that cannot be compared by value.

    The run does not fail: the reason is logged as a warning.
    """

    code = "FLJ417"


class LoopLimitReached(EngineError):
    """A loop reached `max_iterations` before its `until` was true."""

    code = "FLJ406"
    limit: int | None = None
    hint = "raise `max_iterations`, or set `on_limit: continue` and check `steps.NAME.exhausted`"


class TurnLimitReached(EngineError):
    """An agent reached `max_turns`, or the limit of a plain step, before it gave an answer."""

    code = "FLJ418"
    limit: int | None = None
    hint = "raise `max_turns`, or set `on_limit` to `finish` or `pause`; `flujo trace RUN` shows the turns"


class HistoryLimitTooSmall(EngineError):
    """The task and the newest turn of a `granular` step have more tokens than `history.max_tokens`."""

    code = "FLJ430"
    limit: int | None = None
    size: int | None = None
    """The estimated tokens of the messages that are never left out."""
    hint = "raise `history.max_tokens`, give the step a shorter input, or return less from its tools"


class AgentChanged(JournalConflict):
    """The agent of a `granular` step differs from the one that the recorded conversation began with."""

    code = "FLJ419"
    changed: tuple[str, ...] = ()
    """What differs: `model`, `instructions`, `output_schema`, `tool NAME`."""
    hint = (
        "undo the change, or continue with the changed agent: "
        "`flujo resume RUN --retry-failed --accept-changes`"
    )


class ReplayDiverged(JournalConflict):
    """A replay computes something else than the run has recorded; the run is unchanged."""

    code = "FLJ540"
    cause: str = ""
    """What differs: `decision`, `input`, `prompt`, `model`, `instructions`, `tools`, `output`, …"""
    expression: str = ""
    """Of a decision, the expression that decides."""
    hint = "undo the change, or replay the run with the files that it has pinned, without `--blueprint`"


class NoBranch(EngineError):
    """A `switch` has no branch for its value and no `default`."""

    code = "FLJ407"
    value: Any = None
    hint = "add the branch, or a `default:`"


class NotAvailableYet(EngineError):
    """The feature is not implemented yet."""

    code = "FLJ408"


class SyncInAsync(EngineError):
    """`Flujo.run` was called inside a running event loop."""

    code = "FLJ409"
    hint = "in async code use `await runner.run_result_async(...)`"


class RunnerClosed(EngineError):
    """A runner was used after `aclose`."""

    code = "FLJ415"
    hint = "close a runner once, when the application shuts down; to run more, create another runner"


class MergeConflict(EngineError):
    """Several branches wrote the same field of the context, and `merge` does not decide between them."""

    code = "FLJ411"
    field: str = ""
    branches: tuple[str, ...] = ()
    hint = "write it in one branch, append to it in all, or choose a value with `field_mapping` or `merge`"


class ThreadConflict(MergeConflict):
    """Several branches added to the same thread at once, and two conversations cannot become one."""

    code = "FLJ426"
    thread: str = ""
    hint = (
        "give each branch a thread of its own, or keep the messages of one branch, or of none: "
        "`merge: keep_first`, `merge: no_merge`"
    )


class NoTransition(EngineError):
    """A state machine is in a state that is not final, and no transition applies."""

    code = "FLJ412"
    state: str | None = None
    hint = "add a transition without `when` as the `else`, or name the state in `final`"


class TransitionLimitReached(EngineError):
    """A state machine made `max_transitions` transitions without reaching a final state."""

    code = "FLJ413"
    limit: int | None = None
    hint = "raise `max_transitions`, or check the conditions of its transitions"


class UnknownBranch(EngineError):
    """A router chose an unknown branch, and did so again after it received the error."""

    code = "FLJ414"
    answer: Any = None
    hint = "a router answers with one branch name, or with a list of branch names"


class AgentNotListed(EngineError):
    """The expression `by` of a step's agents has a value that is not the name of one of them."""

    code = "FLJ427"
    answer: Any = None
    listed: tuple[str, ...] = ()
    """The agents that the step may ask."""


class DeadlinePassed(EngineError):
    """A question was not answered before its deadline, and `on_deadline` fails the step."""

    code = "FLJ440"
    step: str | None = None
    hint = (
        "`flujo resume RUN --retry-failed` asks again; `on_deadline: {answer: …}` continues without an answer"
    )


class ProviderNotGiven(EngineError):
    """A reference names a state provider that the runner does not have."""

    code = "FLJ460"
    provider_id: str | None = None
    given: tuple[str, ...] = ()
    field: str | None = None


class ProviderFailed(EngineError):
    """A state provider could not read or write; retrying the step may succeed."""

    code = "FLJ461"
    provider_id: str | None = None
    key: str | None = None
    hint = "retry when the storage is available: `config.max_retries`, or `flujo resume --retry-failed RUN`"
    retryable = True


class ReferenceMissing(EngineError):
    """A state provider has no value under a reference's key."""

    code = "FLJ462"
    provider_id: str | None = None
    key: str | None = None
    field: str | None = None
    hint = "restore the file, then run `flujo resume --retry-failed RUN`"


class ReferenceCorrupt(EngineError):
    """The bytes under a reference's key differ from the stored ones, or do not fit the reference's type."""

    code = "FLJ463"
    provider_id: str | None = None
    key: str | None = None
    expected: str | None = None
    found: str | None = None
    hint = "restore the stored bytes, then run `flujo resume --retry-failed RUN`"


class FileNotTaken(EngineError):
    """A step sends a file of a type that its model does not take; the request was not made."""

    code = "FLJ435"
    hint = "use a model that takes such files, or send their content as text in `input:`"
    agent: str = ""
    model: str = ""
    file: str = ""
    media_type: str = ""


class FileRefused(EngineError):
    """A file in `files:` cannot or must not be sent: its place, its type, its size, or it cannot be read."""

    code = "FLJ436"
    file: str = ""


class McpServerFailed(EngineError):
    """An MCP server cannot be started or reached, or does not speak MCP."""

    code = "FLJ450"
    server: str | None = None
    retryable = True
    hint = "run its command by hand, or open its address; `[mcp.NAME]` in flujo.toml has both"


class McpCallFailed(EngineError):
    """A call of a tool of an MCP server failed, or its response was lost."""

    code = "FLJ451"
    server: str | None = None
    tool: str | None = None
    is_answer: bool = False
    """Whether the server has answered with an error; otherwise its response was lost."""


class CallInDoubt(EngineError):
    """A call may or may not have taken effect. A callable may raise this error when it cannot tell."""

    code = "FLJ441"
    key: str | None = None
    hint = "look up the call's key in the other system; `flujo resume RUN --retry-failed` sends it again"


class NotSent(EngineError):
    """A call has not reached the other side. A callable raises this error when it knows that.

    Under `enforce_idempotency` the attempt has failed, and the call is not in doubt.
    """

    code = "FLJ442"
    retryable = True
    hint = "read the message of the callable; `flujo resume RUN --retry-failed` calls it again"


class ExecutorError(EngineError):
    """An executor of flujo.toml did not execute a callable, or its result did not arrive."""

    code = "FLJ477"
    executor: str | None = None
    """Its name in flujo.toml."""


class ExecutorUnavailable(ExecutorError, NotSent):
    """There is no executor at its address, or it cannot be used; nothing was submitted."""

    code = "FLJ472"
    retryable = True
    hint = "`flujo doctor` checks each executor of flujo.toml"


class ResourcesUnavailable(ExecutorError, NotSent):
    """No worker of the executor has what a step needs; nothing was submitted."""

    code = "FLJ473"
    retryable = False
    hint = "lower `resources` of the step, or add a worker that has them"


class CodeDiffers(ExecutorError, NotSent):
    """A worker has loaded other code, another Python or another Flujo than the process of the run."""

    code = "FLJ474"
    retryable = False
    hint = "install the same code on all workers, restart them, then `flujo resume RUN --retry-failed`"


class WorkerLost(ExecutorError):
    """The worker was gone before the result arrived: the attempt was cut off, as by a crash."""

    code = "FLJ475"
    retryable = True
    hint = "it was often killed for its memory; a smaller `size` of the executor leaves more for each worker"


class ResultRefused(ExecutorError):
    """The result of a callable is not JSON, or too large to travel back."""

    code = "FLJ476"
    hint = "return JSON data; store large values with `await ContextReference.of(value)`, and return that"


class CallFailed(Exception):
    """A callable raised an exception on a worker. The class of the error has the name of the original."""

    original: str = ""
    """The full name of the class of the original."""
    frame: Any = None
    """Where the user's code raised it, a `domain.journal.CodeFrame`; None if that is not known."""
    traceback: str = ""
    """The traceback on the worker."""
    verdict: int = 3
    """What it says about a call with an effect; see `engine.failed_calls.Verdict`."""


class BudgetError(EngineError):
    """The run's budget does not allow a request, so it was not made."""

    code = "FLJ420"


class UsageLimitExceeded(BudgetError):
    """A limit does not allow the next request; see `limit`, `allowed`, `spent`, `needed` and `where`."""

    code = "FLJ421"
    limit: str | None = None
    step: str = ""
    """The path of the step that made the request."""
    budget: str = ""
    """The path of the step that sets the limit; empty for a limit of the run."""
    allowed: Any = None
    spent: Any = None
    held: Any = None
    needed: Any = None
    where: tuple[Any, ...] = ()


class SharedBudgetExceeded(UsageLimitExceeded):
    """A budget that several runs share has no room for the next request.

    `spent`, `held`, `needed` and `allowed` are amounts of `limit`, in dollars, tokens or requests.
    """

    code = "FLJ467"
    rule: str = ""
    """The name of the rule in flujo.toml."""
    scope: str = ""
    """Whose amount it is: a JSON object, empty when the rule has one amount for all its runs."""
    window_ends_at: int | None = None
    """When the next window begins: seconds since the epoch; None when there is none."""


class TaskUnderLimit(BudgetError):
    """A step runs in the background under a limit of the run, without a `budget` that the limit covers."""

    code = "FLJ283"


class PriceUnknown(BudgetError):
    """There is a limit on cost, and the price of a request to this model is unknown."""

    code = "FLJ422"
    model: str | None = None
    hint = "use a model with a known price, or set `unknown_price: allow` to count only its tokens"


class AnswerUnbounded(BudgetError):
    """There is a limit on cost or tokens, and the length of the answer is not limited."""

    code = "FLJ423"
    model: str | None = None
    hint = "limit it in the agent: `model_settings: {max_tokens: 1000}`"


class ToolDenied(EngineError):
    """A tool, or the callable of a step, is not on the list of allowed tools."""

    code = "FLJ468"
    tool: str = ""
    """The name by which models call it."""
    target: str = ""
    """The code behind it: `module:callable`, or `mcp:SERVER/TOOL`."""


class StateError(FlujoError):
    """The journal could not be read or written."""

    code = "FLJ500"


class StateBackendUnavailable(StateError):
    """The database does not answer; the run stays resumable."""

    code = "FLJ501"
    retryable = True


class ServerUnavailable(StateBackendUnavailable):
    """The server that a client of the API uses does not answer, or answers as no Flujo does."""

    code = "FLJ667"
    hint = "start it with `flujo serve`, or check the address"


class StateBackendFull(StateError):
    """The database is full; the run can be resumed when there is room again."""

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
    """A row is corrupt or missing: its digest differs, or an entry is not there."""

    code = "FLJ505"
    run_id: str | None = None
    seq: int | None = None


class KeyMissing(StateError):
    """A value in the database is encrypted with a key that this process does not have."""

    code = "FLJ621"
    key: str | None = None
    """The id of the key."""


class WrongKey(StateError):
    """A value in the database is encrypted with another key than the one that has its id here."""

    code = "FLJ622"
    key: str | None = None
    """The id of both keys."""


class RunNotFound(StateError):
    """No run, or more than one, has this id or prefix."""

    code = "FLJ506"
    run_id: str | None = None
    candidates: tuple[str, ...] = ()
    hint = "`flujo tasks list` shows the runs"


class ChangesRefused(StateError):
    """A run cannot continue with the changed blueprint: a recorded step is gone, or a decision differs."""

    code = "FLJ541"
    paths: tuple[str, ...] = ()
    """The recorded paths that are gone, and those of the decisions."""


class RunConflict(StateError):
    """The run id is taken by a run with another blueprint, input or initial context."""

    code = "FLJ507"
    run_id: str | None = None


class ResumeConflict(StateError):
    """Another process executes this run, or its question has been answered already."""

    code = "FLJ508"
    run_id: str | None = None
    status: Any = None
    record: Any = None
    """The run as stored, when the id belongs to a run with the same blueprint, input and initial context."""
    owner: str | None = None
    lease_left_s: float | None = None
    won: str | None = None
    """What settled the question before this answer: another `answer`, the `deadline`, or the `run` itself."""


class QuestionChanged(ResumeConflict):
    """The question was opened again since it was shown, so the answer was not recorded."""

    code = "FLJ676"
    hint = "read the question as it is now, and answer again"


class QuestionClaimed(ResumeConflict):
    """Another person has claimed the question. A claim ends after 15 minutes, and can be taken over."""

    code = "FLJ677"
    by: str | None = None
    until: float | None = None
    """When the claim ends, in seconds since the epoch."""
    hint = "ask that person, or confirm that you answer nevertheless"


class Fenced(StateError):
    """This process lost the run's lease, so its write was refused."""

    code = "FLJ509"
    run_id: str | None = None
    fence: int | None = None


class AmbiguousPause(StateError):
    """Several questions of this run are open; the answer must name one."""

    code = "FLJ510"
    pauses: tuple[str, ...] = ()


class WrongPauseKind(StateError):
    """A question cannot be resolved, and a call in doubt cannot be answered: each has its own command."""

    code = "FLJ512"
    pause_id: str = ""
    kind: str = ""


class IllegalMove(StateError):
    """The run's state does not allow this transition; nothing was written."""

    code = "FLJ511"
    run_id: str | None = None
    status: Any = None


class DatabaseMissing(StateError):
    """The SQLite database does not exist, and a command that only looks creates none."""

    code = "FLJ514"
    path: str | None = None


class ScheduleNotFound(StateError):
    """No schedule has this name."""

    code = "FLJ528"
    schedule: str | None = None
    hint = "`flujo schedules list` shows the schedules"


class ScheduleConflict(StateError):
    """The schedule in the database and the one in the files differ, or two schedules have one name."""

    code = "FLJ529"
    schedule: str | None = None


class ScheduleBusy(StateError):
    """An earlier run of the schedule has not ended, so no other one was started."""

    code = "FLJ530"
    schedule: str | None = None
    run_id: str | None = None


class WaitTimedOut(StateError, TimeoutError):
    """The run has not ended within the time that a caller waits for it; it is not stopped."""

    code = "FLJ513"
    run_id: str | None = None
    status: Any = None
    hint = "wait longer; `flujo trace RUN` shows what the run does"


class RunDeadlinePassed(StateError):
    """The run has not ended within the `deadline` of its pipeline, counted from its acceptance; it failed."""

    code = "FLJ531"
    run_id: str | None = None


class MessageNotFound(StateError):
    """No message of the outbox has this id."""

    code = "FLJ532"
    message_id: int | None = None
    hint = "`flujo notifications list` shows the messages"


class EventConflict(StateError):
    """The id of an event is taken by an event with another content; nothing was changed."""

    code = "FLJ525"
    event_id: str | None = None
    hint = "send each event with an id of its own; a repetition has the same id and the same content"


class EventRefused(StateError):
    """The run cannot take the event: it has ended, or none of its steps waits for this name."""

    code = "FLJ526"
    run_id: str | None = None
    event: str | None = None


class ExportDamaged(StateError):
    """The file of an exported run cannot be read, was cut off, or is not as it was written."""

    code = "FLJ560"
    file: str | None = None
    hint = "copy the file again, or export the run again with `flujo export RUN`"


class ExportTooNew(StateError):
    """The file of an exported run has a newer version than this Flujo reads."""

    code = "FLJ561"
    file: str | None = None
    version: int | None = None
    hint = "upgrade Flujo on this machine"


class ExportMasked(StateError):
    """A secret was masked in a pinned file or another content of an exported run, so no database takes it."""

    code = "FLJ562"
    run_id: str | None = None
    hint = "read the run from the file: `flujo trace FILE`; or pull it from its database"


class CassetteDamaged(StateError):
    """A cassette cannot be read, is not one, or something in it is missing or of another type."""

    code = "FLJ563"
    file: str | None = None
    hint = "correct the place, or save the cassette again with `flujo cassette save RUN`"


class CassetteTooNew(StateError):
    """A cassette has a newer version than this Flujo reads."""

    code = "FLJ564"
    file: str | None = None
    version: int | None = None
    hint = "upgrade Flujo on this machine"


class CassetteRefused(StateError):
    """A run cannot be made a cassette: it has not completed, or what a cassette needs is not recorded."""

    code = "FLJ565"
    run_id: str | None = None


class ForkPointMissing(StateError):
    """A run is forked at a path that it has not reached, or that does not exist."""

    code = "FLJ550"
    path: str | None = None


class ForkRefused(StateError):
    """A run cannot be forked now, or the fork cannot keep what it promises."""

    code = "FLJ551"
    run_id: str | None = None


class RunParked(StateError):
    """The run lost its process several times in a row without completing a step, and needs a human."""

    code = "FLJ520"
    run_id: str | None = None
    recoveries: int | None = None


class QueueUnknown(StateError):
    """The queue is neither `default` nor a table `[queues.NAME]` of the settings."""

    code = "FLJ521"
    queue: str | None = None


class StartFailed(StateError):
    """No worker could start the run, in as many tries as its queue allows; the run is parked."""

    code = "FLJ522"
    run_id: str | None = None
    tries: int | None = None


class ControlSignal(Exception):
    """Raised by step code to stop the run; not a failure."""


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
