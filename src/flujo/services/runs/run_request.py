"""The request to start a run: its input and context are validated before anything is recorded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from flujo.domain import canonical
from flujo.domain.agents import AgentSpec
from flujo.domain.fast_dataclass import record
from flujo.domain.journal import RunId
from flujo.domain.models import PipelineContext
from flujo.domain.paths import shown
from flujo.domain.run import NewRun, pinned_entry, pinned_stubs
from flujo.domain.tools import called_tools
from flujo.domain.wording import listed, repr_short
from flujo.exceptions import InputRejected, OutputRejected, SettingsError
from flujo.governance.sink import GATE
from flujo.services.given import text_or_none
from flujo.services.runs.life_limits import life_of

if TYPE_CHECKING:
    from flujo.domain.models import Metadata
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding, Random
    from flujo.domain.run import RunRecord
    from flujo.services.workspace import Blueprint

IfExists = Literal["attach", "fail", "resume", "return"]

NEAR_S = 60.0
"""A wait that ends within this many seconds is waited for."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@record(frozen=True, slots=True)
class Request:
    """The arguments with which a caller starts a run.

    Args:
        input: JSON data that fits the pipeline's `input_schema`.
        context: fields of the context at the start.
        run_id: an id chosen by the caller; None for a generated one.
        metadata: flat facts to find the run by.
        if_exists: what to do when `run_id` exists already with the same pipeline, input and context.
        longest_wait_s: a run that waits no longer than this is continued by this process.
        is_case: whether the run is one case of a file of cases.
    """

    input: Any
    context: Mapping[str, Any] | None = None
    run_id: str | None = None
    metadata: Metadata | None = None
    if_exists: IfExists = "attach"
    longest_wait_s: float = NEAR_S
    is_case: bool = False

    async def new_run(
        self,
        pipeline: Pipeline,
        binding: Binding,
        closure: str,
        random: Random,
        lock_digest: str | None = None,
    ) -> NewRun:
        """Return the new run; `lock_digest` is the digest of the lock with its pipeline, if there is one.

        Raises:
            InputRejected: the input or the context does not fit, or the input gives the `deadline` no value.
            ProviderNotGiven | ProviderFailed | ReferenceMissing: the value of a reference cannot be read.
            SettingsError: `run_id` is not a valid id.
        """
        run_id = checked_run_id(self.run_id)
        given = entering_input(
            pipeline, declared(pipeline, binding, canonical.encode(self.input, what="input"))
        )
        encoded = GATE.admit(given, "input")
        fields = binding.context(pipeline)
        context = GATE.entering_fields(await fields.start(context_fields(self.context)), fields.pii)
        if self.if_exists not in get_args(IfExists):
            hint = f"pass {listed(get_args(IfExists), 'or')}"
            raise SettingsError(f"`if_exists` is {repr_short(self.if_exists)}", hint=hint)
        metadata = GATE.entering(dict(_checked_metadata(self.metadata)))
        GATE.admit(canonical.encode({"run_id": self.run_id or "", "metadata": metadata}), "metadata")
        user_id = context.get("user_id")
        return NewRun(
            run_id=run_id or random.run_id(),
            pipeline=pipeline.name,
            closure=closure,
            input=encoded,
            context=GATE.admit(canonical.encode(context, what="context"), "context"),
            metadata=metadata,
            user_id=user_id if isinstance(user_id, str) else None,
            lock_digest=lock_digest,
            is_case=self.is_case,
            life_s=life_of(pipeline, binding, canonical.decode(encoded)),
        )


def entering_input(pipeline: Pipeline, given: bytes) -> bytes:
    """Return an input, with personal data masked where its fields or the project declare it."""
    fields = pipeline.input_pii
    if not fields and not GATE.masks_values:
        return given
    return canonical.encode(GATE.entering_fields(canonical.decode(given), fields), what="input")


def checked_run_id(given: Any) -> RunId | None:
    """Return the id that a caller has chosen for a run; None when there is none.

    Raises:
        SettingsError: it is not a valid id.
    """
    run_id = text_or_none(given, "run_id")
    if run_id is not None and not _RUN_ID.fullmatch(run_id):
        raise SettingsError(
            f"{run_id!r} cannot be a run id",
            hint="use 1 to 128 letters, digits, `-`, `_` and `.`, beginning with a letter or a digit",
        )
    return RunId(run_id) if run_id else None


