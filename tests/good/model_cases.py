"""Agents whose model and settings resemble wrong ones: no findings are allowed."""

from __future__ import annotations

from bad.model_cases import BUDGET, NUMBERS, TOLD, TOP

GOOD_MODELS = {
    "a-provider-of-the-project": TOP % ("c:openai/gpt-5-mini", ""),
    "a-local-model-in-a-file": TOP % ("local:./models/llama.gguf", ""),
    "settings-of-the-provider": TOP
    % ("openai:gpt-5-mini, model_settings: {openai_reasoning_effort: low, extra_body: {wobble: 1}}", ""),
    "a-model-that-can-be-told-not-to-reason": TOP % ("openai:gpt-5.1, model_settings: {temperature: 0}", ""),
    "a-chat-model": TOP % ("openai:gpt-5-chat-latest, model_settings: {temperature: 0}", ""),
    "a-model-of-unknown-price-without-a-limit-on-cost": TOP
    % ("openai:tuned, model_settings: {max_tokens: 9}", "budget: {total_tokens_limit: 100}\n"),
    "a-model-of-unknown-price-that-is-allowed": TOP
    % ("openai:tuned, model_settings: {max_tokens: 9}", BUDGET.replace("1}", "1, unknown_price: allow}")),
    "divisions-that-do-not-depend-on-the-form-of-a-number": NUMBERS
    % "when: 'input.n / 2.0 > 1.0 && double(input.n) / input.m > 1.0 && input.m / 2 > 1 && input.n * 0.5 / input.n > 1.0 && input.n * 2 > 1'",
    "a-value-that-the-condition-of-its-step-checks": NUMBERS
    % "when: input.note != null && input.m > 1, with: {data: '{{ input.note.trim() }}'}",
    "a-value-that-the-condition-around-it-checks": NUMBERS.replace(
        "  - {name: say",
        "  - {kind: conditional, name: way, if: input.note == null,\n     then: [],\n     else: [{name: say",
    ).replace("%s}", "%s}]}")
    % "with: {data: '{{ input.note.trim() }}'}",
    "braces-and-dollars-in-a-text": NUMBERS
    % """with: {data: 'for ${{ input.n }}: {"kind": {x}} {other} {} $5 and {{ "${note}" }}'}""",
    "instructions-with-numbers-and-listed-texts": TOLD
    % "instructions: 'Use {{ input.n }} words for {{ input.label }}'",
    "instructions-with-trusted-input": TOLD % "trust: true, instructions: 'Answer {{ input.text }}'",
}
