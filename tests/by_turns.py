"""Which cases of a test run on which database: the engine and its services do not know which one they have.

`tests/conformance` requires the same of each store. So a case runs on SQLite or on Postgres, by turns that never change,
and a case that runs in memory too still does. A test of a guarantee meets both databases, in different cases or, when it
has one case, in that. `make soak` runs each case on both, and so does a pytest that gets files or `-k`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest

DATABASES = ("sqlite", "postgres")
ABOUT_DATABASES = ("tests/state/", "tests/conformance/")
"""The folders of tests that always run on both."""


def left_out(items: Sequence[pytest.Item]) -> Iterator[pytest.Item]:
    """Yield the tests whose turn is not now: the same case runs on the other database."""
    functions: dict[str, dict[str, dict[str, pytest.Item]]] = defaultdict(lambda: defaultdict(dict))
    for item in items:
        if (database := _database(item)) and not item.nodeid.startswith(ABOUT_DATABASES):
            function, _, case = item.nodeid.partition("[")
            functions[function][case.replace(database, "")][database] = item
    for function, cases in functions.items():
        # Sorted, because tests come in a random order.
        on_both = [tests for _, tests in sorted(cases.items()) if len(tests) == len(DATABASES)]
        for number, tests in enumerate(on_both, crc32(function.encode())):
            left = tests[DATABASES[number % len(DATABASES)]]
            if len(on_both) > 1 or left.get_closest_marker("guarantee") is None:
                yield left


def _database(item: pytest.Item) -> str:
    """Return the database that a test names in its parameters, or "" unless it is one."""
    callspec = getattr(item, "callspec", None)
    named = [] if callspec is None else [each for each in callspec.params.values() if each in DATABASES]
    return str(named[0]) if len(named) == 1 else ""
