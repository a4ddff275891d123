"""Values of a run keep their personal data, or enter it masked, by the settings and by fields and steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import Field

from flujo import Flujo, GranularStep, HumanInTheLoopStep, Pipeline, PipelineContext, Step
from flujo.domain.conversations import ToolCall
from flujo.domain.journal import RunId
from flujo.domain.personal_data import Rules
from flujo.domain.run import RunQuery, RunStatus
from flujo.exceptions import PipelineError
from flujo.governance.sink import GATE
from flujo.testing import ScriptedAgent

if TYPE_CHECKING:
    from flujo.domain.agents import Ask
    from flujo.domain.ports import StateStore

MAIL, PHONE, CARD = "jane.doe@example.org", "+44 20 7946 0958", "4111 1111 1111 1111"
RUN = RunId("run")


class Desk(PipelineContext):
    """What a help desk knows."""

    note: str = ""
    reply_to: Annotated[str, Field(json_schema_extra={"pii": "keep"})] = ""
    card: Annotated[str, Field(json_schema_extra={"pii": "scrub"})] = ""
    log: list[str] = Field(default_factory=list)


def take_notes(data: Any, context: Desk) -> dict[str, str]:
    """Write to the context, and return what a customer wrote."""
    context.note = f"from {MAIL}"
    context.reply_to = MAIL
    context.card = f"card {CARD}"
    context.log.append(f"called {PHONE}")
    return {"said": f"I am {MAIL}"}


def lookup(name: str) -> dict[str, str]:
    """Look a customer up."""
    return {"phone": PHONE}


def scrubbed() -> None:
    GATE.hide_personal_data(Rules())
    GATE.masks_values = True


def desk() -> Pipeline:
    """A callable that writes, an agent, a conversation with a tool, and a question."""
    return Pipeline(
        (
            Step("take", take_notes),
            Step("answer", agent=ScriptedAgent([f"Dear {MAIL}"])),
            GranularStep(
                "work",
                ScriptedAgent([ToolCall("lookup", {"name": MAIL}), f"Done for {PHONE}"], tools=[lookup]),
            ),
            HumanInTheLoopStep("ask", message="Is {{ context.note }} right?"),
            Step("end", lambda data: f"end {data}", save={"log": {"append": "output"}}),
        ),
        name="desk",
    )


async def run_desk(store: StateStore) -> Any:
    """Run to the question, answer it in another runner, and return the result."""
    given = {"mail": MAIL, "card": CARD}
    async with Flujo(desk(), store=store, context_model=Desk) as flujo:
        paused = await flujo.run_result_async(
            given, run_id=RUN, initial_context_data={"note": f"from {PHONE}"}, metadata={"customer": MAIL}
        )
        assert paused.status is RunStatus.PAUSED, paused.error
    async with Flujo(desk(), store=store, context_model=Desk) as flujo:
        return await flujo.resume_async(RUN, f"yes, {MAIL}")


async def stored(store: StateStore) -> str:
    """Return everything that the store has of the runs, as text."""
    runs = await store.runs(RunQuery())
    parts: list[Any] = [*runs]
    for run in runs:
        entries = await store.entries(run.run_id)
        parts += [*entries, *await store.pauses(run.run_id), *await store.intents(run.run_id)]
    return repr(parts)


async def test_values_stay_in_the_database_by_default(store: StateStore) -> None:
    GATE.hide_personal_data(Rules())
    result = await run_desk(store)
    assert result.status is RunStatus.COMPLETED, result.error
    assert result.output == f"end yes, {MAIL}"
    assert result.context == Desk(
        note=f"from {MAIL}",
        reply_to=MAIL,
        card="card <CARD>",
        log=[f"called {PHONE}", f"end yes, {MAIL}"],
    )


async def test_values_enter_masked_where_the_journal_is_scrubbed(store: StateStore) -> None:
    scrubbed()
    result = await run_desk(store)
    assert result.status is RunStatus.COMPLETED, result.error
    assert result.output == "end yes, <EMAIL>"
    assert result.context == Desk(
        note="from <EMAIL>",
        reply_to=MAIL,
        card="card <CARD>",
        log=["called <PHONE>", "end yes, <EMAIL>"],
    )
    everything = await stored(store)
    assert [each for each in (PHONE, CARD) if each in everything] == []
    for place in (f'"reply_to":"{MAIL}"', f'"reply_to"],"{MAIL}"'):
        assert place in everything
        everything = everything.replace(place, "")
    assert MAIL not in everything


async def test_a_replayed_run_sees_the_masked_values(store: StateStore) -> None:
    scrubbed()
    await run_desk(store)
    async with Flujo(desk(), store=store, context_model=Desk) as flujo:
        again = await flujo.run_result_async(
            {"mail": MAIL, "card": CARD},
            run_id=RUN,
            if_exists="return",
            initial_context_data={"note": f"from {PHONE}"},
            metadata={"customer": MAIL},
        )
    assert again.output == "end yes, <EMAIL>"


INPUT = {
    "type": "object",
    "properties": {"mail": {"type": "string", "pii": "keep"}, "card": {"type": "string", "pii": "scrub"}},
}


async def test_fields_of_the_input_are_masked_or_kept_by_their_declaration(store: StateStore) -> None:
    pipeline = Pipeline((Step("echo", lambda data: data, pii="keep"),), name="echo", input_schema=INPUT)
    given = {"mail": MAIL, "card": CARD, "note": PHONE}
    async with Flujo(pipeline, store=store) as flujo:
        result = await flujo.run_result_async(given)
        assert result.output == {"mail": MAIL, "card": "<CARD>", "note": PHONE}
        scrubbed()
        result = await flujo.run_result_async(given)
        assert result.output == {"mail": MAIL, "card": "<CARD>", "note": "<PHONE>"}


@pytest.mark.parametrize(("pii", "output"), [(None, "<EMAIL>"), ("scrub", "<EMAIL>"), ("keep", MAIL)])
async def test_the_output_of_a_step_is_masked_or_kept_by_its_declaration(
    store: StateStore, pii: Any, output: str
) -> None:
    scrubbed()
    async with Flujo(Pipeline((Step("say", lambda _: MAIL, pii=pii),), name="say"), store=store) as flujo:
        assert (await flujo.run_result_async(None)).output == output


async def test_a_step_that_masks_does_so_in_every_project(store: StateStore) -> None:
    async with Flujo(Pipeline((Step("say", lambda _: MAIL, pii="scrub"),), name="say"), store=store) as flujo:
        assert (await flujo.run_result_async(None)).output == "<EMAIL>"


async def test_an_agent_learns_its_declaration_and_the_kept_texts(store: StateStore) -> None:
    asked: list[Ask] = []

    def answer(ask: Ask) -> str:
        asked.append(ask)
        raise ValueError

    def note(ask: Ask) -> str:
        asked.append(ask)
        return "ok"

    spare = Step("spare", agent=ScriptedAgent(note))
    step = Step("ask", agent=ScriptedAgent(answer), pii="scrub", fallback=spare)
    pipeline = Pipeline((step,), name="asks", input_schema=INPUT)
    async with Flujo(pipeline, store=store, context_model=Desk) as flujo:
        await flujo.run_result_async({"mail": MAIL}, initial_context_data={"reply_to": "bob@example.org"})
    assert [(each.pii, list(each.kept)) for each in asked] == [("scrub", [MAIL, "bob@example.org"])] * 2


async def test_a_wrong_declaration_of_a_field_of_a_class_is_refused() -> None:
    class Wrong(PipelineContext):
        mail: Annotated[str, Field(json_schema_extra={"pii": "scrubb"})] = ""

    with pytest.raises(PipelineError, match="field `mail` of Wrong has `pii` 'scrubb'") as caught:
        async with Flujo(Pipeline((Step("say", lambda _: 1),), name="say"), context_model=Wrong) as flujo:
            await flujo.run_result_async(None)
    assert caught.value.hint == "did you mean `scrub`?"


def test_a_wrong_declaration_of_a_step_is_refused() -> None:
    with pytest.raises(PipelineError, match="`pii` is 'mask'; expected one of 'scrub', 'tokenise', 'keep'"):
        Step("say", lambda _: 1, pii="mask")  # type: ignore[call-overload]
