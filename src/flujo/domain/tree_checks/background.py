"""Checks of steps in the background: what can be a task, under which limits, and who awaits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flujo.domain.paths import StepPath
from flujo.domain.queues import priority_problem
from flujo.domain.steps import AwaitStep, BaseStep, StepConfig
from flujo.domain.tree_checks.findings import Field, Finding, Site, all_inside
from flujo.domain.usage import UsageLimits, uncovered
from flujo.domain.wording import did_you_mean, listed

if TYPE_CHECKING:
    from collections.abc import Iterator


def in_background(site: Site, limits: UsageLimits | None, *, is_stand_in: bool) -> Iterator[Finding]:
    """Check that a step can be executed as a task, and that limits around it hold for the task."""
    step, where = site.step, f"step {site.path!r}"
    if step.config.execution_mode != "background" and not step.config.is_spread:
        yield from _only_in_background(site)
        return
    keys: Field = ("config", "executor" if step.config.is_spread else "execution_mode")
    if step.config.is_spread:
        yield from _place_and_budget(site, limits, keys)
        return
    if is_stand_in:
        message = f"{where} is the inner step of another one, and cannot run in the background"
        hint = "set `execution_mode` on the enclosing step"
        yield Finding("FLJ280", site.place, message, hint, keys, at_key=True)
    elif why := _why_no_task(step):
        yield Finding("FLJ280", site.place, f"{where} {why}", "remove `execution_mode`", keys, at_key=True)
    for inner in (site, *(inner for inner, _ in all_inside(site))):
        if inner.step.joins is not None:
            message = f"{where} runs in the background, and the thread {inner.step.joins!r} is of its run"
            hint = "remove `thread`: a task cannot read the messages of the run that launched it"
            yield Finding("FLJ280", inner.place, message, hint, ("thread",), at_key=True)
    yield from _place_and_budget(site, limits, keys)


def _place_and_budget(site: Site, limits: UsageLimits | None, keys: Field) -> Iterator[Finding]:
    """Check the place in a queue of what a step launches, and its budget."""
    step, where = site.step, f"step {site.path!r}"
    if step.config.priority and not step.config.is_spread and step.config.queue is None:
        message = f"{where} has a priority and no queue"
        hint = "a priority orders the tasks of a queue: add `queue`"
        yield Finding("FLJ288", site.place, message, hint, ("config", "priority"), at_key=True)
    elif problem := priority_problem(step.config.priority, where):
        yield Finding("FLJ288", site.place, *problem, ("config", "priority"))
    if missing := uncovered(limits, step.config.budget):
        message, hint = task_under_limit(step, site.path, missing)
        keys = ("config", "budget") if step.config.budget is not None else keys
        yield Finding("FLJ283", site.place, message, hint, keys, at_key=True)


def _why_no_task(step: BaseStep) -> str:
    """Return why a step of this kind is never executed as a task; empty if it can be."""
    if step.ends_run:
        return "ends the run, and cannot run in the background"
    if step.is_computed:
        return "only evaluates expressions, and cannot run in the background"
    if isinstance(step, AwaitStep):
        return "waits for background tasks, and cannot be one"
    return ""


def task_under_limit(step: BaseStep, path: StepPath, missing: Sequence[str]) -> tuple[str, str]:
    """Return why a step cannot run in the background under limits, and what to do; see `usage.uncovered`."""
    names = listed(missing, "and")
    how = "lets workers execute its items" if step.config.is_spread else "runs in the background"
    where = f"step {path!r} {how} under a limit"
    if step.config.budget is None:
        message = f"{where} on {names}, and has no `budget` of its own"
    else:
        message = f"{where}, and its own `budget` allows more of {names}"
    hint = "what its `budget` in `config` allows is held for " + (
        "each batch" if step.config.is_spread else "the task"
    )
    hint += " until it has ended: limit "
    return message, hint + f"{names} there, to no more than around it"


def _only_in_background(site: Site) -> Iterator[Finding]:
    """Report settings of tasks on a step that launches none."""
    for key in ("queue", "priority", "budget"):
        if getattr(site.step.config, key) != getattr(StepConfig(), key):
            message = f"step {site.path!r} has `{key}`, and does not run in the background"
            hint = "add `execution_mode: background` (of a map also `executor: queue`), or remove it"
            yield Finding("FLJ288", site.place, message, hint, ("config", key), at_key=True)


def awaited_tasks(site: Site, step: AwaitStep, earlier: Mapping[str, Site]) -> Iterator[Finding]:
    """Check that the names of an `await` are those of earlier steps in the background."""
    key = "task" if step.task is not None else "tasks"
    for name in step.awaited():
        found = earlier.get(name)
        if found is not None and found.step.config.execution_mode == "background":
            continue
        where = f"step {site.path!r} awaits {name!r}"
        if found is None:
            tasks = [each for each in earlier if earlier[each].step.config.execution_mode == "background"]
            message, hint = f"{where}, and no earlier step has that name", did_you_mean(name, tasks)
            hint = hint or "name an earlier step with `config: {execution_mode: background}`"
        else:
            message = f"{where}, which does not run in the background"
            hint = f"read `steps.{name}.output`, or set `config: {{execution_mode: background}}` on it"
        yield Finding("FLJ282", site.place, message, hint, (key,))
