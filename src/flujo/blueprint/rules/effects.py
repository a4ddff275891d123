"""Rules about calls with effects: settings without meaning, and retries that may repeat an effect."""

from flujo.blueprint.diagnostics import rule

_CALL = "steps:\n  - name: pay\n    call: skills.bank:pay\n    with: {amount: 5}\n"
ENFORCED_AGENT = rule(
    "FLJ265",
    "effect-of-no-call",
    "A setting for calls on a step without `call`",
    finds="`effect`, `enforce_idempotency`, `in_doubt` or `reconcile` on a step with an agent.",
    why="They describe the effect of a call. A model request has no effect.",
    example="steps:\n  - {name: sort, agent: sorter, enforce_idempotency: true}",
    instead=_CALL + "    enforce_idempotency: true",
)
NOT_ENFORCED = rule(
    "FLJ266",
    "in-doubt-not-enforced",
    "`in_doubt` or `reconcile` without the settings that they need",
    finds="`in_doubt` or `reconcile` without `enforce_idempotency: true`, `reconcile` without `in_doubt: "
    "reconcile`, or `in_doubt: reconcile` without `reconcile`.",
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
