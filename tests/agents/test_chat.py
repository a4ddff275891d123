from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from agents.provider_server import Fault, Provider, Response, provider_server
from flujo.agents.chat import ChatAgent, build_agent
from flujo.agents.settings import AgentSettings
from flujo.domain.agents import AgentSpec, Ask
from flujo.domain.usage import Usage
from flujo.exceptions import AgentError, ModelUnavailable, OutputRejected, ProviderUnavailable
from support import listener

KEY = "sk-canary-0123456789"
LABEL = {
    "type": "object",
    "properties": {"label": {"enum": ["refund", "bug"]}, "score": {"type": "integer"}},
    "required": ["label"],
}


def used(error: BaseException) -> Usage:
    usage = error.usage  # type: ignore[attr-defined]  # what every failed ask carries
    assert isinstance(usage, Usage)
    return usage


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        yield running


Build = Callable[..., ChatAgent]


@pytest.fixture
def build(provider: Provider, tmp_path: Path) -> Build:
    def make(
        *,
        model: str = "openai-chat:gpt-4o-mini",
        tools: Any = (),
        output_type: Any = None,
        level: int = 2,
        structured_output: Any = "openai_json",
        **spec: Any,
    ) -> ChatAgent:
        environment = {
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": f"{provider.url}/v1",
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": provider.url,
        }
        settings = AgentSettings(
            environment=environment,
            cache_dir=tmp_path,
            coercion_level=level,
            structured_output=structured_output,
        )
        return build_agent(
            AgentSpec(name="sorter", model=model, **spec),
            tools=tools,
            output_type=output_type,
            settings=settings,
        )

    return make


async def test_a_text_answer_comes_with_its_usage_cost_and_model(provider: Provider, build: Build) -> None:
    provider.will_answer("Good day.")
    reply = await build(model_settings={"temperature": 0}).ask(
        Ask(data="Greet me.", instructions="Be brief.")
    )
    assert reply.output == "Good day."
    assert reply.model == "gpt-4o-mini-2024-07-18"
    # 1,000 tokens at 0.15 and 100 at 0.60 dollars a million
    assert reply.usage == Usage(input_tokens=1000, output_tokens=100, requests=1, cost_micro_usd=210)
    sent = provider.requests[0]
    assert [(m["role"], m["content"]) for m in sent["messages"]] == [
        ("system", "Be brief."),
        ("user", "Greet me."),
    ]
    assert sent["temperature"] == 0
    assert "response_format" not in sent


async def test_an_unknown_price_is_not_zero(provider: Provider, build: Build) -> None:
    provider.will_answer(Response("hi", model="in-house-7"))
    reply = await build(model="openai-chat:in-house-7").ask(Ask(data="x"))
    assert reply.usage.unpriced_requests == 1
    assert reply.usage.cost_usd is None


async def test_braces_in_instructions_and_data_reach_the_model_unchanged(
    provider: Provider, build: Build
) -> None:
    provider.will_answer("ok")
    await build().ask(Ask(data="{{ secret }} {x}", instructions="Literal {{ name }} and {% if %}."))
    assert [m["content"] for m in provider.requests[0]["messages"]] == [
        "Literal {{ name }} and {% if %}.",
        "{{ secret }} {x}",
    ]


async def test_data_other_than_text_becomes_compact_json(provider: Provider, build: Build) -> None:
    provider.will_answer("ok")
    await build().ask(Ask(data={"b": [1, 2.5, None], "a": "ü"}))
    assert provider.requests[0]["messages"][0]["content"] == '{"a":"ü","b":[1,2.5,null]}'


