"""Every name of an attribute, an operation and a metric that is sent.

The `gen_ai` names are those of the GenAI conventions of OpenTelemetry, v0.1.0 of their own repository.
"""

from __future__ import annotations

SCOPE = "flujo"
"""The instrumentation scope of all spans and metrics."""

# Operations: `gen_ai.operation.name` ----------------------------------------------------------------------

CHAT = "chat"
EXECUTE_TOOL = "execute_tool"
INVOKE_AGENT = "invoke_agent"
INVOKE_WORKFLOW = "invoke_workflow"

# Attributes of the GenAI conventions ----------------------------------------------------------------------

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
AGENT_NAME = "gen_ai.agent.name"
CONVERSATION_ID = "gen_ai.conversation.id"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"

# Contents, which are sent only on request -----------------------------------------------------------------

INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"
STEP_INPUT = "flujo.step.input"
STEP_OUTPUT = "flujo.step.output"

# Other attributes -----------------------------------------------------------------------------------------

ERROR_TYPE = "error.type"
ERROR_CODE = "flujo.error.code"
RUN_ID = "flujo.run.id"
RUN_STATUS = "flujo.run.status"
PIPELINE = "flujo.pipeline"
USER_ID = "user.id"
PARENT_RUN_ID = "flujo.parent.run.id"
STEP_PATH = "flujo.step.path"
STEP_KIND = "flujo.step.kind"
ATTEMPT = "flujo.step.attempt"
CALLABLE = "code.function.name"
COST = "flujo.usage.cost"
"""US dollars."""
UNPRICED = "flujo.usage.unpriced_requests"
TOOL_EFFECT = "flujo.tool.effect"
TOOL_OUTCOME = "flujo.tool.outcome"
QUEUE = "flujo.queue.name"
EXECUTOR = "flujo.executor.name"
HOST = "host.name"
PROCESS = "process.pid"
"""Of the worker of a unit."""
SERVICE_NAME = "service.name"

# Metrics --------------------------------------------------------------------------------------------------

RUNS = "flujo.runs"
"""Executions of runs that have ended, by their status: counter."""
STEP_SECONDS = "flujo.step.duration"
COST_TOTAL = "flujo.cost"
"""US dollars: counter."""
REQUEST_SECONDS = "gen_ai.client.inference.duration"
REQUEST_INPUT_TOKENS = "gen_ai.client.inference.usage.input_tokens"
REQUEST_OUTPUT_TOKENS = "gen_ai.client.inference.usage.output_tokens"
TOOL_SECONDS = "gen_ai.execute_tool.duration"
AGENT_SECONDS = "gen_ai.invoke_agent.duration"
QUEUE_DEPTH = "flujo.queue.depth"
QUEUE_AGE = "flujo.queue.age"
WRITER_REQUESTS = "flujo.writer.requests"
WRITER_COMMITS = "flujo.writer.commits"
"""Requests divided by commits is the size of a batch."""
LEASE_RENEWALS = "flujo.lease.renewals"
POOL_USED = "flujo.pool.used"
