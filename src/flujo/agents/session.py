"""A conversation with a model through pydantic-ai: one request at a time, from recorded messages on.

pydantic-ai sends the messages and reads the responses. Its own loop over turns is not used, because a turn is
recorded before its tools are called, and a tool call is recorded before the next request.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic_ai import direct
from pydantic_ai.exceptions import AgentRunError, UserError
from pydantic_ai.messages import (
    InstructionPart,
    ModelMessagesTypeAdapter,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.models import ModelRequestParameters

from flujo.agents import attachments, tool_union
from flujo.agents import messages as written
from flujo.agents.answer_tool import as_text, name_beside
from flujo.agents.error_translation import cause_of, translated
from flujo.agents.metered_model import MeteredModel
from flujo.agents.outgoing import PROJECT, Door
from flujo.agents.request_reports import RequestReport
from flujo.agents.restoring import RestoredStream, restored_message
from flujo.domain import canonical
from flujo.domain.conversations import FinalAnswer, Response, ToolCalls
from flujo.exceptions import OutputRejected
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.tools import ToolDefinition

    from flujo.agents.settings import ModelSource, StructuredOutput
    from flujo.agents.structured_output import OutputReader
    from flujo.agents.tool_arguments import ArgumentsReader
    from flujo.agents.tools import ModelTool
    from flujo.domain.agents import AgentSpec, Meter
    from flujo.domain.conversations import Message
    from flujo.domain.files import Contents, File
    from flujo.domain.prices import Price
    from flujo.domain.threads import Exchange


class ChatSession(written.MessageWriter):
    """The port `Session` for a model.

    Args:
        spec: the agent.
        source: where its model comes from.
        history: the recorded messages.
        tools: the tools, by name.
        reader: the reader of answers, which knows the schema for the model.
        read: returns the value of an answer and its repairs, or raises `OutputRejected`.
        arguments: the reader of the arguments of tool calls.
        instructions: the finished text.
        mode: the way in which a request contains the schema of the answer.
        thread: the exchanges of the step's thread, which stand before the conversation.
        files: the files that are sent with the prompt.
        contents: returns the bytes of the files in messages.
        door: masks what is sent.
    """

    def __init__(
        self,
        spec: AgentSpec,
        source: ModelSource,
        history: Sequence[Message],
        *,
        tools: Mapping[str, ModelTool],
        reader: OutputReader,
        read: Callable[[str], tuple[Any, tuple[str, ...]]],
        arguments: ArgumentsReader,
        instructions: str | None,
        mode: StructuredOutput,
        thread: Sequence[Exchange] = (),
        files: Sequence[File] = (),
        contents: Contents | None = None,
        price: Price | None = None,
        door: Door = PROJECT,
    ) -> None:
        self.tools = tools
        self._price = price
        self._spec = spec
        self._source = source
        self._reader = reader
        self._read = read
        self._arguments = arguments
        self._door = door
        self._said = instructions
        self._instructions: str | None = None
        """The instructions as they are sent."""
        self._mode: StructuredOutput = mode
        self.files = files
        self._contents = contents
        self._earlier: Sequence[Message] | None = written.of_thread(thread)
        """The messages of the thread; None once they are masked."""
        self._thread: list[ModelMessage] = []
        self._messages: list[ModelMessage] = []
        self._unmasked: Sequence[Message] = history
        """The messages after those, which are masked before the next request."""

    def continue_from(self, history: Sequence[Message]) -> None:
        """Continue after these messages."""
        self._messages, self._unmasked = [], history

    def read(self, message: Message) -> ToolCalls | FinalAnswer:
        """Return the tool calls of a response, or its answer.

        Raises:
            OutputRejected: it has no tool call, and its text does not fit the output schema.
        """
        calls = written.calls_in(message)
        if calls:
            return ToolCalls(tuple(self._arguments.read(call, self.tools) for call in calls))
        if written.is_changed(message):
            reason = "it contains NUL or half of a surrogate pair"
            raise OutputRejected(f"the answer cannot be recorded: {reason}", reason=reason, retryable=True)
        value, repairs = self._read(written.text_in(message))
        return FinalAnswer(value, repairs)

    async def request(
        self,
        messages: Sequence[Message],
        *,
        may_call: bool,
        meter: Meter | None,
        on_text: Callable[[str], Awaitable[None]] | None,
    ) -> Response:
        """Send new messages, and return the response; see `Session`.

        Every exception has `usage`: what the request has cost; and `transcript`, if it has a cut response.

        Raises:
            ModelUnavailable: the model cannot be reached or refuses.
            OutputTruncated: the response was cut off.
            BudgetError: the budget does not allow the request; it was not made.
            FileNotTaken: the model does not take one of the files; the request was not made.
            PseudonymsNeedKeys: see `Door.text`; the request was not made.
        """
        if not self._door.is_tokenised:
            return await self._answered(messages, may_call=may_call, meter=meter, on_text=on_text)
        in_json = not self._reader.is_text
        stream = None if on_text is None else RestoredStream(on_text, self._door.sent, in_json)
        listener = None if stream is None else stream.more
        response = await self._answered(messages, may_call=may_call, meter=meter, on_text=listener)
        if stream is not None:
            await stream.end()
        message = restored_message(response.message, self._door.sent, in_json=in_json)
        self._unmasked = [message]
        return replace(response, message=message)

    async def _answered(
        self,
        messages: Sequence[Message],
        *,
        may_call: bool,
        meter: Meter | None,
        on_text: Callable[[str], Awaitable[None]] | None,
    ) -> Response:
        """Return the response as the model wrote it; see `request`."""
        source = self._source
        sent = await self._door.apart(lambda: self._masked(messages))
        is_union = bool(self.tools) and not source.has_tool_protocol
        async with source.open() as opened:
            GATE.know(source.secrets, of=source.key_name or f"the key of {self._spec.model}")
            attachments.require_taken(sent, opened, agent=self._spec.name, asked=self._spec.model)
            filled = await attachments.with_contents(
                [*self._thread, *sent], self._contents, opened, door=self._door
            )
            model = MeteredModel(
                opened,
                schema=self._schema(may_call=may_call, is_union=is_union),
                mode=self._mode_of(source),
                is_free=source.is_free,
                price=self._price,
                meter=meter,
                limits=source.limits,
            )
            try:
                if is_union:
                    response = await self._union(model, filled, on_text)
                else:
                    response = await self._response(model, filled, may_call=may_call, on_text=on_text)
            except BaseException as error:
                error.usage = model.spent  # type: ignore[attr-defined]  # exceptions take attributes
                if model.refused is not None:
                    said = {"messages": [_stored(model.refused)]}
                    error.transcript = said  # type: ignore[attr-defined]  # exceptions take attributes
                raise
        message = _stored(response)
        self._messages, self._unmasked = sent, [message]
        return Response(message, usage=model.spent, model=model.answered_by)

    def _masked(self, messages: Sequence[Message]) -> list[ModelMessage]:
        """Return the messages so far and new ones as they are sent, and mask what has not been masked yet."""
        if self._earlier is not None:
            self._instructions = None if self._said is None else self._door.text(self._said)
            self._thread, self._earlier = self._loaded(self._earlier), None
        self._messages, self._unmasked = [*self._messages, *self._loaded(self._unmasked)], ()
        return [*self._messages, *self._loaded(messages)]

    def _loaded(self, messages: Sequence[Message]) -> list[ModelMessage]:
        """Return messages in pydantic-ai's form, as they are sent."""
        if not messages:
            return []
        return ModelMessagesTypeAdapter.validate_json(canonical.encode(self._door.messages(messages)))

    def _mode_of(self, source: ModelSource) -> StructuredOutput:
        # A model without a protocol for tools gets them as a schema already.
        return "openai_json" if self._mode == "tool" and not source.has_tool_protocol else self._mode

    def _schema(self, *, may_call: bool, is_union: bool) -> Any:
        asked = None if self._reader.is_text else self._reader.asked_schema
        return tool_union.schema(self.tools if may_call else {}, asked) if is_union else asked

    async def _union(
        self,
        model: MeteredModel,
        sent: list[ModelMessage],
        on_text: Callable[[str], Awaitable[None]] | None,
    ) -> ModelResponse:
        """Return the response of a model whose text is a tool call or the answer; the answer is streamed."""
        said = (self._instructions or "", tool_union.explanation(self.tools))
        settings = dict(self._spec.model_settings)
        parameters = _parameters("\n\n".join(filter(None, said)), [])
        response = await self._sent(
            model, tool_union.as_text(sent), settings, parameters, self._answer_to(on_text)
        )
        return tool_union.as_calls(response, len(sent), is_text=self._reader.is_text)

    def _answer_to(
        self, on_text: Callable[[str], Awaitable[None]] | None
    ) -> Callable[[str], Awaitable[None]] | None:
        """Return a listener to a whole response that forwards the answer in it."""
        if on_text is None:
            return None
        answer = tool_union.AnswerStream(is_text=self._reader.is_text)

        async def listen(piece: str) -> None:
            if text := answer.more(piece):
                await on_text(text)

        return listen

    async def _response(
        self,
        model: MeteredModel,
        sent: list[ModelMessage],
        *,
        may_call: bool,
        on_text: Callable[[str], Awaitable[None]] | None,
    ) -> ModelResponse:
        settings: dict[str, Any] = dict(self._spec.model_settings)
        if self.tools and not may_call:
            settings["tool_choice"] = "none"
        parameters = _parameters(self._instructions, [tool.definition for tool in self.tools.values()])
        response = await self._sent(model, sent, settings, parameters, on_text)
        return as_text(response, name_beside(self.tools)) if self._mode == "tool" else response

    async def _sent(
        self,
        model: MeteredModel,
        sent: list[ModelMessage],
        settings: dict[str, Any],
        parameters: ModelRequestParameters,
        on_text: Callable[[str], Awaitable[None]] | None,
    ) -> ModelResponse:
        request: dict[str, Any] = {
            "model_settings": settings or None,
            "model_request_parameters": parameters,
            "instrument": False,
        }
        report = RequestReport(model.system, model.model_name, lambda: model.spent)
        try:
            with report:
                if on_text is None:
                    report.response = await direct.model_request(model, sent, **request)
                    return report.response
                async with direct.model_request_stream(model, sent, **request) as stream:
                    async for event in stream:
                        match event:
                            case (
                                PartStartEvent(part=TextPart(content=text))
                                | PartDeltaEvent(delta=TextPartDelta(content_delta=text))
                            ) if text:
                                await on_text(text)
                            case _:
                                pass  # reasoning, tool calls
                    report.response = stream.get()
                return report.response
        except (AgentRunError, UserError) as error:
            failure = translated(
                error,
                agent=self._spec.name,
                model=self._spec.model,
                key_name=self._source.key_name,
                address=model.base_url,
            )
            raise failure from cause_of(error)


def _parameters(instructions: str | None, tools: list[ToolDefinition]) -> ModelRequestParameters:
    parts = None if instructions is None else [InstructionPart(content=instructions)]
    return ModelRequestParameters(function_tools=tools, instruction_parts=parts)


def _stored(response: ModelResponse) -> Message:
    return written.storable(ModelMessagesTypeAdapter.dump_python([response], mode="json")[0])
