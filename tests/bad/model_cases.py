"""Agents whose model or settings cannot be meant."""

from __future__ import annotations

from bad.meaning_cases import Case

TOP = 'version: "1"\nname: case\nagents:\n  sorter: {model: %s}\nsteps: [{name: sort, agent: sorter}]\n%s'
"""A blueprint whose agent is on line 4."""


def model(
    name: str, said: str, code: str, words: str, under: str, severity: str = "error", keys: str = ""
) -> Case:
    """Return a case whose agent has this model, with further keys of the agent."""
    return Case(name, "", code, words, under, line=4, severity=severity, entry=TOP % (said, keys))


BUDGET = "budget: {total_cost_usd_limit: 1}\n"
MODELS = [
    model("model-without-a-provider", "gpt-5-mini", "FLJ151", "did you mean `openai:gpt-5-mini`?", "gpt-5-mini"),
    model("model-of-a-family", "claude-haiku-4-5", "FLJ151", "did you mean `anthropic:claude-haiku-4-5`?", "claude-haiku-4-5"),
    model("model-with-a-slash", "openai/my-own", "FLJ151", "did you mean `openai:my-own`?", "openai/my-own"),
    model("model-of-an-unknown-family", "fox-1", "FLJ151", "write `provider:model`", "fox-1"),
    model("misspelt-provider", '"opnai:gpt-5-mini"', "FLJ151", "did you mean `openai:gpt-5-mini`?", '"opnai:gpt-5-mini"'),
    model("unknown-provider", "kennel:fox-1", "FLJ151", "`[providers.NAME]`", "kennel:fox-1", "warning"),
    model("unknown-local-model", "local:llama", "FLJ151", "`ollama:llama`", "local:llama"),
    model("misspelt-local-model", "local:smolm2", "FLJ151", "`local:smollm2`", "local:smolm2"),
    model("misspelt-setting", "openai:gpt-4o, model_settings: {temprature: 0}", "FLJ152", "did you mean `temperature`?",
          "temprature"),
    model("unknown-setting", "openai:gpt-4o, model_settings: {wobble: 0}", "FLJ152", "settings: `max_tokens`", "wobble",
          "warning"),
    model("setting-of-another-provider", "openai:gpt-4o, model_settings: {anthropic_effort: low}", "FLJ153",
          "a setting of 'anthropic'", "anthropic_effort", "warning"),
    model("setting-of-a-model-that-reasons", "openai:gpt-5-mini, model_settings: {temperature: 0}", "FLJ153",
          "does not take `temperature`", "temperature", "warning"),
    model("model-without-a-price", "openai:tuned, model_settings: {max_tokens: 9}", "FLJ154", "the price of 'openai:tuned'",
          "sorter", keys=BUDGET),
]  # fmt: skip

NUMBERS = (
    'version: "1"\nname: case\ninput_schema: {type: object, required: [n, m, note], properties: {n: {type: number}, '
    "m: {type: integer}, note: {type: [string, 'null']}}}\nsteps:\n  - {name: say, call: skills.crm:plain, %s}\n"
)
"""A blueprint whose step is on line 5."""


def reading(name: str, keys: str, code: str, words: str, under: str) -> Case:
    """Return a case with a warning about an expression of its step."""
    return Case(name, "", code, words, under, line=5, severity="warning", entry=NUMBERS % keys)


TOLD = (
    'version: "1"\nname: case\ninput_schema: {type: object, required: [text, n, label], properties: {text: {type: string}, '
    "n: {type: integer}, label: {enum: [a, b]}}}\n"
    "agents: {sorter: {model: a:b, %s}}\nsteps: [{name: sort, agent: sorter}]\n"
)
"""A blueprint whose agent is on line 4."""

EXPRESSIONS = [
    Case("input-in-instructions", "", "FLJ158", "`trust: true`", "input.text", line=4, severity="warning",
         entry=TOLD % "instructions: 'Answer {{ input.text }}'"),
    Case("previous-in-instructions", "", "FLJ158", "write it in the `input`", "previous.text", line=4, severity="warning",
         entry=TOLD % "instructions: 'Answer {{ previous.text }}'"),
    reading("division-of-a-number", "with: {data: '{{ input.n / 2 }}'}", "FLJ155", "write `/ 2.0`", "/"),
    reading("division-of-numbers", "when: input.m / input.n > 1.0", "FLJ155", "`double(…)`", "/"),
    reading("placeholder-of-a-workflow", "with: {data: 'on ${{ input.note }}'}, when: input.note != null", "FLJ157", "remove the `$`", "${{"),
    reading("placeholder-of-a-shell", "with: {data: 'on ${note}'}", "FLJ157", "did you mean `{{ input.note }}`?", "${note}"),
    reading("unknown-placeholder-of-a-shell", "with: {data: 'on ${HOME}'}", "FLJ157", "for instance", "${HOME}"),
    reading("placeholder-of-python", "with: {data: 'on {input.note}'}", "FLJ157", "did you mean `{{ input.note }}`?", "{input.note}"),
    reading("a-condition-that-leaves-null", "when: input.note != null || input.m > 1, with: {data: '{{ input.note.trim() }}'}",
            "FLJ207", "`input.note` may be null", "input.note"),
]  # fmt: skip

MODEL_CASES = [*MODELS, *EXPRESSIONS]
