"""Values of Python types go through the journal: a resumed run in another runner sees the same value and type."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter

from flujo.domain import canonical
from flujo.domain.models import PipelineContext
from flujo.domain.steps import CallableRef, HumanInTheLoopStep, Step
from flujo.exceptions import NotJournalable
from flujo.services.runs.runner import Flujo
from support import pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.store import StateStore


class Color(enum.Enum):
    RED = "r"
    THREE = 3


@dataclass
class Inner:
    price: Decimal
    by_id: dict[int, frozenset[str]]


class Everything(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    price: Decimal
    tags: set[str]
    frozen: frozenset[int]
    pairs: set[tuple[int, str]]
    path: Path
    span: timedelta
    key: UUID
    day: date
    at: time
    when: datetime
    raw: bytes
    color: Color
    inner: Inner
    inners: list[Inner]


class Tags(RootModel[set[str]]):
    pass


ALL = Everything(
    price=Decimal("1.10"),
    tags={f"tag{number}" for number in range(20)},
    frozen=frozenset({3, 1, 2}),
    pairs={(2, "b"), (1, "a")},
    path=Path("/a/b"),
    span=timedelta(days=1, microseconds=1),
    key=UUID(int=5),
    day=date(2026, 1, 2),
    at=time(1, 2, 3),
    when=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    raw=b"\xff\x00",
    color=Color.RED,
    inner=Inner(Decimal("2.0"), {7: frozenset({"x", "y"})}),
    inners=[Inner(Decimal("0.1"), {})],
)


def both_ends(kind: Any, value: Any, seen: list[Any]) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """Return a callable that returns `value`, and one that takes it; both have annotations."""

    def give() -> Any:
        return value

    def take(data: Any) -> None:
        seen.append(data)

    give.__annotations__["return"] = take.__annotations__["data"] = kind
    return give, take


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Everything, ALL),
        (Inner, ALL.inner),
        (Tags, Tags({"b", "a"})),
        (Decimal, Decimal("1.10")),
        (set[str], {"b", "a"}),
        (frozenset[int], frozenset({2, 1})),
        (Path, Path("a")),
        (timedelta, timedelta(seconds=1.5)),
        (UUID, UUID(int=3)),
        (datetime, datetime(2026, 1, 2, tzinfo=UTC)),
        (Color, Color.THREE),
        (list[Decimal], [Decimal("1.0")]),
        (dict[int, Decimal], {1: Decimal(3)}),
        (list[Everything], [ALL]),
        (Decimal | None, Decimal("1.5")),
    ],
)
async def test_an_output_reaches_the_next_step_of_a_resumed_run(
    store: StateStore, kind: Any, value: Any
) -> None:
    seen: list[Any] = []
    give, take = both_ends(kind, value, seen)
    tree = pipeline(
        Step(name="give", call=CallableRef("tests:give", give)),
        HumanInTheLoopStep(name="wait", message="go on?"),
        Step(name="take", call=CallableRef("tests:take", take), input="{{ steps.give.output }}"),
    )
    async with Flujo[Any, Any, Any](tree, store=store) as runner:
        await runner.run_result_async(None, run_id="run")
    async with Flujo[Any, Any, Any](tree, store=store) as runner:
        assert (await runner.resume_async("run", "yes")).success
    assert seen == [value]
    assert type(seen[0]) is type(value)


class Context(PipelineContext):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    price: Decimal = Decimal("1.10")
    tags: set[str] = Field(default_factory=set)
    path: Path = Path()
    span: timedelta = timedelta(0)
    raw: bytes = b""
    color: Color = Color.RED
    all: Everything | None = None


async def test_a_context_has_the_same_values_in_a_resumed_run(store: StateStore) -> None:
    seen: list[Context] = []

    async def write(data: Any, *, context: Context) -> None:
        context.price += 1
        context.tags = set(ALL.tags)
        context.path, context.span, context.raw = Path("/x"), timedelta(seconds=2), b"\xff\x00"
        context.color, context.all = Color.THREE, ALL

    async def read(data: Any, *, context: Context) -> None:
        seen.append(context.model_copy())

    tree = pipeline(
        Step(name="write", call=CallableRef("tests:write", write)),
        HumanInTheLoopStep(name="wait", message="go on?"),
        Step(name="read", call=CallableRef("tests:read", read)),
    )
    for answer in (None, "yes"):
        async with Flujo[Any, Any, Context](tree, store=store, context_model=Context) as runner:
            if answer is None:
                await runner.run_result_async(None, run_id="run")
            else:
                assert (await runner.resume_async("run", answer)).success
    (context,) = seen
    assert (context.price, context.tags, context.path) == (Decimal("2.10"), ALL.tags, Path("/x"))
    assert (context.span, context.raw, context.color) == (timedelta(seconds=2), b"\xff\x00", Color.THREE)
    assert context.all == ALL


@given(st.builds(
    Everything,
    price=st.decimals(allow_nan=False, allow_infinity=False),
    tags=st.sets(st.text("ab\u00e9\"", max_size=3)),
    path=st.sampled_from([Path("a"), Path("/a/b")]),
    span=st.timedeltas(),
    at=st.times(),
    when=st.datetimes(timezones=st.just(UTC)),
    inner=st.builds(
        Inner,
        price=st.decimals(allow_nan=False, allow_infinity=False),
        by_id=st.dictionaries(st.integers(-9, 9), st.frozensets(st.text("ab", max_size=2)), max_size=2),
    ),
    inners=st.just([]),
    frozen=st.frozensets(st.integers(-9, 9)),
    pairs=st.sets(st.tuples(st.integers(-9, 9), st.text("ab", max_size=2))),
))  # fmt: skip
def test_a_model_is_written_and_read_back_as_the_same_value(value: Everything) -> None:
    data = canonical.encode(value)
    again = TypeAdapter(Everything).validate_json(data)
    assert again == value
    assert canonical.encode(again) == data


class Odd(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    thing: Any


@pytest.mark.parametrize(
    "thing", [{1, 2}, Decimal(1), b"\xff", object(), Path("a"), {1: 2}, Decimal("NaN"), float("nan"), 2**64]
)
def test_a_value_that_would_come_back_as_another_one_is_refused(thing: Any) -> None:
    for value in (thing, [thing], Odd(thing=thing), {"a": Odd(thing=thing)}):
        with pytest.raises(NotJournalable):
            canonical.encode(value)


def test_a_model_that_needed_no_pydantic_keeps_its_bytes() -> None:
    class Plain(BaseModel):
        when: datetime

    value = Plain(when=datetime(2026, 1, 2, tzinfo=UTC))
    assert canonical.encode(value) == b'{"when":"2026-01-02T00:00:00+00:00"}'


async def test_the_output_has_the_type_of_the_pipeline_that_was_set_last(store: StateStore) -> None:
    def of(kind: Any, value: Any) -> Any:
        give, _ = both_ends(kind, value, [])
        return pipeline(Step(name="give", call=CallableRef("tests:give", give)))

    async with Flujo[Any, Any, Any](of(list[int], [1]), store=store) as runner:
        runner.pipeline = of(set[int], {2})
        assert (await runner.run_result_async(None)).output == {2}
