"""Checks of cached steps: an answer can replace the execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.steps import CacheStep, GranularStep
from flujo.domain.tree_checks.findings import Finding, Site, all_inside

if TYPE_CHECKING:
    from collections.abc import Iterator


def cacheable(site: Site) -> Iterator[Finding]:
    """Check that a cached answer can replace the execution of the step."""
    step = site.step
    if isinstance(step, CacheStep):
        yield from _cached_twice(site, step)
    elif step.cache is None:
        return
    elif step.ends_run:
        message = f"step {site.path!r} ends the run, and has no answer to cache"
        yield Finding("FLJ261", site.place, message, "remove `cache`", ("cache",), at_key=True)
    elif step.is_computed:
        message = f"step {site.path!r} only evaluates expressions, and has no answer to cache"
        yield Finding("FLJ261", site.place, message, "remove `cache`", ("cache",), at_key=True)
    elif step.only_waits:
        message = f"step {site.path!r} {step.only_waits}, and a cached answer would end that wait"
        yield Finding("FLJ261", site.place, message, "remove `cache`", ("cache",), at_key=True)
    elif isinstance(step, GranularStep):
        message = f"step {site.path!r} is a conversation, and a cached answer would leave out its tool calls"
        yield Finding("FLJ261", site.place, message, "remove `cache`", ("cache",), at_key=True)
    elif step.joins is not None:
        message = f"step {site.path!r} is on a thread, and a cached answer would not be in the thread"
        yield Finding("FLJ261", site.place, message, "remove `cache`", ("cache",), at_key=True)
    for inner, writes_here in all_inside(site):
        yield from _answers_only(site, inner, writes_here=writes_here)


def _cached_twice(site: Site, step: CacheStep) -> Iterator[Finding]:
    if step.cache is not None:
        message = f"step {site.path!r} is already a cache"
        yield Finding("FLJ261", site.place, message, "remove `cache`", ("cache",), at_key=True)
    inner = next(site.below("step", step.bodies()["step"]))
    for key, hint in (("when", f"write it on {step.name!r}"), ("cache", "one cache is enough")):
        if getattr(inner.step, key) is not None:
            message = f"step {inner.path!r} has `{key}` and is inside the cache {site.path!r}"
            yield Finding("FLJ261", inner.place, message, hint, (key,), at_key=True)


def _answers_only(site: Site, inner: Site, *, writes_here: bool) -> Iterator[Finding]:
    cached = (site.place, "cached here")
    if inner.step.config.execution_mode == "background":
        what = "runs in the background, inside step"
        message = f"step {inner.path!r} {what} {site.path!r}, whose answers are cached"
        hint = "move it out of the cache: a cached answer would launch no task"
        keys = ("config", "execution_mode")
        yield Finding("FLJ261", inner.place, message, hint, keys, at_key=True, other=cached)
    if inner.step.only_waits:
        what = f"{inner.step.only_waits}, inside step {site.path!r}, whose answers are cached"
        message = f"step {inner.path!r} {what}"
        hint = "move it out of the cache: a cached answer would end that wait"
        yield Finding("FLJ261", inner.place, message, hint, ("kind",), other=cached)
    if isinstance(inner.step, GranularStep):
        message = (
            f"step {inner.path!r} is a conversation, inside step {site.path!r}, whose answers are cached"
        )
        hint = "move it out of the cache: a cached answer would leave out its tool calls"
        yield Finding("FLJ261", inner.place, message, hint, ("kind",), other=cached)
    elif inner.step.joins is not None:
        message = f"step {inner.path!r} is on a thread, inside step {site.path!r}, whose answers are cached"
        hint = "move it out of the cache: a cached answer would not be in the thread"
        yield Finding("FLJ261", inner.place, message, hint, ("thread",), at_key=True, other=cached)
    for key, name in inner.step.writes() if writes_here else ():
        message = f"step {inner.path!r} {key}s {name!r}, inside step {site.path!r}, whose answers are cached"
        hint = f"write `save` on {site.path!r}: it is executed for cached answers too"
        yield Finding("FLJ261", inner.place, message, hint, (key, name), at_key=True, other=cached)
