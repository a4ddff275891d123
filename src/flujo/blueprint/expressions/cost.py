"""Bounds the memory and time of an expression before CEL evaluates it.

CEL has a limit for iterations, and none for sizes: `text.replace("a", text)` with 50 kB takes 2.5 GB, and a
failed allocation may end the process. So the tree is walked with its actual values before CEL evaluates it.
Where a value is not known, a `Bound` is at least as large. One unit of cost is one byte that CEL allocates;
CEL frees nothing before the end of an evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.blueprint.expressions.cel_ast import Node, collected, operands
from flujo.blueprint.expressions.cel_lexicon import LOOP, LOOP_STAND_IN
from flujo.domain.wording import size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

BUDGET = 256 * 1024 * 1024
"""The cost of the most expensive evaluation."""

_NODE = 64
"""The size of a number, and of the head of a text, list or map."""
_ITERATION = 256
_MOST_ITERATIONS = 50_000
"""CEL stops after 10,000, and does not count those of branches that it skips."""
_APPEND = 32
"""What `map` and `filter` allocate for each item they already have when they add one: CEL copies the list."""
_READS = 16
"""How many bytes are read at the cost of one that is written."""
_PATTERN = 8
"""What compiling a pattern costs for each of its bytes."""
_FRACTION = 1_400
"""The longest text of one number in `format`, whose precision is at most 1,000."""

_BYTES = 2048
"""The longest constant: an expression is not longer."""

_READERS = frozenset(
    """
    bool contains double duration endsWith getDate getDayOfMonth getDayOfWeek getDayOfYear getFullYear
    getHours getMilliseconds getMinutes getMonth getSeconds indexOf int lastIndexOf matches size startsWith
    timestamp type uint _==_ _!=_ _<_ _<=_ _>_ _>=_ _-_ _*_ _/_ _%_ !_ -_ _&&_ _||_ @in @not_strictly_false
    """.split()  # noqa: SIM905 - as in the lexicon
)
"""Functions that read their operands and return a number, a boolean, a time or a type."""
_SELECTORS = frozenset({"_[_]", "_?_:_", "dyn", "get"})
"""Functions that return a part of an operand."""


class TooExpensive(Exception):
    """The evaluation may cost more than `BUDGET`; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A value that is not followed: at most so large."""

    size: int = _NODE
    """Its size, with everything inside it."""
    length: int = 0
    """How many items, entries or characters it has."""
    item: Any = None
    """A value that is at least as large as each of its items; None for one of the whole size."""


_SCALAR = Bound()


def is_bounded(tree: Node) -> bool:
    """Return whether an evaluation costs no more than reading its data, whatever the values are."""
    if tree.kind == "fold":
        return False
    if tree.kind == "call" and tree.name not in _READERS | _SELECTORS:
        # Adding a number adds numbers; any other function may copy a text or a list.
        return tree.name == "_+_" and any(map(_is_number, tree.parts)) and all(map(is_bounded, tree.parts))
    return all(map(is_bounded, operands(tree)))


def check(tree: Node, data: Mapping[str, Any]) -> None:
    """Raise when the evaluation of an expression with these values may cost too much.

    Raises:
        TooExpensive: naming the operation that goes beyond the budget.
    """
    walk = _Walk()
    names = {LOOP if name == LOOP_STAND_IN else name: value for name, value in data.items()}
    walk.spend(walk.size(walk.value(tree, names)), "its value")  # which is copied to Python


def _is_number(node: Node) -> bool:
    return node.kind == "const" and type(node.value) in (int, float)


class _Walk:
    """One evaluation with sizes instead of values."""

    def __init__(self) -> None:
        self.spent = 0
        self.iterations = 0
        self._sizes: dict[int, tuple[Any, int]] = {}

    def spend(self, cost: int, where: str) -> None:
        self.spent += cost
        if self.spent > BUDGET:
            limit = f"the limit of {size(BUDGET)}"
            raise TooExpensive(f"{where} with values of this size exceeds {limit}")

    def size(self, value: Any) -> int:
        """Return the size of a value with everything inside it; shared parts count each time."""
        if isinstance(value, str):
            return _NODE + (len(value) if value.isascii() else 4 * len(value))
        if isinstance(value, Bound):
            return value.size
        if not isinstance(value, list | dict):
            return _NODE
        known = self._sizes.get(id(value))
        if known is None:
            inside = [*value, *value.values()] if isinstance(value, dict) else value
            known = (value, _NODE + sum(map(self.size, inside)))  # holding `value` keeps its `id` its own
            self._sizes[id(value)] = known
        return known[1]

    def value(self, node: Node, names: Mapping[str, Any]) -> Any:
        """Return the value of a node, or a bound of it, and spend its cost."""
        match node.kind:
            case "const":
                return Bound(_BYTES, _BYTES) if node.value is None and node.name != "null" else node.value
            case "name":
                return names.get(node.name, _SCALAR)
            case "field":
                return self._field(node, names)
            case "list":
                self.spend(_NODE * len(node.parts), "a list")
                return [self.value(part, names) for part in node.parts]
            case "map":
                self.spend(_NODE * len(node.parts), "a map")
                return self._map([self.value(part, names) for part in node.parts])
            case "fold":
                return self._fold(node, names)
            case "call":
                return self._call(node, names)

    def _field(self, node: Node, names: Mapping[str, Any]) -> Any:
        of = self.value(node.parts[0], names)
        if node.test:
            return node.name in of if isinstance(of, dict) else _SCALAR
        return of.get(node.name, _SCALAR) if isinstance(of, dict) else self._item(of)

    def _map(self, parts: Sequence[Any]) -> Any:
        keys, values = parts[::2], parts[1::2]
        if all(isinstance(key, str) for key in keys):
            return dict(zip(keys, values, strict=True))
        return Bound(_NODE + sum(map(self.size, parts)), len(keys), self._largest(parts))

    def _largest(self, values: Sequence[Any]) -> Any:
        """Return a value that is at least as large as each of `values`."""
        if len(values) == 1:
            return values[0]
        return Bound(max(map(self.size, values), default=_NODE), max(map(_length, values), default=0))

    def _item(self, of: Any) -> Any:
        """Return a value at least as large as each item of a list, or as each value of a map."""
        if isinstance(of, Bound):
            return Bound(of.size, of.size) if of.item is None else of.item
        if isinstance(of, list | dict):
            return self._largest([*of, *of.values()] if isinstance(of, dict) else of)
        return _SCALAR

    # Macros ----------------------------------------------------------------------------------------------

    def _fold(self, node: Node, names: Mapping[str, Any]) -> Any:
        over = self.value(node.parts[0], names)
        added = collected(node)
        if isinstance(over, Bound):
            return self._repeated(node, added, over, names)
        items = list(over) if isinstance(over, list | dict) else []
        found: list[Any] = []
        is_exact = True
        for item in items:
            self.iterations += 1
            if self.iterations > _MOST_ITERATIONS:
                raise TooExpensive("it needs more than 10,000 iterations over lists")
            self.spend(_ITERATION + _APPEND * len(found), "a macro")
            inner = {**names, node.name: item}
            if added is None:
                self._step(node, inner)
                continue
            step = node.parts[3]
            if step.kind == "call" and step.name == "_?_:_":
                is_kept = self.value(step.parts[0], inner)
                if is_kept is False:
                    continue
                is_exact = is_exact and is_kept is True
            found.append(self.value(added, inner))
        if added is None:
            return _SCALAR
        return found if is_exact else Bound(self.size(found), len(found), self._largest(found))

    def _repeated(self, node: Node, added: Node | None, over: Bound, names: Mapping[str, Any]) -> Any:
        """Return the result of a macro over a range whose items are not known: its step, times its length."""
        once = self.spent
        inner = {**names, node.name: self._item(over)}
        made = self.value(added, inner) if added is not None else _SCALAR
        self._step(node, inner)
        appends = _APPEND * over.length if added is not None else 0
        self.spend((self.spent - once + _ITERATION + appends) * over.length, "a macro")
        if added is None:
            return _SCALAR
        return Bound(_NODE + over.length * self.size(made), over.length, made)

    def _step(self, node: Node, names: Mapping[str, Any]) -> None:
        self.value(node.parts[2], names)
        self.value(node.parts[3], names)

    # Functions -------------------------------------------------------------------------------------------

    def _call(self, node: Node, names: Mapping[str, Any]) -> Any:
        if node.name == "_?_:_":
            return self._either(node, names)
        given = [self.value(part, names) for part in operands(node)]
        special = _SPECIAL.get(node.name)
        if special is not None:
            return special(self, *given)
        size = sum(map(self.size, given))
        if node.name in _READERS:
            # A pattern is compiled each time.
            pattern = self.size(given[-1]) * _PATTERN if node.name == "matches" else 0
            self.spend(size // _READS + pattern, _named(node))
            return _compared(node.name, given)
        size *= 2  # `quote` writes some characters as two
        self.spend(size, _named(node))
        return Bound(size, size)

    def _either(self, node: Node, names: Mapping[str, Any]) -> Any:
        choice = self.value(node.parts[0], names)
        if isinstance(choice, bool):
            return self.value(node.parts[1 if choice else 2], names)
        before = self.spent
        first = self.value(node.parts[1], names)
        of_first, self.spent = self.spent, before
        second = self.value(node.parts[2], names)
        self.spent = max(self.spent, of_first)
        return Bound(
            max(self.size(first), self.size(second)),
            max(_length(first), _length(second)),
            self._largest([self._item(first), self._item(second)]),
        )

    def plus(self, left: Any, right: Any) -> Any:
        """`a + b`, of numbers, texts or lists."""
        if any(each is _SCALAR or isinstance(each, bool | int | float | None) for each in (left, right)):
            return _SCALAR
        size = self.size(left) + self.size(right)
        if isinstance(left, list) and isinstance(right, list):
            self.spend(_NODE * (len(left) + len(right)), "`+`")
            return left + right
        self.spend(size, "`+`")
        if isinstance(left, str) and isinstance(right, str):
            return left + right
        length = _length(left) + _length(right)
        return Bound(size, length, self._largest([self._item(left), self._item(right)]))

    def replace(self, text: Any, old: Any, new: Any, most: Any = None) -> Any:
        """`text.replace(old, new)`, with at most `most` replacements."""
        is_known = isinstance(text, str) and isinstance(old, str)
        length = max(1, len(old)) if isinstance(old, str) else 1
        count = text.count(old) if is_known else _length(text) // length + 1
        if isinstance(most, int) and most >= 0:
            count = min(count, most)
        size = self.size(text) + count * self.size(new)
        self.spend(size, "`replace`")
        if is_known and isinstance(new, str) and most is None:
            return text.replace(old, new)
        return Bound(size, size)

    def join(self, texts: Any, separator: Any = "") -> Any:
        """`texts.join(separator)`."""
        size = self.size(texts) + _length(texts) * self.size(separator)
        self.spend(size, "`join`")
        if isinstance(texts, list) and isinstance(separator, str) and all(isinstance(t, str) for t in texts):
            return separator.join(texts)
        return Bound(size, size)

    def split(self, text: Any, separator: Any, most: Any = None) -> Any:
        """`text.split(separator)`, in at most `most` parts."""
        is_known = isinstance(text, str) and isinstance(separator, str)
        count = text.count(separator) + 1 if is_known else _length(text) + 1
        self.spend(2 * _NODE * count + self.size(text), "`split`")
        if is_known and most is None:
            return text.split(separator) if separator else list(text)
        return Bound(self.size(text) + _NODE * (count + 1), count, Bound(self.size(text), _length(text)))

    def format(self, pattern: Any, values: Any = ()) -> Any:
        """`pattern.format(values)`."""
        size = self.size(pattern) + _length(values) * _FRACTION + 6 * self.size(values)
        self.spend(size, "`format`")
        return Bound(size, size)

    def get(self, of: Any, key: Any, default: Any) -> Any:
        """`get(of, key, default)`, which copies the value from Python and back."""
        self.spend(self.size(of) + self.size(default), "`get`")
        if isinstance(key, str) and (of is None or isinstance(of, dict)):
            found = None if of is None else of.get(key)
            return default if found is None else found
        return self._largest([self._item(of), default])

    def index(self, of: Any, key: Any) -> Any:
        """`of[key]`."""
        if isinstance(of, dict) and isinstance(key, str):
            return of.get(key, _SCALAR)
        if isinstance(of, list) and type(key) is int and 0 <= key < len(of):
            return of[key]
        return self._item(of)


def _length(value: Any) -> int:
    if isinstance(value, Bound):
        return value.length
    return len(value) if isinstance(value, str | list | dict) else 0


def _compared(name: str, given: Sequence[Any]) -> Any:
    """Return the result of a comparison of known values, which may exclude a branch, or a scalar."""
    match name, given:
        case "size", [str() | list() | dict() as value]:
            return len(value)
        case "!_", [bool() as value]:
            return not value
        case (("_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_"), [left, right]) if type(left) is type(
            right
        ) and type(left) in (int, str):
            return _COMPARES[name](left, right)
        case "_&&_", [bool() as left, bool() as right]:
            return left and right
        case "_||_", [bool() as left, bool() as right]:
            return left or right
        case _:
            return _SCALAR


def _named(node: Node) -> str:
    return f"`{node.name.strip('_@')}`"


_COMPARES: dict[str, Callable[[Any, Any], bool]] = {
    "_==_": lambda left, right: left == right,
    "_!=_": lambda left, right: left != right,
    "_<_": lambda left, right: left < right,
    "_<=_": lambda left, right: left <= right,
    "_>_": lambda left, right: left > right,
    "_>=_": lambda left, right: left >= right,
}

_SPECIAL: dict[str, Callable[..., Any]] = {
    "_+_": _Walk.plus,
    "_[_]": _Walk.index,
    "dyn": lambda _, value: value,
    "format": _Walk.format,
    "get": _Walk.get,
    "join": _Walk.join,
    "replace": _Walk.replace,
    "split": _Walk.split,
}
