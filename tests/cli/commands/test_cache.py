"""`flujo cache why` says what the key of a cached step was made of, and what differs from the nearest answer."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

import printed_commands

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

KNOWN = """\
version: "1"
name: known
input_schema: {type: object}
steps:
  - name: greet
    call: skills.known:greet
    with: {name: "{{ input.name }}"}
    cache: {ttl_s: 1h}
    config: {max_retries: 1}
"""
EACH = """\
version: "1"
name: each
steps:
  - kind: map
    name: guests
    over: 'input.split(" ")'
    max_concurrency: 1
    steps:
      - kind: cache
        name: known
        step: {name: greet, call: "skills.known:greet", with: {name: "{{ item }}"}}
"""
CODE = '''\
"""A greeting, and the module that decides it."""

from skills.words import HELLO


def greet(name):
    return HELLO + name


def reads_all(name, context):
    return name
'''


@pytest.fixture
def known(project: Project) -> Project:
    (project.root / "skills/known.py").write_text(CODE, "utf-8")
    (project.root / "skills/words.py").write_text('HELLO = "Hello "\n', "utf-8")
    toml = project.root / "flujo.toml"
    toml.write_text(toml.read_text("utf-8") + '\n[cache]\nbackend = "state"\n', "utf-8")
    project.blueprint("known", KNOWN)
    project.blueprint("each", EACH)
    return project


def run(project: Project, *words: str) -> None:
    process = project.start("run", *words)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def why(flujo: Flujo, *words: str) -> dict[str, Any]:
    result = flujo("cache", "why", *words, "--json")
    assert result.exit_code == 0, result.output
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def greeted(project: Project, name: str) -> None:
    run(project, "known", "--input", json.dumps({"name": name}))


def test_the_first_lookup_names_the_parts_of_its_key(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    found = why(flujo, "greet")
    assert found["result"] == "miss"
    assert found["nearest"] is None
    assert set(found["parts"]) == {"format", "step", "argument name", "callable skills.known:greet"}
    assert "no earlier answer to compare with" in found["why"]


def test_another_input_is_the_part_that_differs(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    greeted(known, "Bob")
    found = why(flujo, "greet")
    assert found["nearest"]["differs"] == ["argument name"]
    assert found["nearest"]["stored"] is True
    shown = flujo("cache", "why", "greet").stdout
    assert "its key differs from the nearest earlier one in `argument name`" in shown
    assert "differs" in next(line for line in shown.splitlines() if line.startswith("argument name"))


def test_a_changed_module_below_the_callable_is_the_part_that_differs(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    (known.root / "skills/words.py").write_text('HELLO = "Hi "\n', "utf-8")
    greeted(known, "Ada")
    assert why(flujo, "greet")["nearest"]["differs"] == ["callable skills.known:greet"]


def test_a_changed_field_of_the_step_is_the_part_that_differs(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    known.blueprint("known", KNOWN + "    output_schema: {type: string}\n")
    greeted(known, "Ada")
    assert why(flujo, "greet")["nearest"]["differs"] == ["step"]


def test_the_nearest_of_several_lookups_is_shown(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    (known.root / "skills/words.py").write_text('HELLO = "Hi "\n', "utf-8")
    greeted(known, "Bob")
    greeted(known, "Ada")
    found = why(flujo, "greet")
    assert found["nearest"]["differs"] in (["argument name"], ["callable skills.known:greet"])


def test_a_hit_is_called_a_hit(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    greeted(known, "Ada")
    assert why(flujo, "greet")["result"] == "hit"
    assert "its answer came from the cache" in flujo("cache", "why", "greet").stdout
    first = json.loads(flujo("tasks", "list", "--json").stdout)[-1]["run_id"]
    assert why(flujo, "greet", "--run", first)["result"] == "miss"


def test_an_answer_that_is_gone_from_the_cache_is_the_reason(known: Project, flujo: Flujo) -> None:
    known.blueprint("known", KNOWN.replace("1h", "1ms"))
    greeted(known, "Ada")
    greeted(known, "Ada")
    found = why(flujo, "greet")
    assert found["nearest"]["differs"] == []
    assert found["nearest"]["stored"] is False
    assert "expired" in found["why"]


def test_answers_in_memory_are_the_reason(known: Project, flujo: Flujo) -> None:
    toml = known.root / "flujo.toml"
    toml.write_text(toml.read_text("utf-8").replace('backend = "state"', 'backend = "memory"'), "utf-8")
    greeted(known, "Ada")
    greeted(known, "Ada")
    assert "kept in the memory of one process" in why(flujo, "greet")["why"]


def test_a_step_without_a_key_says_why(known: Project, flujo: Flujo) -> None:
    known.blueprint("known", KNOWN.replace("skills.known:greet", "skills.known:reads_all"))
    greeted(known, "Ada")
    found = why(flujo, "greet")
    assert found["result"] == "not cached"
    assert found["why"] == "it is executed every time: `skills.known:reads_all` takes `context`"


def test_a_step_in_a_map_is_named_with_or_without_its_count(known: Project, flujo: Flujo) -> None:
    run(known, "each", "--input", "Ada Bob Ada")
    assert why(flujo, "guests.1/known")["nearest"]["differs"] == ["argument name"]
    assert why(flujo, "guests[2]/known")["result"] == "hit"
    for name in ("known", "guests/known"):
        assert [each["result"] for each in why(flujo, name)["lookups"]] == ["miss", "miss", "hit"]


def test_the_next_command_shows_the_step(known: Project, flujo: Flujo) -> None:
    run(known, "each", "--input", "Ada")
    [following] = printed_commands.commands(flujo("cache", "why", "known").stderr)
    program, *words = shlex.split(following)
    assert (program, words[0], words[2]) == ("flujo", "trace", "guests.0/known")
    shown = flujo(*words)
    assert shown.exit_code == 0, shown.output
    assert "Hello Ada" in shown.stdout


def test_an_unknown_step_lists_the_cached_ones(known: Project, flujo: Flujo) -> None:
    run(known, "each", "--input", "Ada")
    result = flujo("cache", "why", "nonsense")
    assert result.exit_code == 2
    assert "its cached steps: `guests/known`" in result.stderr
    assert flujo("cache", "why", "guests/knwn").stderr.count("did you mean `guests/known`?") == 1


def test_an_unknown_run_is_an_error(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    assert flujo("cache", "why", "greet", "--run", "nothing").exit_code != 0


LAZY = {
    "from a module": "def greet(name):\n    from skills.words import hello\n    return hello(name)\n",
    "as another name": "def greet(name):\n    import skills.words as words\n    return words.hello(name)\n",
    "a dotted name": "def greet(name):\n    import skills.words\n    return skills.words.hello(name)\n",
    "relative": "def greet(name):\n    from . import words\n    return words.hello(name)\n",
    "import_module": (
        "import importlib\n\n\ndef greet(name):\n"
        '    return importlib.import_module("skills.words").hello(name)\n'
    ),
    "import_module, relative": (
        "from importlib import import_module\n\n\ndef greet(name):\n"
        '    return import_module(".words", package="skills").hello(name)\n'
    ),
    "__import__": 'def greet(name):\n    return __import__("skills.words").words.hello(name)\n',
    "on a condition": (
        "def greet(name):\n    if name:\n        from skills.words import hello\n"
        "        return hello(name)\n    return name\n"
    ),
    "a global": (
        "words = None\n\n\ndef greet(name):\n    global words\n    if words is None:\n"
        "        from skills import words\n    return words.hello(name)\n"
    ),
    "in a helper": "from skills.helper import hello\n\n\ndef greet(name):\n    return hello(name)\n",
    "from a package": "def greet(name):\n    from skills.whole import hello\n    return hello(name)\n",
    "with libraries": (
        "def greet(name):\n    import colorsys\n    import jsonschema\n    from skills.words import hello\n"
        "    return hello(name) if colorsys.rgb_to_hls and jsonschema.validate else name\n"
    ),
    "of a class": (
        "class Greeter:\n    def greet(self, name):\n        from skills.words import hello\n"
        "        return hello(name)\n\n\ngreet = Greeter().greet\n"
    ),
}
WORDS = """\
import dataclasses
import enum
import logging
import re
import typing

