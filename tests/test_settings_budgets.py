"""`[[budgets.rule]]` in flujo.toml: what is wrong in it, with file and line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.domain.shared_budgets import BudgetRule, Match, Window
from flujo.domain.usage import UsageLimits
from flujo.exceptions import SettingsError
from flujo.settings import Settings, load

if TYPE_CHECKING:
    from pathlib import Path


def read(folder: Path, text: str) -> Settings:
    (folder / "flujo.toml").write_text(text, "utf-8")
    return load(folder / "flujo.toml")


FIRST = '[[budgets.rule]]\nname = "first"\nrequests_limit = 3\n\n'


def test_a_rule_is_read_beside_the_limits_of_each_run(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        "[budgets]\ntotal_tokens_limit = 9\n"
        + FIRST
        + '[[budgets.rule]]\nname = "team"\nmatch = {blueprint = "x", metadata.team = "s"}\nper = ["user"]\n'
        'window = "day"\nzone = "Europe/Berlin"\ntotal_cost_usd_limit = 2\non_exhausted = "pause"\n',
    )
    assert settings.budgets.limits == UsageLimits(total_tokens_limit=9)
    assert settings.budgets.rules[1] == BudgetRule(
        name="team",
        match=Match(blueprint="x", metadata={"team": "s"}),
        per=("user",),
        window=Window(span="day", zone="Europe/Berlin"),
        limits=UsageLimits(total_cost_usd_limit=2.0),
        on_exhausted="pause",
    )
    assert ("budgets.rule.team.window", "day", "flujo.toml:7") in list(settings.listed())


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('name = "first"\nrequests_limit = 1', ":6: two rules are named 'first'"),
        ('name = "b"', ":5: rule 'b' limits nothing"),
        ("requests_limit = 1", ":5: [[budgets.rule]] has no `name`"),
        ('name = "b c"\nrequests_limit = 1', ":6: 'b c' cannot name a rule"),
        ('name = "b"\nrequests_limit = -1', ":7: `requests_limit` must be greater than 0"),
        ('name = "b"\ntotal_cost_usd_limit = 0', ":7: `total_cost_usd_limit` must be greater than 0"),
        ('name = "b"\ntotal_cost_usd_limit = inf', ":7: `total_cost_usd_limit` must be a finite number"),
        (
            'name = "b"\nrequest_limit = 1',
            ":7: unknown key `request_limit` in [[budgets.rule]]; did you mean",
        ),
        ('name = "b"\nrequests_limit = 1\nmatch = {usr = "x"}', ":8: unknown key `usr` in [[budgets.rule]]"),
        (
            'name = "b"\nrequests_limit = 1\nmatch = {blueprint = "x", pipeline = "y"}',
            ":8: no run is of a `blueprint` and of a `pipeline`, so the rule can never match",
        ),
        ('name = "b"\nrequests_limit = 1\nmatch = {user = ""}', ":8: `match.user` String should have"),
        (
            'name = "b"\nrequests_limit = 1\nmatch = {metadata = {"a-b" = 1}}',
            ":8: `match.metadata` names 'a-b'",
        ),
        ('name = "b"\nrequests_limit = 1\nper = ["team"]', ":8: `per` names 'team'"),
        ('name = "b"\nrequests_limit = 1\nper = ["user", "user"]', ":8: `per` names something twice"),
        ('name = "b"\nrequests_limit = 1\nwindow = "week"', ":8: `window` must be 'day', 'month' or 'none'"),
        ('name = "b"\nrequests_limit = 1\nzone = "Mars/X"', ":8: there is no time zone 'Mars/X'"),
        (
            'name = "b"\nrequests_limit = 1\non_exhausted = "ask"',
            ":8: `on_exhausted` must be 'fail', 'pause' or 'finish'",
        ),
    ],
)
def test_what_is_wrong_has_its_line(tmp_path: Path, second: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(tmp_path, FIRST + "[[budgets.rule]]\n" + second + "\n")
    assert message in error.value.message
