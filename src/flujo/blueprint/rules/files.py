"""The rule about files for models."""

from flujo.blueprint.diagnostics import rule

FILES_NOT_TAKEN = rule(
    "FLJ434",
    "files-not-taken",
    "Files for a model that takes only text, or for no model",
    finds="`files` on a step whose agent has a local model, or on a step with `call`.",
    why="Local models take only text: the step would fail before its first request. A callable gets no "
    "files. Whether a provider's model takes a file depends on the file's type, which the run finds out.",
    example="agents: {reader: {model: local:smollm2}}\n"
    "steps:\n  - {name: read, agent: reader, files: [receipts/march.png]}",
    instead="agents: {reader: {model: openai:gpt-5-mini}}\n"
    "steps:\n  - {name: read, agent: reader, files: [receipts/march.png]}",
)
