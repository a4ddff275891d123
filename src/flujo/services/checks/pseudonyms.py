"""The key for pseudonyms of personal data, which the storage of runs has; checked before a run begins."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, cast

from flujo.domain.journal import RunId
from flujo.domain.paths import shown
from flujo.domain.personal_data import PseudonymStore
from flujo.exceptions import PseudonymsNeedKeys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.personal_data import Pii, Pseudonyms
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding
    from flujo.domain.store import StateStore


def pseudonyms_of(store: StateStore, run_id: RunId) -> Pseudonyms | None:
    """Return what makes the pseudonyms of a run; None where the storage of runs encrypts nothing."""
    return cast("PseudonymStore", store).pseudonyms(run_id) if _has_pseudonyms(type(store)) else None


@cache  # once for a class of stores, because a protocol looks at each of its methods at every check
def _has_pseudonyms(kind: type[StateStore]) -> bool:
    return issubclass(kind, PseudonymStore)


def require_pseudonym_key(
    pipeline: Pipeline, binding: Binding, store: StateStore, project: Pii | None
) -> None:
    """Refuse a pipeline that tokenises personal data where the storage of runs has no key.

    Args:
        pipeline: the pipeline.
        binding: its binding, which knows the fields of its context.
        store: the storage of runs.
        project: the setting of the project.

    Raises:
        PseudonymsNeedKeys: names the first place that asks for pseudonyms.
    """
    if pseudonyms_of(store, RunId("")) is not None:
        return
    for place in _places(pipeline, binding, project):
        raise PseudonymsNeedKeys(f"{place} tokenises personal data, and the runs have no key for it")


def _places(pipeline: Pipeline, binding: Binding, project: Pii | None) -> Iterator[str]:
    if project == "tokenise":
        yield '`requests = "tokenised"` in [governance]'
    fields = (("input", pipeline.input_pii), ("context", binding.context(pipeline).pii))
    for of, declared in fields:
        yield from (f"field `{of}.{name}`" for name, pii in declared.items() if pii == "tokenise")
    yield from (f"step `{shown(path)}`" for path, step in pipeline.walk() if step.masking == "tokenise")