from skills.base import BASE

log = logging.getLogger(__name__)
WORD = re.compile(r"\\w+", re.I)
TIMES = 60 * BASE
TABLE = {"hello": ["Hello"], "times": TIMES}


class Tone(enum.Enum):
    WARM = "warm"


@dataclasses.dataclass
class Greeting:
    name: str
    tone: str = "warm"
    rest: list[str] = dataclasses.field(default_factory=list)

    def text(self, before: typing.Any = None) -> str:
        return f"{TABLE['hello'][0]} {self.name} {Tone.WARM.value}"


def hello(name, *, mark="!"):
    log.debug(name)
    return Greeting(WORD.findall(name)[0]).text() + mark
"""


def is_cached(project: Project, flujo: Flujo) -> bool:
    greeted(project, "Ada")
    return bool(why(flujo, "greet")["result"] == "hit")


@pytest.fixture
def lazy(known: Project) -> Project:
    (known.root / "skills/words.py").write_text(WORDS, "utf-8")
    (known.root / "skills/base.py").write_text("BASE = 60\n", "utf-8")
    (known.root / "skills/whole").mkdir()
    (known.root / "skills/whole/__init__.py").write_text("from ..words import hello\n", "utf-8")
    helper = "def hello(name):\n    from .words import hello as inner\n    return inner(name)\n"
    (known.root / "skills/helper.py").write_text(helper, "utf-8")
    return known


@pytest.mark.guarantee("G21")
def test_a_module_that_is_imported_during_the_call_counts_by_its_source(lazy: Project, flujo: Flujo) -> None:
    names = {f"form_{number}": form for number, form in enumerate(LAZY)}
    steps = ""
    for name, form in names.items():
        (lazy.root / f"skills/{name}.py").write_text(LAZY[form], "utf-8")
        steps += (
            KNOWN.partition("steps:\n")[2].replace("greet\n", f"{name}\n", 1).replace(".known:", f".{name}:")
        )
    lazy.blueprint("known", KNOWN.partition("steps:\n")[0] + "steps:\n" + steps)

    def cached() -> list[str]:
        """Return the forms of the import whose answers came from the cache."""
        greeted(lazy, "Ada")
        return [form for name, form in names.items() if why(flujo, name)["result"] == "hit"]

    assert cached() == []
    assert cached() == list(LAZY)
    # Of another length: Python takes its bytecode for a source of the same second and length.
    (lazy.root / "skills/base.py").write_text("BASE = 61  # was 41\n", "utf-8")
    assert cached() == []
    (lazy.root / "skills/words.py").write_text(WORDS.replace('["Hello"]', '["Hi"]'), "utf-8")
    assert cached() == []


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            'TENANT = os.environ.get("TENANT")\n\n\ndef hello(name):\n    return f"{TENANT} {name}"\n',
            "imported during the call",
        ),
        (
            'def hello(name, tenant=os.environ.get("TENANT")):\n    return tenant\n',
            "imported during the call",
        ),
        ('def hello(name):\n    return os.environ.get("TENANT")\n', "`os.environ`"),
        ('from os import getenv\n\n\ndef hello(name):\n    return getenv("TENANT")\n', "`os.getenv`"),
        (
            'class Tenant:\n    name = os.environ.get("TENANT")\n\n\ndef hello(name):\n    return Tenant.name\n',
            "imported during the call",
        ),
        (
            'CALLS = []\n\n\ndef hello(name):\n    CALLS.append(name)\n    return f"{len(CALLS)} {name}"\n',
            "imported during the call",
        ),
    ],
    ids=["a constant", "a default", "in the function", "getenv", "a class", "changed by the call"],
)
def test_what_the_source_of_such_a_module_does_not_tell_is_not_cached(
    words: str, reason: str, lazy: Project, flujo: Flujo
) -> None:
    (lazy.root / "skills/known.py").write_text(LAZY["from a module"], "utf-8")
    (lazy.root / "skills/words.py").write_text("import os\n" + words, "utf-8")
    assert is_cached(lazy, flujo) is False
    process = lazy.start("run", "known", "--input", '{"name": "Ada"}')
    _, errors = process.communicate(timeout=120)
    assert "FLJ417" in errors
    assert reason in errors
    assert why(flujo, "greet")["result"] == "miss"
