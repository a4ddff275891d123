"""Every printed command is one command of these words, whatever the words contain."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.domain.commands import command, either, filled, placeholder
from printed_commands import danger

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(st.lists(TEXT))
def test_a_shell_reads_the_words_of_a_command_as_they_are(words: list[str]) -> None:
    assert shlex.split(command("flujo", *words)) == ["flujo", *words]


@pytest.mark.parametrize(
    "word",
    ["a|b", "a;b", "$(touch x)", "`touch x`", "a b", "*", "~", "it's", 'a"b', "!!", "#x", "x>y", "", "ä"],
)
def test_bash_runs_one_command(word: str) -> None:
    line = command("printf", "%s", word)
    assert danger(line) is None
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout.decode() == word


@pytest.mark.parametrize(
    "unsafe",
    [
        "flujo tasks resume x --field decision=approve|amend",
        "flujo trace <RUN>",
        "flujo tasks resume x …",
        "flujo run my blueprint; rm x",
        "flujo run it's",
        "cd my dir && flujo run x",
        "flujo run $NAME",
        "pip install flujo[s3]",
    ],
)
def test_the_check_of_printed_commands_finds(unsafe: str) -> None:
    assert danger(unsafe)


def test_choices_are_written_in_words() -> None:
    assert either(["approve", "amend", "reject"]) == "approve, amend or reject"
    assert either([True, "a b", 3]) == 'true, "a b" or 3'
    assert either(["only"]) == "only"


def test_a_placeholder_is_the_name_in_capitals() -> None:
    assert [placeholder(name) for name in ("decision", "my field", "größe")] == ["DECISION", "VALUE", "VALUE"]


def test_the_commands_of_a_text_get_values() -> None:
    text = "`flujo --debug trace RUN STEP` shows RUN; `flujo resume RUN --set limit=AMOUNT`"
    assert filled(text, RUN="r 1", STEP="a.0") == (
        "`flujo --debug trace 'r 1' a.0` shows RUN; `flujo resume 'r 1' --set limit=AMOUNT`"
    )
    assert filled("`flujo trace RUN STEP`", RUN="r1", STEP="") == "`flujo trace r1`"
