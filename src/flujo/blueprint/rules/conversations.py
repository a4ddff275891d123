"""Rules about conversations of `granular` steps."""

from flujo.blueprint.diagnostics import rule

_TALK = "steps:\n  - kind: granular\n    name: talk\n    agent: writer\n    input: Compare the reports.\n"
NO_ROOM = rule(
    "FLJ431",
    "history-without-room",
    "A limit of the history that the task exceeds",
    finds="`history.max_tokens` of a `granular` step whose `input` is a longer text, at three bytes a token.",
    why="The task is never left out of a request, so the first request would fail.",
    example=_TALK + "    history: {max_tokens: 5}",
    instead=_TALK + "    history: {max_tokens: 50000}",
)