async def test_an_output_schema_asks_for_the_providers_json_mode(provider: Provider, build: Build) -> None:
    provider.will_answer('{"label": "bug"}')
    reply = await build(output_schema=LABEL).ask(Ask(data="It crashes."))
    assert reply.output == {"label": "bug"}
    assert reply.repairs == ()
    asked = provider.requests[0]["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["schema"]["properties"]["label"]["enum"] == ["refund", "bug"]


async def test_the_prompt_mode_writes_the_schema_into_the_instructions(
    provider: Provider, build: Build
) -> None:
    provider.will_answer('{"label": "bug"}')
    agent = build(output_schema=LABEL, structured_output="prompt")
    assert (await agent.ask(Ask(data="It crashes.", instructions="Sort."))).output == {"label": "bug"}
    sent = provider.requests[0]
    assert sent.get("response_format", {}).get("type") != "json_schema"
    assert "refund" in " ".join(str(m["content"]) for m in sent["messages"] if m["role"] == "system")


async def test_the_schema_of_the_step_overrides_that_of_the_agent(provider: Provider, build: Build) -> None:
    provider.will_answer('{"n": 3}')
    own = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert (await build(output_schema=LABEL).ask(Ask(data="x", output_schema=own))).output == {"n": 3}


@pytest.mark.parametrize(
    ("schema", "answer", "value"),
    [
        ({"type": "array", "items": {"type": "string"}}, '{"value": ["a"]}', ["a"]),
        ({"enum": ["yes", "no"]}, '{"value": "yes"}', "yes"),
        ({"enum": ["yes", "no"]}, '"yes"', "yes"),
        ({"type": "integer"}, "3", 3),
        ({"type": "string", "minLength": 2}, "plain text", "plain text"),
    ],
)
async def test_a_schema_other_than_an_object_is_wrapped_for_the_provider_and_unwrapped_for_the_step(
    provider: Provider, build: Build, schema: Any, answer: str, value: Any
) -> None:
    provider.will_answer(answer)
    assert (await build(output_schema=schema, level=0).ask(Ask(data="x"))).output == value
    asked = provider.requests[0].get("response_format")
    assert (asked is None) == (schema.get("type") == "string")
    if asked:
        assert asked["json_schema"]["schema"]["type"] == "object"


async def test_code_fences_and_broken_json_are_repaired_and_reported(
    provider: Provider, build: Build
) -> None:
    provider.will_answer('Sure!\n```json\n{"label": "Bug", "score": "3"\n```')
    reply = await build(output_schema=LABEL).ask(Ask(data="x"))
    assert reply.output == {"label": "bug", "score": 3}
    assert reply.repairs == ("repaired broken JSON", 'read "Bug" as "bug" at label', 'read "3" as 3 at score')


async def test_an_answer_that_breaks_the_schema_is_returned_to_the_model_once(
    provider: Provider, build: Build
) -> None:
    provider.will_answer('{"label": "praise"}', '{"label": "bug"}')
    reply = await build(output_schema=LABEL).ask(Ask(data="x", instructions="Sort."))
    assert reply.output == {"label": "bug"}
    assert reply.usage.requests == 2
    assert reply.repairs == ("asked again because `label` must be one of 'refund', 'bug', not 'praise'",)
    second = provider.requests[1]["messages"]
    assert [m["role"] for m in second] == ["system", "user", "assistant", "user"]
    assert "must be one of 'refund', 'bug', not 'praise'" in second[-1]["content"]


async def test_an_answer_that_never_fits_the_schema_fails_with_its_reason_and_cost(
    provider: Provider, build: Build
) -> None:
    provider.will_answer("I would rather not say.")
    with pytest.raises(OutputRejected) as caught:
        await build(output_schema=LABEL, retries=2).ask(Ask(data="x"))
    assert len(provider.requests) == 3
    assert used(caught.value).requests == 3
    assert caught.value.facts["reason"] == "it contains no JSON"
    assert "agent 'sorter'" in str(caught.value)
    assert "I would rather not say." in str(caught.value)


async def test_level_0_accepts_only_json(provider: Provider, build: Build) -> None:
    provider.will_answer('```json\n{"label": "bug"}\n```')
    with pytest.raises(OutputRejected, match="it is not JSON"):
        await build(output_schema=LABEL, level=0, retries=0).ask(Ask(data="x"))


class Ticket(BaseModel):
    label: str
    urgent: bool = False


async def test_an_output_type_returns_its_instance_and_runs_its_own_checks(
    provider: Provider, build: Build
) -> None:
    provider.will_answer('{"label": "bug", "urgent": "true"}')
    reply = await build(output_type=Ticket).ask(Ask(data="x"))
    assert reply.output == Ticket(label="bug", urgent=True)


class Even(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def check(cls, n: int) -> int:
        if n % 2:
            raise ValueError("it is odd")
        return n


async def test_a_failed_check_of_the_output_type_is_returned_to_the_model(
    provider: Provider, build: Build
) -> None:
    provider.will_answer('{"n": 3}', '{"n": 4}')
    reply = await build(output_type=Even).ask(Ask(data="x"))
    assert reply.output == Even(n=4)
    assert reply.repairs == ("asked again because n: Value error, it is odd",)
    provider.answers = [Response('{"n": 5}')]
    with pytest.raises(OutputRejected, match="does not fit the output type: n: Value error, it is odd"):
        await build(output_type=Even).ask(Ask(data="x"))


async def test_a_tool_called_repeatedly_with_wrong_arguments_ends_the_request(
    provider: Provider, build: Build
) -> None:
    def lookup(number: int) -> int:
        return number

    provider.will_answer(Response(tool_call=("lookup", {"number": "many"})))
    with pytest.raises(OutputRejected, match="calls of tool `lookup` cannot be used") as caught:
        await build(tools=[lookup]).ask(Ask(data="x"))
    assert used(caught.value).requests == len(provider.requests) == 2


async def test_an_error_before_a_stream_begins_is_typed_and_of_unknown_cost(
    provider: Provider, build: Build
) -> None:
    provider.will_answer(Response(status=500, error={"message": "oops"}))
    with pytest.raises(ModelUnavailable, match="HTTP 500") as caught:
        await build().ask(Ask(data="x", on_text=listener([])))
    assert used(caught.value) == Usage(requests=1, unpriced_requests=1)


async def test_tools_run_in_a_thread_and_their_results_reach_the_model(
    provider: Provider, build: Build
) -> None:
    threads = []

    def lookup_customer(name: str) -> dict[str, Any]:
        """Look a customer up."""
        threads.append(threading.current_thread())
        return {"name": name, "vip": True}

    provider.will_answer(Response(tool_call=("lookup_customer", {"name": "Ada"})), "Ada is a VIP.")
    reply = await build(tools=[lookup_customer]).ask(Ask(data="Who is Ada?"))
    assert reply.output == "Ada is a VIP."
    assert (reply.usage.requests, reply.usage.tool_calls) == (2, 1)
    assert provider.requests[0]["tools"][0]["function"]["description"] == "Look a customer up."
    tool_message = next(m for m in provider.requests[1]["messages"] if m["role"] == "tool")
    assert json.loads(tool_message["content"]) == {"name": "Ada", "vip": True}
    assert threads[0].daemon
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize("way", ["body", "stream"])
async def test_a_model_without_a_tool_protocol_calls_tools_within_one_attempt(
    provider: Provider, build: Build, way: str
) -> None:
    heard: list[str] = []
    called: list[str] = []

    def lookup(name: str) -> dict[str, bool]:
        """Look a customer up."""
        called.append(name)
        return {"vip": True}

    provider.will_answer(
        '{"tool": "lookup", "arguments": {"name": "Ada"}}',
        '{"tool": "final_answer", "arguments": {"text": "Ada is a VIP."}}',
    )
    chat = build(tools=[lookup])
    local = ChatAgent(
        chat.spec,
        replace(chat.source, has_tool_protocol=False),  # type: ignore[type-var]  # a dataclass
        tools=[lookup],
        settings=chat.settings,
    )
    on_text = listener(heard) if way == "stream" else None
    reply = await local.ask(Ask(data="Who is Ada?", on_text=on_text))
    assert (reply.output, called, reply.usage.tool_calls) == ("Ada is a VIP.", ["Ada"], 1)
    assert "".join(heard) == ("Ada is a VIP." if way == "stream" else "")
    assert len(heard) != 1, "it comes in pieces"
    ways = provider.requests[0]["response_format"]["json_schema"]["schema"]["anyOf"]
    assert [way["properties"]["tool"]["const"] for way in ways] == ["lookup", "final_answer"]
    assert "tools" not in provider.requests[0]


async def test_an_exception_of_a_tool_is_passed_on_unchanged(provider: Provider, build: Build) -> None:
    def broken() -> str:
        raise LookupError("no such table")

    provider.will_answer(Response(tool_call=("broken", {})))
    with pytest.raises(LookupError, match="no such table") as caught:
        await build(tools=[broken]).ask(Ask(data="x"))
    assert used(caught.value).requests == 1


async def test_two_tools_of_one_name_fail_the_build(build: Build) -> None:
    def lookup(x: int) -> int:
        return x

    with pytest.raises(AgentError, match="agent 'sorter' cannot be built with its tools"):
        build(tools=[lookup, lookup])


async def test_text_is_streamed_as_the_model_writes_it(provider: Provider, build: Build) -> None:
    pieces: list[str] = []
    provider.will_answer("The quick brown fox.")
    reply = await build().ask(Ask(data="x", on_text=listener(pieces)))
    assert pieces == ["The q", "uick ", "brown", " fox."]
    assert reply.output == "The quick brown fox."
    assert reply.usage == Usage(input_tokens=1000, output_tokens=100, requests=1, cost_micro_usd=210)


async def test_an_interrupted_stream_has_no_answer_and_an_unknown_cost(
    provider: Provider, build: Build
) -> None:
    provider.will_answer(Fault.CUT_IN_EVENT)
    try:
        reply = await build().ask(Ask(data="x", on_text=listener([])))
    except AgentError as error:
        usage = used(error)
    else:
        usage = reply.usage
    assert usage.cost_usd is None


@pytest.mark.parametrize(
    ("status", "error", "retryable", "says", "hint"),
    [
        (401, {"message": f"Incorrect API key provided: {KEY}"}, False, "refused the key", "OPENAI_API_KEY"),
        (
            404,
            {"message": "no such model", "code": "model_not_found"},
            False,
            "is unknown to its provider",
            "`model:`",
        ),
        (429, {"message": "slow down"}, True, "rate limited", "max_retries"),
        (429, {"message": "pay", "code": "insufficient_quota"}, False, "out of quota", "billing"),
        (500, {"message": "oops"}, True, "failed (HTTP 500): oops", "try again"),
        (503, {"message": "overloaded"}, True, "HTTP 503", "try again"),
        (
            400,
            {"message": "bad schema"},
            False,
            "rejected the request (HTTP 400): bad schema",
            "model_settings",
        ),
        (
            400,
            {"message": "too long", "type": "exceed_context_size_error"},
            False,
            "too small a context window for this prompt",
            "shorten",
        ),
    ],
)
async def test_a_provider_error_is_typed_and_has_a_hint(
    provider: Provider, build: Build, status: int, error: Any, retryable: bool, says: str, hint: str
) -> None:
    provider.will_answer(Response(status=status, error=error))
    with pytest.raises(ModelUnavailable) as caught:
        await build().ask(Ask(data="x"))
    raised = caught.value
    assert raised.facts["status"] == status
    assert raised.facts["retryable"] is retryable
    assert raised.facts["provider"] == "openai-chat"
    assert says in str(raised)
    assert hint in str(raised.hint)
    assert KEY not in f"{raised} {raised!r} {raised.hint} {raised.facts} {raised.__cause__}"


@pytest.mark.parametrize("raw", [b"<html>a proxy's page</html>", b'{"choices": "none"}', b"[]", KEY.encode()])
async def test_a_response_that_breaks_the_protocol_is_a_typed_error(
    provider: Provider, build: Build, raw: bytes
) -> None:
    provider.will_answer(Response(raw=raw))
    with pytest.raises(AgentError) as caught:
        await build().ask(Ask(data="x"))
    assert "gpt-4o-mini" in str(caught.value)
    assert caught.value.hint
    assert KEY not in f"{caught.value} {caught.value.__cause__}"


async def test_a_slow_model_is_a_timeout_of_unknown_cost(provider: Provider, build: Build) -> None:
    provider.will_answer(Response("late", delay_s=0.4))
    with pytest.raises(ModelUnavailable, match="did not answer in time") as caught:
        await build(model_settings={"timeout": 0.05}).ask(Ask(data="x"))
    assert caught.value.facts["retryable"] is True
    assert used(caught.value).cost_usd is None


async def test_a_cancelled_request_has_an_unknown_cost(provider: Provider, build: Build) -> None:
    provider.will_answer(Response("late", delay_s=0.5))
    agent = build()
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.1):
            await agent.ask(Ask(data="x"))
    assert caught.value.__cause__ is not None
    assert used(caught.value.__cause__) == Usage(requests=1, unpriced_requests=1)


async def test_a_missing_server_is_reported_as_unreachable() -> None:
    with provider_server() as closed:
        url = f"{closed.url}/v1"
    settings = AgentSettings(
        environment={"OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY}, cache_dir=Path("unused")
    )
    spec = AgentSpec(name="sorter", model="openai-chat:x")
    with pytest.raises(ModelUnavailable, match="cannot be reached at ") as caught:
        await build_agent(spec, settings=settings).ask(Ask(data="x"))
    assert url in str(caught.value)
    assert caught.value.facts["retryable"] is True
    assert used(caught.value).requests == 0


async def test_concurrent_requests_count_their_usage_separately(provider: Provider, build: Build) -> None:
    provider.will_answer("ok")
    agent = build()
    replies = await asyncio.gather(*(agent.ask(Ask(data=str(n))) for n in range(20)))
    assert {reply.usage.requests for reply in replies} == {1}


def test_an_agent_works_in_one_event_loop_after_another(provider: Provider, build: Build) -> None:
    provider.will_answer("ok")
    agent = build()
    for n in range(3):
        assert asyncio.run(agent.ask(Ask(data=str(n)))).output == "ok"


async def test_the_openai_api_uses_its_json_mode_and_its_prices(provider: Provider, build: Build) -> None:
    provider.will_answer('{"label": "praise"}', '{"label": "bug"}')
    reply = await build(model="openai:gpt-4o-mini", output_schema=LABEL).ask(
        Ask(data="x", instructions="Sort.")
    )
    assert reply.output == {"label": "bug"}
    assert reply.usage == Usage(input_tokens=2000, output_tokens=200, requests=2, cost_micro_usd=420)
    assert provider.paths == ["/v1/responses", "/v1/responses"]
    assert provider.requests[0]["text"]["format"]["type"] == "json_schema"


async def test_anthropic_requests_use_its_own_format(provider: Provider, build: Build) -> None:
    provider.will_answer(Response("Good day.", model="claude-haiku-4-5-20251001"))
    reply = await build(model="anthropic:claude-haiku-4-5-20251001", model_settings={"max_tokens": 100}).ask(
        Ask(data="x", instructions="Be brief.")
    )
    assert reply.output == "Good day."
    assert reply.usage.input_tokens == 1000
    assert reply.usage.cost_micro_usd > 0
    assert provider.paths[0].startswith("/v1/messages")


def test_building_without_a_key_names_the_variable(tmp_path: Path) -> None:
    settings = AgentSettings(environment={}, cache_dir=tmp_path)
    for model, variable in (
        ("openai:gpt-5-mini", "OPENAI_API_KEY"),
        ("anthropic:claude-x", "ANTHROPIC_API_KEY"),
    ):
        with pytest.raises(ProviderUnavailable, match=f"{variable} is not set") as caught:
            build_agent(AgentSpec(name="a", model=model), settings=settings)
        assert variable in str(caught.value.hint)


def test_building_without_the_providers_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydantic_ai.providers.google", None)  # its package is installed here
    settings = AgentSettings(environment={"MISTRAL_API_KEY": "x", "GOOGLE_API_KEY": "x"}, cache_dir=tmp_path)
    for model, package in (("google:gemini-x", "flujo[google]"), ("mistral:m", "pydantic-ai-slim[mistral]")):
        with pytest.raises(ProviderUnavailable, match="not installed") as caught:
            build_agent(AgentSpec(name="a", model=model), settings=settings)
        assert caught.value.hint == f"pip install '{package}'"


def test_a_provider_that_reads_its_own_variables_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_BASE_URL", raising=False)
    with pytest.raises(ProviderUnavailable, match="OLLAMA_BASE_URL"):
        build_agent(
            AgentSpec(name="a", model="ollama:x"), settings=AgentSettings(environment={}, cache_dir=tmp_path)
        )


@pytest.mark.parametrize(
    ("model", "error", "hint"),
    [
        ("opnai:gpt-5", ProviderUnavailable, "did you mean `openai:gpt-5`?"),
        ("gpt-5", ModelUnavailable, "did you mean `openai:gpt-5`?"),
        ("openai:", ModelUnavailable, "`provider:model`"),
        ("local:smollm3", ModelUnavailable, "`local:smollm2`"),
        ("local:/nowhere/x.gguf", ModelUnavailable, ".gguf"),
    ],
)
def test_an_unknown_model_fails_the_build(
    tmp_path: Path, model: str, error: type[AgentError], hint: str
) -> None:
    with pytest.raises(error) as caught:
        build_agent(
            AgentSpec(name="a", model=model), settings=AgentSettings(environment={}, cache_dir=tmp_path)
        )
    assert hint in str(caught.value.hint)


def test_a_malformed_schema_fails_the_build(build: Build) -> None:
    with pytest.raises(AgentError, match="not a JSON Schema"):
        build(output_schema={"type": "objekt"})


def test_settings_and_models_do_not_show_their_keys(build: Build) -> None:
    agent = build()
    assert KEY not in f"{agent.settings!r} {agent.source!r} {vars(agent)!r}"
