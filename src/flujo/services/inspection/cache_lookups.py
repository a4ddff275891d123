"""Explains a look into the cache: the parts of its key, and which differ from the nearest earlier key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from flujo.domain import canonical, paths
from flujo.domain.journal import CACHE_MISS, EntryKind
from flujo.domain.paths import parent
from flujo.domain.run import RunQuery
from flujo.domain.wording import did_you_mean, listed
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.domain.journal import Entry
    from flujo.domain.paths import StepPath
    from flujo.domain.run import RunRecord
    from flujo.domain.store import CacheBackend, StateStore

EARLIER_RUNS = 50
"""How many runs before this one are compared."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """One look into the cache for a step."""

    run_id: str
    path: StepPath
    result: Literal["hit", "miss", "not cached"]
    key: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    """A short digest of each part of the key, by the part's name in words."""
    reason: str | None = None
    """Why the step has no key."""

    def differing(self, other: Lookup) -> list[str]:
        """Return the names of the parts in which two keys differ."""
        names = dict.fromkeys([*self.parts, *other.parts])
        return [name for name in names if self.parts.get(name) != other.parts.get(name)]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A look into the cache with the nearest earlier one, and all others of the step in the run."""

    lookup: Lookup
    all: Sequence[Lookup]
    nearest: Lookup | None = None
    """The earlier miss whose key differs least; one with a stored answer is preferred."""
    is_stored: bool | None = None
    """Whether the answer of `nearest` is in the cache now; None if the cache does not outlive a process."""

    @property
    def why(self) -> str:
        """Why the step was executed, or that it was not, as one sentence."""
        lookup, nearest = self.lookup, self.nearest
        if lookup.result == "hit":
            return "it was not executed: its answer came from the cache"
        if lookup.reason is not None:
            return f"it is executed every time: {lookup.reason}"
        if not lookup.parts:
            return "its key has no recorded parts: an earlier version of Flujo executed it"
        if nearest is None:
            return f"no earlier answer to compare with in this run and the {EARLIER_RUNS} runs before it"
        if differing := lookup.differing(nearest):
            return f"its key differs from the nearest earlier one in {listed(differing, 'and')}"
        if self.is_stored is None:
            return "an earlier answer has the same key, but answers are kept in the memory of one process"
        return (
            "an earlier answer has the same key, but it had expired, was evicted, or was not stored "
            "(the log `flujo.cache` of its run says why)"
        )


async def explain_lookup(store: StateStore, cache: CacheBackend | None, run: str, step: str) -> Explanation:
    """Explain the look into the cache of a step in a run.

    Args:
        store: the store with the runs.
        cache: the stored answers; None if they do not outlive a process.
        run: a run id, its prefix or `@last`.
        step: the step's path, its path without counts, or its name; of several looks, the first miss counts.

    Raises:
        RunNotFound: no run, or more than one, matches.
        SettingsError: the run has no look into the cache for such a step.
    """
    record = await store.find(run)
    every = list(_lookups(record.run_id, await store.entries(record.run_id)))
    found = _matching(step, every)
    if not found:
        raise SettingsError(
            f"run {record.run_id} has no cached step {step!r}",
            hint=_known(step, [each.path for each in every]),
        )
    lookup = next((each for each in found if each.result != "hit"), found[0])
    earlier = [*reversed(every[: every.index(lookup)]), *await _of_earlier_runs(store, record)]
    alike = [each for each in earlier if each.parts and _plain(each.path) == _plain(lookup.path)]
    if lookup.result != "miss" or not alike:
        return Explanation(lookup, found)
    stored = {each.key: await _is_stored(cache, each) for each in alike}
    nearest = min(alike, key=lambda each: (stored[each.key] is False, len(lookup.differing(each))))
    return Explanation(lookup, found, nearest, stored[nearest.key])


def _lookups(run_id: str, entries: Sequence[Entry]) -> Iterator[Lookup]:
    for entry in entries:
        detail: dict[str, Any] = canonical.decode(entry.detail) if entry.detail else {}
        if entry.kind is EntryKind.DECISION and entry.fingerprint == CACHE_MISS:
            key = canonical.decode(entry.output or b"null")
            result: Literal["miss", "not cached"] = "miss" if key else "not cached"
            path, parts = parent(entry.path), detail.get("parts", {})
            yield Lookup(run_id, path, result, key, parts, detail.get("not_cached"))
        elif entry.kind is EntryKind.DONE and detail.get("cached") is True:
            yield Lookup(run_id, entry.path, "hit")


def _matching(step: str, every: Sequence[Lookup]) -> list[Lookup]:
    """Return the looks of the step with this path; else those with this path without counts, or this name."""
    exact = paths.find(step, dict.fromkeys(each.path for each in every))
    if exact is not None:
        return [each for each in every if each.path == exact]
    return [each for each in every if step in (_plain(each.path), paths.name(each.path))]


def _plain(path: StepPath) -> str:
    """Return a path without the counts of iterations and items."""
    return paths.shown(paths.without_counts(path))


def _known(step: str, every: Sequence[StepPath]) -> str:
    plain = list(dict.fromkeys(map(_plain, every)))
    near = did_you_mean(step, plain, cutoff=0.5)
    return near or (
        f"its cached steps: {listed(plain, 'and')}" if plain else "none of its steps has a `cache`"
    )


async def _of_earlier_runs(store: StateStore, record: RunRecord) -> list[Lookup]:
    found: list[Lookup] = []
    query = RunQuery(pipeline=record.pipeline, limit=EARLIER_RUNS + 1)
    for each in await store.runs(query):
        if each.run_id != record.run_id and each.created_at <= record.created_at:
            found += reversed(list(_lookups(each.run_id, await store.entries(each.run_id))))
    return found


async def _is_stored(cache: CacheBackend | None, lookup: Lookup) -> bool | None:
    return None if cache is None else await cache.get(lookup.key or "") is not None
