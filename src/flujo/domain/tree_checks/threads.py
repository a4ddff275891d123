"""Checks of steps on a thread of messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flujo.domain.merge import CHOOSING, MergeStrategy
from flujo.domain.steps import Step
from flujo.domain.tree_checks.findings import Finding, Site

if TYPE_CHECKING:
    from collections.abc import Iterator


def on_thread(site: Site) -> Iterator[Finding]:
    """Check that a step on a thread asks an agent, and that no two branches write one thread at once."""
    step = site.step
    if isinstance(step, Step) and step.thread is not None and not step.asks_agent:
        message = f"step {site.path!r} is on the thread {step.thread!r}, and asks no agent"
        hint = "remove `thread`, or ask an agent: a callable has no messages"
        yield Finding("FLJ429", site.place, message, hint, ("thread",), at_key=True)
    if getattr(step, "merge", None) not in (None, *CHOOSING):
        yield from _written_at_once(site)


def _written_at_once(site: Site) -> Iterator[Finding]:
    first: dict[str, tuple[str, Site]] = {}
    for name, pipeline in site.inside():
        for thread, each in _threads_of(site.below(name, pipeline)).items():
            if site.step.kind == "map":
                who, other = f"every item of map {site.path!r} adds", None
            elif thread not in first:
                first[thread] = name, each
                continue
            else:
                earlier, there = first[thread]
                who, other = f"branches {earlier!r} and {name!r} both add", (there.place, "the other one")
            is_router = site.step.kind == "router"
            yield Finding(
                "FLJ428",
                each.place,
                f"{who} to the thread {thread!r}" + (" when both are chosen" if is_router else ""),
                "use a thread in one branch only, or choose: `merge: keep_first` keeps the messages of one "
                "branch, `merge: no_merge` none",
                ("thread",),
                is_warning=is_router,
                other=other,
            )


def _threads_of(sites: Iterable[Site]) -> dict[str, Site]:
    """Return the threads to which steps add in the context around them, each with the first such step."""
    found: dict[str, Site] = {}
    for site in sites:
        if site.step.joins is not None:
            found.setdefault(site.step.joins, site)
        is_apart = site.step.imported is not None and not site.step.imported.inherits
        if not is_apart and getattr(site.step, "merge", "") != MergeStrategy.NO_MERGE:
            for name, pipeline in site.inside():
                found = _threads_of(site.below(name, pipeline)) | found
    return found