def _checked_metadata(metadata: Any) -> Mapping[str, Any]:
    if metadata is None or isinstance(metadata, Mapping):
        return metadata or {}
    raise SettingsError(
        f"`metadata` is {repr_short(metadata)}", hint="pass a mapping of names to values: {'customer': 'c1'}"
    )


def pinned(pipeline: Pipeline, blueprint: Blueprint | None) -> tuple[str, Mapping[str, bytes]]:
    """Return the digest that a run of this pipeline is pinned to, and the blobs that are stored with the run.

    A run of a pipeline written in Python pins only the pipeline's name: its code is not stored.
    """
    if blueprint is not None:
        return blueprint.closure.digest, blueprint.closure.blobs()
    return pinned_by_name(pipeline.name)


@lru_cache(maxsize=256)
def pinned_by_name(pipeline: str) -> tuple[str, Mapping[str, bytes]]:
    """Return the digest and the blob that a run pins of a pipeline written in Python: its name."""
    manifest = canonical.encode({"python": pipeline})
    digest = canonical.digest(manifest)
    return digest, {digest: manifest}


def is_stubbed(record: RunRecord, closure: str) -> bool:
    """Return whether a run is a fork whose calls with effects are stubbed, or a background task of one.

    `closure` is what the runs of its pipeline pin.
    """
    return record.closure in _stubbed_closures(record, closure)


def fits(record: RunRecord, closure: str) -> bool:
    """Return whether a run has pinned `closure`, or only the name of its pipeline, with or without stubs."""
    whole = (closure, pinned_by_name(record.pipeline)[0])
    return record.closure in (*whole, *_stubbed_closures(record, closure))


def _stubbed_closures(record: RunRecord, closure: str) -> tuple[str, ...]:
    stubbed = [pinned_stubs(each)[0] for each in (closure, pinned_by_name(record.pipeline)[0])]
    if record.parent is not None:
        return tuple(pinned_entry(each, record.parent.entry)[0] for each in stubbed)
    return tuple(stubbed)


def checked_context(model: Any) -> type[PipelineContext]:
    """Return `model` if it is the class of a context.

    Raises:
        SettingsError: it is not a subclass of `PipelineContext`.
    """
    if isinstance(model, type) and issubclass(model, PipelineContext):
        return model
    name = model.__name__ if isinstance(model, type) else repr(model)
    raise SettingsError(
        f"`context_model` is `{name}`, and a context is a subclass of `PipelineContext`: what steps write is "
        "held to its fields, and a resumed run is read back through them",
        hint="write `class MyContext(PipelineContext):` with typed fields",
    )


def require_no_enforcement(pipeline: Pipeline) -> None:
    """Raise when a step enforces idempotency; called where the journal does not survive the process.

    Raises:
        SettingsError: a step enforces it; the error names the step.
    """
    for path, step in pipeline.walk():
        agents = (each for each in step.names() if isinstance(each, AgentSpec))
        is_recorded = any(tool.is_recorded for agent in agents for tool in called_tools(agent.tools))
        if getattr(step, "enforce_idempotency", False) or is_recorded:
            what = "has a tool whose calls must be recorded" if is_recorded else "says `enforce_idempotency`"
            raise SettingsError(
                f"step `{shown(path)}` {what}, and with `persist_state=False` there is no "
                "record after a crash that its call was made",
                hint="leave `persist_state` out, or "
                + ("`approve` and " if is_recorded else "")
                + "`enforce_idempotency`",
                path=path,
            )


def context_fields(data: Any) -> Mapping[str, Any]:
    """Return the fields that a context starts with.

    Raises:
        InputRejected: `data` is not a mapping.
    """
    if data is None or isinstance(data, Mapping):
        return data or {}
    raise InputRejected(
        f"`initial_context_data` is {type(data).__name__}, and the fields of a context are given by name",
        hint="give a mapping, for instance {'user_id': 'u1'}; of a context object its `.model_dump()`",
    )


def declared(pipeline: Pipeline, binding: Binding, encoded: bytes) -> bytes:
    """Return the input, which must fit the input schema, in its declared types."""
    if pipeline.input_schema is None:
        return encoded
    try:
        given = binding.schema(pipeline.input_schema).check(canonical.decode(encoded), what="input")
        return canonical.encode(given, what="input")
    except OutputRejected as error:
        raise InputRejected(error.message, hint=error.hint, violations=error.violations) from None
