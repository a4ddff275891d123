"""The type of a pipeline's context: a `PipelineContext` class, or a JSON Schema."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError, create_model

from flujo.domain import canonical, merge
from flujo.domain.commands import command
from flujo.domain.models import PipelineContext
from flujo.domain.personal_data import pii_of
from flujo.exceptions import InputRejected, OutputRejected
from flujo.services.binding import blob_references, lazy_context

if TYPE_CHECKING:
    from collections.abc import Collection

    from flujo.domain.ports import Schema


class ModelContext:
    """A context whose fields are those of a `PipelineContext` subclass."""

    def __init__(self, model: type[PipelineContext]) -> None:
        self._model = model
        self._has_sets = "set'" in repr(model.__pydantic_core_schema__)
        self.declared = model
        self.pii = pii_of(model)

    async def start(self, given: Mapping[str, Any]) -> Any:
        """Return the tree at the start of a run, with values in place of references stored."""
        with blob_references.collect_starting_blobs(self._model) as blobs:
            try:
                context = self._model.model_validate(dict(given))
            except ValidationError as error:
                raise InputRejected(
                    f"the context does not fit {self._model.__name__}: {_words(error)}",
                    hint=f"its fields are {', '.join(self._model.model_fields) or 'none'}",
                ) from None
            if blobs is not None:
                await blobs.store_all(context)
        return self.dump(context)

    def load(self, tree: Any) -> PipelineContext:
        """Return a new context object."""
        return self._model.model_validate(tree)

    def view(self, tree: Any) -> PipelineContext:
        """Return a context object that loads a field at first access."""
        return lazy_context.view(self._model, tree)

    def dump(self, context: PipelineContext) -> Any:
        """Return the JSON tree of a context object."""
        touched = lazy_context.touched(context)
        dumped = touched.model_dump(mode="json")
        if self._has_sets:
            dumped = canonical.in_order(touched, dumped)
        return {**lazy_context.untouched(context), **dumped}

    def check(self, tree: Any, *, what: str, changed: Collection[str] | None = None) -> Any:
        """Return a tree that must fit the class, with the changed fields as the class writes them."""
        try:
            written = lazy_context.validated(self._model, tree, changed)
        except ValidationError as error:
            raise OutputRejected(f"{what} does not fit {self._model.__name__}: {_words(error)}") from None
        return {**tree, **written} if merge.diff({name: tree[name] for name in written}, written) else tree


class SchemaContext:
    """A context with the fields of a JSON Schema; no schema, no fields."""

    def __init__(self, schema: Any, compiled: Schema | None) -> None:
        self.declared = schema
        self.pii = pii_of(schema)
        self._fields: Mapping[str, Any] = (schema or {}).get("properties", {})
        self._required = tuple((schema or {}).get("required", ()))
        self._schema = compiled
        fields: dict[str, Any] = dict.fromkeys(self._fields, (Any, None))
        self._object: type[PipelineContext] = create_model("Context", __base__=PipelineContext, **fields)

    async def start(self, given: Mapping[str, Any]) -> Any:
        """Return the tree at the start of a run: the fields' defaults and the given values."""
        for name in given:
            if name not in self._fields:
                close = difflib.get_close_matches(name, self._fields, 1)
                raise InputRejected(
                    f"the context has no field {name!r}",
                    hint=f"did you mean {close[0]!r}?" if close else _declared(self._fields),
                    field=name,
                )
        defaults = {
            name: field["default"]
            for name, field in self._fields.items()
            if isinstance(field, Mapping) and "default" in field
        }
        tree = canonical.normalise({**defaults, **given}, what="context")
        missing = [name for name in self._required if name not in tree]
        if missing:
            raise InputRejected(
                f"the context lacks required fields: {_listed(missing)}",
                hint=f"pass it with `{command('--context', f'{missing[0]}=VALUE')}`, "
                "or a `default` in `context_schema`",
            )
        if self._schema is not None:
            try:
                tree = self._schema.check(tree, what="the context")
            except OutputRejected as error:
                raise InputRejected(error.message, hint=error.hint) from None
        return tree

    def load(self, tree: Any) -> PipelineContext:
        """Return a new context object, with each field as an attribute."""
        context: PipelineContext = self._object.model_validate(canonical.normalise(tree))
        return context

    def view(self, tree: Any) -> PipelineContext:
        """Return a context object that loads a field at first access."""
        return lazy_context.view(self._object, tree)

    def dump(self, context: PipelineContext) -> Any:
        """Return the JSON tree of the fields that are set."""
        dumped = lazy_context.touched(context).model_dump(mode="json", exclude_unset=True)
        return {**lazy_context.untouched(context), **dumped}

    def check(
        self,
        tree: Any,
        *,
        what: str,
        changed: Collection[str] | None = None,  # noqa: ARG002 - of the port; a schema may relate all fields
    ) -> Any:
        """Return a tree that must fit the schema, with its numbers in their declared types."""
        return tree if self._schema is None else self._schema.check(tree, what=what)


def _declared(fields: Any) -> str:
    if not fields:
        return "declare it: `Flujo(…, context_model=MyContext)`, or `context_schema:` in the blueprint"
    return f"its fields are {_listed(fields)}"


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))


def _words(error: ValidationError) -> str:
    """Return pydantic's errors in one line, without the values, which may be private."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"`{'.'.join(str(part) for part in each['loc'])}`: {each['msg']}" for each in found)
