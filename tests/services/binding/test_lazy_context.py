"""A view of a context: it behaves as the context does, and loads only the fields that are read."""

from __future__ import annotations

import asyncio
import copy
import pickle
from datetime import UTC, datetime
from typing import Any

import pydantic
import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from flujo import Flujo, Pipeline, Step
from flujo.domain import merge
from flujo.domain.models import PipelineContext
from flujo.domain.steps import CallableRef
from flujo.exceptions import OutputRejected
from flujo.services.binding import lazy_context
from flujo.services.binding.contexts import ModelContext, SchemaContext
from flujo.state.memory_store import MemoryStateStore


class Author(BaseModel):
    name: str


class Book(PipelineContext):
    title: str
    pages: int = Field(default=0, ge=0)
    notes: list[dict[str, Any]] = Field(default_factory=list)
    author: Author = Author(name="nobody")
    printed: datetime | None = None

    @property
    def shout(self) -> str:
        return self.title.upper()

    def note(self, text: str) -> None:
        self.notes.append({"text": text})


KIND = ModelContext(Book)
BOOK = {
    "title": "One",
    "notes": [{"tags": ["a"]}],
    "printed": "2020-01-02T03:04:05Z",
    "author": {"name": "Ann"},
}
TREE = asyncio.run(KIND.start(BOOK))


def view() -> Any:
    return KIND.view(TREE)


def changed(context: PipelineContext) -> merge.Patch:
    return merge.diff(TREE, KIND.dump(context))


def test_a_view_is_one_of_its_model_and_its_fields_are_what_the_model_says() -> None:
    context = view()
    assert isinstance(context, Book)
    assert (context.title, context.author, context.shout) == ("One", Author(name="Ann"), "ONE")
    assert context.printed == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert type(context).__name__ == "Book"


def test_only_fields_that_are_read_are_loaded() -> None:
    context = view()
    assert context.title == "One"
    assert set(lazy_context.untouched(context)) == {"pages", "notes", "author", "printed"}
    assert KIND.dump(context)["notes"] is TREE["notes"]


def test_a_change_in_place_deep_inside_a_field_is_seen_and_leaves_the_tree_alone() -> None:
    context = view()
    context.notes[0]["tags"].append("b")
    context.note("hello")
    assert changed(context) == [
        ["append", ["notes", 0, "tags"], ["b"]],
        ["append", ["notes"], [{"text": "hello"}]],
    ]
    assert TREE["notes"] == [{"tags": ["a"]}]


def test_a_change_in_place_of_a_nested_model_is_seen() -> None:
    context = view()
    context.author.name = "Bob"
    assert changed(context) == [["set", ["author", "name"], "Bob"]]


def test_nothing_that_is_only_read_is_a_change() -> None:
    context = view()
    assert repr(context) == repr(Book.model_validate(TREE))
    assert changed(context) == []


def test_assigning_is_validated() -> None:
    context = view()
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        context.pages = -1
    context.pages = "7"
    assert context.pages == 7
    assert changed(context) == [["set", ["pages"], 7]]


def test_a_field_that_the_model_does_not_have_is_refused() -> None:
    context = view()
    with pytest.raises(ValueError, match="subtitle"):
        context.subtitle = "x"
    with pytest.raises(AttributeError, match="subtitle"):
        _ = context.subtitle


def test_a_field_that_is_deleted_is_gone() -> None:
    context = view()
    del context.pages
    assert not hasattr(context, "pages")
    assert changed(context) == [["remove", ["pages"]]]


def test_a_view_is_equal_to_what_it_views_from_both_sides() -> None:
    plain = Book.model_validate(TREE)
    assert view() == plain
    assert plain == view()
    assert view() == view()
    other = view()
    other.pages = 1
    assert other != plain
    with pytest.raises(TypeError):
        hash(view())


def test_copies_dumps_and_pickles_have_every_field() -> None:
    plain = Book.model_validate(TREE)
    assert view().model_dump() == plain.model_dump()
    assert view().model_dump_json() == plain.model_dump_json()
    assert dict(view()) == dict(plain)
    assert view().model_copy(update={"pages": 3}) == plain.model_copy(update={"pages": 3})
    assert copy.deepcopy(view()) == plain
    assert pickle.loads(pickle.dumps(view())) == plain
    assert Book.model_validate(view()) == plain


async def test_what_json_cannot_hold_is_refused_by_name() -> None:
    async def grow(_: Any, context: Book) -> None:
        context.notes.append({"n": 2**70})

    tree = Pipeline((Step(name="x", call=CallableRef.of(grow)),), name="growing")
    async with Flujo[Any, Any, Any](tree, context_model=Book, store=MemoryStateStore()) as runner:
        result = await runner.run_result_async(None, initial_context_data=TREE)
    assert result.error is not None
    assert "context after step 'x' cannot be written to the journal at `notes[" in result.error.message


async def test_a_context_of_a_schema_dumps_only_given_fields() -> None:
    kind = SchemaContext({"properties": {"total": {"default": 0}, "log": {}}}, None)
    tree = await kind.start({})
    context: Any = kind.view(tree)
    assert (context.total, context.log) == (0, None)
    assert kind.dump(context) == {"total": 0}
    context.log = ["a"]
    assert kind.dump(context) == {"total": 0, "log": ["a"]}


def test_a_model_with_rules_across_its_fields_is_loaded_whole() -> None:
    class Span(PipelineContext):
        low: int = 0
        high: int = 9

        @model_validator(mode="after")
        def ordered(self) -> Span:
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    context: Any = ModelContext(Span).view({"low": 1, "high": 2})
    assert type(context) is Span
    with pytest.raises(ValidationError, match="low is above high"):
        context.low = 5


def test_a_change_is_validated_field_by_field_and_a_field_that_is_gone_or_unknown_as_well() -> None:
    KIND.check({**TREE, "pages": 3}, what="it", changed={"pages"})
    for change, changed in (({"pages": -1}, "pages"), ({"color": "red"}, "color")):
        with pytest.raises(OutputRejected, match=f"it does not fit Book: `{changed}`"):
            KIND.check({**TREE, **change}, what="it", changed={changed})
    with pytest.raises(OutputRejected, match="`title`"):
        KIND.check({"pages": 1}, what="it", changed={"title"})


def test_pydantic_2_has_the_internals_of_a_view() -> None:
    """Where pydantic keeps fields, the set of given ones, and the validator of a single assignment."""
    assert pydantic.VERSION.startswith("2.")
    slots = {name for kind in BaseModel.__mro__ for name in getattr(kind, "__slots__", ())}
    assert slots == {
        "__dict__",
        "__pydantic_extra__",
        "__pydantic_fields_set__",
        "__pydantic_private__",
    }
    plain = Book(title="One")
    assert vars(BaseModel)["__dict__"].__get__(plain) is plain.__dict__
    plain.__pydantic_validator__.validate_assignment(plain, "pages", "7")
    assert (plain.pages, plain.__pydantic_fields_set__) == (7, {"title", "pages"})
    assert type(view()).__mro__[1:3] == (lazy_context._View, Book)
