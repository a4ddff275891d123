"""The cache never gives the answer of one callable to another, whatever kind of callable it is."""

from __future__ import annotations

import contextvars
import dataclasses
import enum
import functools
import itertools
import logging
import os
import re
import sys
import threading
import types
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, PrivateAttr

from flujo.agents.scripted import ScriptedAgent
from flujo.domain.agents import Ask, Reply
from flujo.domain.models import AppResources
from flujo.domain.steps import CachePolicy, CallableRef
from flujo.exceptions import NotCacheable
from flujo.services.binding.identity import identity
from flujo.services.runs.runner import Flujo
from flujo.state.memory_cache import MemoryCache
from support import call, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USER = "nobody"
SETTINGS: dict[str, Any] = {"user": "nobody"}
CURRENT: contextvars.ContextVar[str] = contextvars.ContextVar("current")
LOCAL = threading.local()
LOG = logging.getLogger(__name__)
MODULE = types.ModuleType("settings_of_a_test")


async def answered(target: Any, cache: MemoryCache, resources: Any = None) -> tuple[str, bool]:
    """Return the answer of a cached step that calls `target`, and whether it was cached."""
    tree = pipeline(call("a", CallableRef("x:who", target), cache=CachePolicy()))
    async with Flujo[Any, Any, Any](tree, persist_state=False, cache=cache, resources=resources) as runner:
        result = await runner.run_result_async(1)
    assert result.error is None
    return result.output, result.steps[0].cached


# Kinds of callables ---------------------------------------------------------------------------------------


class Greeter:
    def __init__(self, user: str) -> None:
        self.user = user

    def greet(self, data: Any) -> str:
        return self.user

    def __call__(self, data: Any) -> str:
        return self.user

    @property
    def who(self) -> str:
        return self.user


class Slotted:
    __slots__ = ("__hidden", "user")

    def __init__(self, user: str) -> None:
        self.user, self.__hidden = "same", user

    def __call__(self, data: Any) -> str:
        return self.__hidden


@dataclasses.dataclass
class Data:
    user: str

    def __call__(self, data: Any) -> str:
        return self.user


class Model(BaseModel):
    user: str = ""
    _private: str = PrivateAttr("")

    def __call__(self, data: Any) -> str:
        return self.user or self._private


class Open(BaseModel, extra="allow"):
    def __call__(self, data: Any) -> str:
        return str((self.__pydantic_extra__ or {})["user"])


class User(enum.Enum):
    ALICE = "alice"
    BOB = "bob"

    def __call__(self, data: Any) -> str:
        return self.value


class Names(dict[str, str]):
    def __call__(self, data: Any) -> str:
        return self["user"]


class Text(str):
    __slots__ = ()

    def __call__(self, data: Any) -> str:
        return str(self)


class Row(NamedTuple):
    user: str

    def __call__(self, data: Any) -> str:
        return self.user


def default(user: str) -> Any:
    def who(data: Any, user: str = user) -> str:
        return user

    return who


def keyword_default(user: str) -> Any:
    def who(data: Any, *, user: str = user) -> str:
        return user

    return who


def closure(user: str) -> Any:
    return lambda data: user


def mutable_closure(user: str) -> Any:
    box = {"users": [{"name": user}]}
    return lambda data: box["users"][0]["name"]


def inner_function(user: str) -> Any:
    def inner() -> str:
        return user

    return lambda data: inner()


