"""Cached steps: a step with the same key is not executed again, and the journal records the hit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge
from flujo.domain.agents import AgentSpec
from flujo.domain.journal import CACHE_MISS
from flujo.domain.outcomes import StepOutcome, Success
from flujo.domain.paths import branch
from flujo.domain.steps import Step
from flujo.engine.answer_cache import CachedAnswer
from flujo.engine.cache_key import code_of, key_of
from flujo.engine.decisions import decision
from flujo.exceptions import NotCacheable, OutputRejected
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.paths import StepPath
    from flujo.domain.steps import BaseStep, CachePolicy
    from flujo.engine.answer_cache import AnswerCache
    from flujo.engine.frame import Frame

_log = logger("flujo.cache")


async def answered(
    step: BaseStep,
    policy: CachePolicy,
    frame: Frame,
    path: StepPath,
    work: Callable[[], Awaitable[StepOutcome]],
    *,
    inner: StepPath | None = None,
) -> tuple[StepOutcome, bool]:
    """Return the cached answer of a step, or do `work` and cache its answer; and whether it was cached.

    A miss is a decision: a run that is resumed during the work continues the work, and its answer gets the
    key of the code that gave it. The caller records a cached answer durably, because the cache may drop it
    before a resume.

    Args:
        step: the step that answers.
        policy: its cache.
        frame: the scope.
        path: the path of the entry of the answer.
        work: executes the step.
        inner: the path of the step, if it is below `path`.
    """
    cache = frame.run.cache
    if cache is None:
        return await work(), False
    here = branch(path, "cache")
    await frame.run.journal.load_at([here])
    try:
        key, code = await key_of(step, policy, frame, inner or path), code_of(step, frame)
    except NotCacheable as error:
        cache.report(step.name, error)
        _decide_to_work(frame, here, None, {"not_cached": error.message})
        return await work(), False
    missed, call = frame.run.journal.decision(here), partial(frame.call, path)
    async with cache.alone(key.digest, frame.place):
        kept = None if missed else await cache.find(key.digest, call)
        if kept is not None and _fits(step, frame, kept):
            return Success(kept.output, facts={**kept.facts, "cached": True}), True
        _decide_to_work(frame, here, key.digest, {"parts": key.parts()})
        before = frame.scope.tree
        outcome = await work()
        if (
            isinstance(outcome, Success)
            and await _may_be_kept(step, frame, path, before, outcome)
            and _is_unchanged(step, frame, cache, code)
        ):
            await cache.keep(key.digest, CachedAnswer(outcome.output, outcome.facts), policy.ttl_s, call)
        return outcome, False


def _decide_to_work(frame: Frame, here: StepPath, key: str | None, detail: dict[str, Any]) -> None:
    """Record that a step is executed, with what its key is made of or why it has none; once."""
    if frame.run.journal.decision(here) is None:
        entry = decision(frame, here, 1, key)
        entry = replace(entry, fingerprint=CACHE_MISS, detail=canonical.encode(detail))
        frame.run.journal.append_deferred(entry)


def _is_unchanged(step: BaseStep, frame: Frame, cache: AnswerCache, code: str) -> bool:
    """Return whether the values that the callables of a step use are the same after the work as before it."""
    try:
        if code_of(step, frame) == code:
            return True
        changed = NotCacheable(
            "the values that its callable reads are not the same after the call as before it: an object was "
            "changed, or a module that was imported during the call has values that its source does not tell",
            hint="import the module at the top of the file, or give the object an attribute `cache_key` with "
            "what decides the answers",
        )
    except NotCacheable as error:
        changed = error
    cache.report(step.name, changed)
    return False


def _fits(step: BaseStep, frame: Frame, kept: CachedAnswer) -> bool:
    """Return whether a cached answer still matches the step's schema."""
    schema = step.output_schema if isinstance(step, Step) else None
    if schema is None and isinstance(step, Step) and isinstance(step.agent, AgentSpec):
        schema = step.agent.output_schema
    try:
        if schema is not None:
            frame.run.binding.schema(schema).check(kept.output, what=f"cached output of step {step.name!r}")
    except OutputRejected:
        return False
    return True


async def _may_be_kept(step: BaseStep, frame: Frame, path: StepPath, before: Any, answer: Success) -> bool:
    """Return whether other runs may use this answer.

    They may unless it comes from a fallback or a human, or the step also wrote to the context.
    """
    if answer.facts.get("fell_back") or frame.run.journal.was_asked(path):
        return False
    written = {str(op[1][0]) for op in merge.diff(before, frame.scope.tree)} - step.save.keys()
    if written:
        _log.warning(
            "the answer of step %r is not cached, because the step wrote %s to the context; use `save:`",
            step.name,
            ", ".join(f"`{name}`" for name in sorted(written)),
        )
    return not written
