"""Rules about calls with effects: settings without meaning, and retries that may repeat an effect."""

from flujo.blueprint.diagnostics import rule

_CALL = "steps:\n  - name: pay\n    call: skills.bank:pay\n    with: {amount: 5}\n"
_TELLER = "agents: {teller: {model: a:b, tools: [{call: skills.bank:pay, enforce_idempotency: true}]}}\n"
ENFORCED_AGENT = rule(
    "FLJ265",
    "effect-of-no-call",
    "A setting for calls on a step without `call`",
    finds="`effect`, `enforce_idempotency`, `in_doubt` or `reconcile` on a step with an agent.",
    why="They describe the effect of a call. A model request has no effect.",
    example="steps:\n  - {name: sort, agent: sorter, enforce_idempotency: true}",
    instead=_CALL + "    enforce_idempotency: true",
)
UNRECORDED_TOOL = rule(
    "FLJ444",
    "unrecorded-tool",
    "A tool whose calls must be recorded, in a step that does not record them",
    finds="A tool with `enforce_idempotency: true`, `approve` or `effect: transactional` of an agent in a "
    "step of another kind than `granular`.",
    why="Such a step is one attempt: its tool calls have no entries of their own, so a call cannot be "
    "recorded before it is made or with what it writes, and cannot wait for a human.",
    example=_TELLER + "steps:\n  - {name: serve, agent: teller}",
    instead=_TELLER + "steps:\n  - {kind: granular, name: serve, agent: teller}",
)
REQUIRES_RECORD = rule(
    "FLJ432",
    "record-required",
    "A callable whose calls must be recorded, in a step that does not record them",
    finds="A tool or a `call` whose function has a parameter `idempotency_key` without a default, or "
    "`@flujo.tool(enforce_idempotency=True)`, on a step without `enforce_idempotency: true`. A tool may have "
    "it itself.",
    why="Only a call that is recorded before it is made has a key. The run could not start.",
    example="# def pay(amount: int, idempotency_key: str): …\n"
    "agents: {teller: {model: a:b, tools: [skills.bank:pay]}}\n"
    "steps:\n  - {kind: granular, name: serve, agent: teller}",
    instead="# def pay(amount: int, idempotency_key: str): …\n" + _TELLER + "steps:\n"
    "  - {kind: granular, name: serve, agent: teller}",
)
REPEATED_IN_DOUBT = rule(
    "FLJ433",
    "unsafe-repeated-in-doubt",
    "An unsafe call that would be repeated while it is in doubt",
    finds="`in_doubt: retry_same_key` for a recorded call whose effect is `unsafe`: on a tool that declares "
    "no other effect, or on its `granular` step; on a `call` step, if the step or `@flujo.tool` on its "
    "function says `unsafe`. A call is recorded with `enforce_idempotency: true` or `approve`.",
    why="`unsafe` says that a second call may be a second effect, even with the same key, and a call in "
    "doubt may have had the first one. The run could not start.",
    example=_TELLER + "steps:\n  - {kind: granular, name: serve, agent: teller, enforce_idempotency: true,\n"
    "     in_doubt: retry_same_key}",
    instead="agents: {teller: {model: a:b, tools: [{call: skills.bank:pay, effect: idempotent}]}}\n"
    "steps:\n  - {kind: granular, name: serve, agent: teller, enforce_idempotency: true}",
)
LENT_CONNECTION = rule(
    "FLJ447",
    "connection-of-a-call",
    "A `call` of a function that writes on a connection of Flujo",
    finds='`call` with a function that has `@flujo.tool(effect="transactional")` and a parameter '
    "`connection`, which `with` does not pass.",
    why="Only a tool call of a `granular` step is a transaction with its entry. A `call` step has no "
    "connection to pass, so the function could not write.",
    example='# skills/seats.py: @flujo.tool(effect="transactional")\n# def book(seat, connection): …\n'
    "steps:\n  - {name: book, call: skills.seats:book, effect: transactional, with: {seat: 5}}",
    instead="agents: {clerk: {model: a:b, tools: [skills.seats:book]}}\n"
    "steps:\n  - {kind: granular, name: serve, agent: clerk}",
)
NOT_ENFORCED = rule(
    "FLJ266",
    "in-doubt-not-enforced",
    "`in_doubt` or `reconcile` without the settings that they need",
    finds="`in_doubt` or `reconcile` without `enforce_idempotency: true` on a step or a tool, `reconcile` "
    "without `in_doubt: reconcile`, or `in_doubt: reconcile` without `reconcile`.",
    why="Without `enforce_idempotency` a call is repeated after a crash, whatever `in_doubt` says.",
    example=_CALL + "    in_doubt: fail",
    instead=_CALL + "    enforce_idempotency: true\n    in_doubt: fail",
)
REPEATED_EFFECT = rule(
    "FLJ267",
    "repeated-effect",
    "A retry that may repeat an effect, or that a human has to allow",
    finds="`max_retries` on a call that declares `effect: unsafe`; with `enforce_idempotency: true`, "
    "`max_retries` on a call with `in_doubt: pause` whose effect is `unsafe` (the default) or "
    "`transactional`.",
    why="A failed attempt may have had its effect before it failed. Without `enforce_idempotency` the next "
    "attempt repeats it. With `enforce_idempotency` the run asks a human, except after the failures that "
    "`flujo explain BLUEPRINT` lists.",
    example=_CALL + "    effect: unsafe\n    config: {max_retries: 2}",
    instead=_CALL + "    effect: idempotent\n    enforce_idempotency: true\n    config: {max_retries: 2}",
)
