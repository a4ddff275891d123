"""Blueprints with errors in steps that only compute: values for the context, and early ends."""

from __future__ import annotations

from bad.meaning_cases import Case


def sets(values: str, keys: str = "") -> str:
    """Return a `set` step on line 9."""
    return f"  - {{kind: set, name: put, set: {{{values}}}{keys}}}\n"


SETS = [
    Case("set-of-nothing", "  - {kind: set, name: put, set: {}}\n", "FLJ125", "at least 1", None),
    Case("set-of-an-unknown-field", sets("cuont: 1"), "FLJ214", "no field 'cuont'", "cuont"),
    Case("set-to-another-type", sets("count: many"), "FLJ215", '"many" is `string`', "many"),
    Case("set-to-the-type-of-an-expression", sets("count: '{{ input.text }}'"), "FLJ215", "is `string`", None),
    Case("set-to-an-unknown-name", sets("count: '{{ inptu.n }}'"), "FLJ204", "inptu", "inptu"),
    Case("set-in-a-cache", f"  - kind: cache\n    name: known\n    step: {sets('count: 1').strip(' -')}", "FLJ261",
         "sets 'count'", "count", line=11),
    Case("set-with-a-cache", sets("count: 1", ", cache: {}"), "FLJ261", "only evaluates expressions", "cache"),
    Case("set-with-attempts", sets("count: 1", ", config: {max_retries: 2}"), "FLJ213", "evaluated once", "max_retries"),
    Case("set-in-the-background", sets("count: 1", ", config: {execution_mode: background}"), "FLJ280",
         "only evaluates expressions", "execution_mode"),
    Case("set-by-two-branches", "  - kind: parallel\n    name: both\n    branches:\n"
         "      one: [{kind: set, name: a, set: {count: 1}}]\n      two: [{kind: set, name: b, set: {count: 2}}]\n",
         "FLJ235", "both write `context.count`", "count", line=13),
]  # fmt: skip

STOPPING = [*SETS]