def decorated(user: str) -> Any:
    def named(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapper(data: Any) -> str:
            return f"{fn(data)}{user}"

        return wrapper

    @named
    def who(data: Any) -> str:
        return ""

    return who


def wrapped_captures(user: str) -> Any:
    inner = closure(user)

    @functools.wraps(inner)
    def wrapper(*args: Any, **named: Any) -> Any:
        return inner(*args, **named)

    return wrapper


def memoised(user: str) -> Any:
    return functools.lru_cache(closure(user))


def made_class(user: str) -> Any:
    class Made:
        name = user

        def __new__(cls, data: Any) -> Any:
            return cls.name

    return Made


def inherited(user: str) -> Any:
    class Base:
        name = user

    class Child(Base):
        def __call__(self, data: Any) -> str:
            return self.name

    return Child()


def class_method(user: str) -> Any:
    class Made:
        name = user

        @classmethod
        def who(cls, data: Any) -> str:
            return cls.name

    return Made.who


def static_method(user: str) -> Any:
    class Made:
        @staticmethod
        def who(data: Any) -> str:
            return user

    return Made.who


def of_a_property(user: str) -> Any:
    class Made:
        @property
        def name(self) -> str:
            return user

        def __call__(self, data: Any) -> str:
            return self.name

    return Made()


def metaclass(user: str) -> Any:
    class Meta(type):
        def __call__(cls, data: Any = None) -> Any:
            return user

    return Meta("Made", (), {})


def field_default(user: str) -> Any:
    class Made(BaseModel):
        name: str = user
        other: str = Field(default_factory=lambda: user)

    def who(data: Any) -> str:
        return Made().name and Made().other

    return who


def dataclass_factory(user: str) -> Any:
    @dataclasses.dataclass
    class Made:
        name: str = dataclasses.field(default_factory=lambda: user)

    return lambda data: Made().name


def code(user: str) -> Any:
    return eval(f"lambda data: {user!r}")


def exec_global(user: str) -> Any:
    scope: dict[str, Any] = {"user": user}
    exec("def who(data): return user", scope)
    return scope["who"]


def global_text(user: str) -> Any:
    global USER
    USER = user
    return lambda data: USER


def global_mapping(user: str) -> Any:
    SETTINGS["user"] = user
    return lambda data: SETTINGS["user"]


def global_through_a_helper(user: str) -> Any:
    SETTINGS["user"] = user

    def helper() -> Any:
        return (lambda: SETTINGS["user"])()

    return lambda data: helper()


def global_of_a_module(user: str) -> Any:
    MODULE.USER = user  # type: ignore[attr-defined]
    return lambda data: MODULE.USER


def imported_inside(user: str) -> Any:
    MODULE.USER = user  # type: ignore[attr-defined]
    sys.modules["settings_of_a_test"] = MODULE

    def who(data: Any) -> Any:
        import settings_of_a_test  # type: ignore[import-not-found]

        return settings_of_a_test.USER

    return who


def imported_from_inside(user: str) -> Any:
    MODULE.USER = user  # type: ignore[attr-defined]
    sys.modules["settings_of_a_test"] = MODULE

    def who(data: Any) -> Any:
        from settings_of_a_test import USER

        return USER

    return who


def bound_builtin(user: str) -> Any:
    return {1: user}.get


BY_VALUE: dict[str, Callable[[str], Any]] = {
    "a bound method": lambda user: Greeter(user).greet,
    "an object with __call__": Greeter,
    "an object with slots": Slotted,
    "a data class": Data,
    "a pydantic model": lambda user: Model(user=user),
    "an extra field of a pydantic model": lambda user: Open(user=user),
    "an enum": lambda user: User(user),
    "a mapping of its own class": lambda user: Names(user=user),
    "a text of its own class": Text,
    "a named tuple": Row,
    "a partial": lambda user: functools.partial(lambda user, data: user, user),
    "a keyword of a partial": lambda user: functools.partial(lambda data, user: user, user=user),
    "a partial of a bound method": lambda user: functools.partial(Greeter(user).greet),
    "a default": default,
    "a keyword-only default": keyword_default,
    "a closure": closure,
    "a mutable closure": mutable_closure,
    "a function that a function captures": inner_function,
    "a decorator's variable": decorated,
    "the variable of a decorated function": wrapped_captures,
    "a memoised function": memoised,
    "a class": made_class,
    "an attribute of a base class": inherited,
    "a class method": class_method,
    "a static method": static_method,
    "a property": of_a_property,
    "a metaclass": metaclass,
    "defaults of a pydantic model": field_default,
    "a factory of a data class": dataclass_factory,
    "the code alone": code,
    "a global without a module": exec_global,
    "a global": global_text,
    "a global mapping": global_mapping,
    "a global behind helpers": global_through_a_helper,
    "a global of a module": global_of_a_module,
    "a module imported in the function": imported_inside,
    "a name imported in the function": imported_from_inside,
    "a bound method of a builtin": bound_builtin,
}


def private_state(user: str) -> Any:
    model = Model()
    model._private = user
    return model


BY_VALUE["a private attribute of a pydantic model"] = private_state


@pytest.fixture(autouse=True)
def _no_module() -> Iterator[None]:
    yield
    sys.modules.pop("settings_of_a_test", None)


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("kind", BY_VALUE)
async def test_bob_gets_his_own_answer_and_alice_hers_again(kind: str) -> None:
    cache = MemoryCache()
    assert await answered(BY_VALUE[kind]("alice"), cache) == ("alice", False)
    assert await answered(BY_VALUE[kind]("bob"), cache) == ("bob", False)
    assert await answered(BY_VALUE[kind]("alice"), cache) == ("alice", True)


# What cannot be compared ----------------------------------------------------------------------------------


def in_a_context_variable(user: str) -> Any:
    CURRENT.set(user)
    return lambda data: CURRENT.get()


def in_the_thread(user: str) -> Any:
    LOCAL.user = user

    async def who(data: Any) -> Any:
        return LOCAL.user

    return who


def in_the_environment(user: str) -> Any:
    os.environ["FLUJO_TEST_USER"] = user
    return lambda data: os.environ["FLUJO_TEST_USER"]


def through_getenv(user: str) -> Any:
    os.environ["FLUJO_TEST_USER"] = user
    return lambda data: os.getenv("FLUJO_TEST_USER")


def from_an_iterator(user: str) -> Any:
    users = itertools.repeat(user)
    return lambda data: next(users)


def from_a_file(user: str) -> Any:
    import io

    file = io.StringIO(user)
    return lambda data: file.getvalue()


def from_an_opaque_object(user: str) -> Any:
    class Opaque(threading.Thread):
        pass

    thread = Opaque(name=user)
    return lambda data: thread.name


class Asked:
    wants_context = False

    def __init__(self, user: str) -> None:
        self.client = from_an_iterator(user)

    async def ask(self, ask: Ask) -> Reply:
        return Reply(output=self.client(None))


REFUSED: dict[str, Callable[[str], Any]] = {
    "a context variable": in_a_context_variable,
    "a variable of the thread": in_the_thread,
    "the environment": in_the_environment,
    "getenv": through_getenv,
    "an iterator": from_an_iterator,
    "a file": from_a_file,
    "an object of a library": from_an_opaque_object,
    "a scripted agent": lambda user: ScriptedAgent([user] * 9),
    "an agent with a client": Asked,
}


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("kind", REFUSED)
async def test_what_cannot_be_compared_is_not_cached_and_the_log_tells_why(
    kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_TEST_USER", "")
    cache = MemoryCache()
    for user in ("alice", "bob", "alice"):
        assert await answered(REFUSED[kind](user), cache) == (user, False)
    assert len(cache) == 0
    found = caplog.messages[0]
    assert found.startswith("step 'a' is not cached: `x:who`")
    assert "[FLJ417]" in found
    assert "`cache_key`" in found
    assert "\n" not in found, "a log line is one line"


class Exits:
    """Its attributes exit; an object like it must not end the process that looks at it."""

    __slots__ = ("client",)

    def __getattribute__(self, name: str) -> Any:
        if name in ("client", "cache_key"):
            raise SystemExit(1)
        return object.__getattribute__(self, name)

    def look_up(self, data: Any) -> Any:
        return data


class ExitsInItsKey:
    def cache_key(self) -> Any:
        raise SystemExit(1)

    def look_up(self, data: Any) -> Any:
        return data


@pytest.mark.parametrize("kind", [Exits, ExitsInItsKey])
async def test_an_object_that_exits_when_it_is_read_is_not_cached(
    kind: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    output, cached = await answered(kind().look_up, MemoryCache())
    assert (str(output), cached) == ("1", False)
    assert "SystemExit" in caplog.messages[0]


def test_the_reason_names_the_object_and_its_place() -> None:
    class Service:
        def __init__(self) -> None:
            self.client = threading.Thread()

        def look_up(self, data: Any) -> Any:
            return self.client

    with pytest.raises(NotCacheable) as refused:
        identity(Service().look_up, "`crm:look_up`")
    assert refused.value.message == (
        "`crm:look_up` depends on `client` of the object of `crm:look_up`. It is of the type "
        "`threading.Thread`, which cannot be compared by value"
    )


async def test_a_declared_key_stands_for_what_cannot_be_compared() -> None:
    class Service:
        def __init__(self, user: str) -> None:
            self.user, self.client = user, threading.Thread()

        def cache_key(self) -> Any:
            return {"user": self.user}

        def look_up(self, data: Any) -> str:
            return self.user

    def of_function(user: str) -> Any:
        who = from_an_iterator(user)
        who.cache_key = user
        return who

    for made in (lambda user: Service(user).look_up, of_function):
        cache = MemoryCache()
        assert await answered(made("alice"), cache) == ("alice", False)
        assert await answered(made("bob"), cache) == ("bob", False)
        assert await answered(made("alice"), cache) == ("alice", True)


@pytest.mark.parametrize("key", [object(), lambda: 1 / 0, threading.Thread()])
def test_a_declared_key_that_is_not_a_value_is_refused(key: Any) -> None:
    who = closure("alice")
    who.cache_key = key
    with pytest.raises(NotCacheable, match="`cache_key`"):
        identity(who, "`x:who`")


@pytest.mark.guarantee("G21")
async def test_state_that_changes_during_the_call_is_not_stored_under_the_old_key() -> None:
    box = Greeter("alice")

    async def who(data: Any) -> str:
        box.user = "bob"  # another task, for instance
        return box.user

    cache = MemoryCache()
    assert await answered(who, cache) == ("bob", False)
    box.user = "alice"
    assert (await answered(who, cache))[1] is False
    assert len(cache) == 0


# Resources ------------------------------------------------------------------------------------------------


class Tenant(AppResources):
    user: str
    client: Any


class KeyedTenant(Tenant):
    def cache_key(self) -> Any:
        return self.user


class AttributeTenant(Tenant):
    cache_key: str


def with_resources(data: Any, resources: Tenant) -> str:
    return resources.user


class UsesResources:
    wants_context = False

    async def ask(self, ask: Ask) -> Reply:
        return Reply(output=ask.resources.user)


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("target", [with_resources, UsesResources()], ids=["a function", "an agent"])
async def test_resources_count_by_their_declared_key(target: Any, caplog: pytest.LogCaptureFixture) -> None:
    cache = MemoryCache()
    for user in ("alice", "bob", "alice"):
        resources = Tenant(user=user, client=object())
        assert await answered(target, cache, resources) == (user, False)
    assert "takes `resources`, and Tenant has no `cache_key`" in caplog.messages[0]
    for made in (
        lambda user: KeyedTenant(user=user, client=object()),
        lambda user: AttributeTenant(user=user, client=object(), cache_key=user),
    ):
        cache = MemoryCache()
        assert await answered(target, cache, made("alice")) == ("alice", False)
        assert await answered(target, cache, made("bob")) == ("bob", False)
        assert await answered(target, cache, made("alice")) == ("alice", True)


async def test_resources_that_a_callable_does_not_take_do_not_count() -> None:
    cache = MemoryCache()
    assert await answered(closure("x"), cache, Tenant(user="alice")) == ("x", False)
    assert await answered(closure("x"), cache, Tenant(user="bob")) == ("x", True)


# Values ---------------------------------------------------------------------------------------------------

Point = namedtuple("Point", "x y")
VALUES: list[Any] = [
    None, True, False, 1, 0, 1.0, -0.0, 0.0, float("inf"), 1j, "1", b"1", "", "\ud800", 10**5000,
    [], (), {}, set(), frozenset(), [1], (1,), {1}, frozenset({1}), [[1]], [1, [1]], {"a": 1}, {"a": True},
    {"a": 1, "b": 2}, {"b": 2, "a": 1}, OrderedDict(a=1), defaultdict(int, a=1), defaultdict(list, a=1),
    Counter(a=1), deque([1]), deque([1], 2), range(1), range(2), Point(1, 2), (1, 2),
    date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC), timedelta(1), Decimal("1"), Decimal("1.0"),
    Fraction(1, 2), UUID(int=1), Path("a"), Path("b"), re.compile("a"), re.compile("a", re.IGNORECASE),
    re.compile(b"a"), User.ALICE, User.BOB, Data("a"), Data("b"), Model(user="a"), Greeter("a"), Greeter,
    int, str, list[int], list[str], int | None, len, str.upper, "x".upper, "y".upper,
    types.SimpleNamespace(a=1), types.SimpleNamespace(a=2),
    functools.partial(len), functools.partial(len, [1]),
]  # fmt: skip


def test_different_values_have_different_identities_and_equal_ones_the_same() -> None:
    import copy

    found = [repr(identity(value, "it")) for value in VALUES]
    repeated = [VALUES[at] for at, one in enumerate(found) if found.index(one) != at]
    assert repeated == []
    for value, before in zip(VALUES, found, strict=True):
        assert repr(identity(copy.deepcopy(value), "it")) == before


def test_a_value_that_contains_itself_has_an_identity() -> None:
    def made(number: int) -> list[Any]:
        loop: list[Any] = [number]
        loop.append(loop)
        return loop

    assert identity(made(1), "it") == identity(made(1), "it") != identity(made(2), "it")


def test_loggers_and_locks_do_not_decide() -> None:
    lock = threading.Lock()

    def who(data: Any) -> Any:
        LOG.info("asked")
        with lock:
            return data

    assert identity(who, "it") == identity(who, "it")


def test_comments_and_lines_of_a_function_do_not_count(tmp_path: Path) -> None:
    def made(text: str) -> Any:
        scope: dict[str, Any] = {}
        exec(compile(text, "x.py", "exec"), scope)
        return scope["who"]

    first = identity(made("def who(data):\n    return data + 1\n"), "it")
    assert identity(made("\n# a comment\ndef who(data):\n    return data + 1  # more\n"), "it") == first
    assert identity(made("def who(data):\n    return data + 2\n"), "it") != first
