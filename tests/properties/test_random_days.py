"""Random sequences of public calls, compared with a model of a few lines."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, HumanInTheLoopStep, Step, Text
from flujo.exceptions import FlujoError, ResumeConflict, RunConflict, RunNotFound, SettingsError
from flujo.services.admin.purge import purge
from flujo.services.inspection.task_client import TaskClient
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from support import StoppingStore, pipeline

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

EXAMPLES = int(os.environ.get("FLUJO_DAYS", "6"))
HOSTILE = st.sampled_from(["", "x", "' OR 1=1 --", '"', "%", "$.a", "ä\u202e", "1", "null"])
BAD_KEYS = st.sampled_from(["a') = 1 OR 1=1 --", 'a"', "a.b", "$", "", "a b", "a\x00", "ä"])
RUNS = st.integers(0, 5).map("run-{}".format)
CLOSED = (RunStatus.COMPLETED, RunStatus.CANCELLED)


class Days(RuleBasedStateMachine):
    """Runs of one pipeline (work, a question, work that may fail) and their expected state."""

    uris: ClassVar[Iterator[str]]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.uri = next(self.uris)
        self.stores = [SqlStateStore(self.uri)]
        self.expected: dict[str, tuple[RunStatus, str]] = {}
        self.asked: Counter[str] = Counter()
        self.allowed: Counter[str] = Counter()
        self.broken = False
        self.tree = pipeline(
            Step(name="begin", agent=CallableRef("days:begin", self.begin)),
            HumanInTheLoopStep(name="ok", message=Text("go on?")),
            Step(name="end", agent=CallableRef("days:end", self.end)),
        )

    async def begin(self, data: Any) -> Any:
        self.asked[data] += 1
        return data

    async def end(self, data: Any) -> Any:
        if self.broken:
            raise ValueError("broken")
        return data

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of a coroutine, or the Flujo error that it raises."""

        async def told() -> Any:
            try:
                return await work
            except FlujoError as error:
                return error

        return self.loop.run_until_complete(told())

    def run(self, run_id: str, value: Any, store: Any = None, **options: Any) -> Any:
        async def runs() -> Any:
            async with Flujo[Any, Any, Any](self.tree, store=store or self.stores[-1]) as runner:
                return await runner.run_result_async(value, run_id=run_id, **options)

        return self.do(runs())

    def resume(self, run_id: str, *given: Any, **options: Any) -> Any:
        async def resumes() -> Any:
            async with Flujo[Any, Any, Any](self.tree, store=self.stores[-1]) as runner:
                result = await runner.resume_async(run_id, *given, **options)
                await runner.replay_from_trace(run_id)  # raises at a difference
                return result

        return self.do(resumes())

    @property
    def client(self) -> TaskClient:
        return TaskClient(self.stores[-1])

    def status(self, run_id: str) -> RunStatus | None:
        return self.expected[run_id][0] if run_id in self.expected else None

    def becomes(self, run_id: str, status: RunStatus) -> None:
        self.expected[run_id] = (status, self.expected[run_id][1])

    @rule(run_id=RUNS, tag=HOSTILE)
    def create(self, run_id: str, tag: str) -> None:
        result = self.run(run_id, run_id, metadata={"tag": tag}, if_exists="return")
        if run_id not in self.expected:
            self.expected[run_id] = (RunStatus.PAUSED, tag)
            self.allowed[run_id] += 1
        assert result.status is self.status(run_id)

    @rule(run_id=RUNS, tag=HOSTILE, allowed=st.integers(0, 3))
    def create_while_the_database_goes_away(self, run_id: str, tag: str, allowed: int) -> None:
        if run_id in self.expected:
            return
        cut_off = self.run(run_id, run_id, StoppingStore(self.stores[-1], allowed), metadata={"tag": tag})
        self.allowed[run_id] += 2  # an interrupted step runs again
        if isinstance(cut_off, FlujoError):
            assert self.resume(run_id).status is RunStatus.PAUSED
        self.expected[run_id] = (RunStatus.PAUSED, tag)

    @rule(run_id=RUNS)
    def create_with_another_input(self, run_id: str) -> None:
        if run_id in self.expected:
            assert isinstance(self.run(run_id, "another"), RunConflict)

    @rule(run_id=RUNS, said=st.sampled_from(["yes", "no"]))
    def answer(self, run_id: str, said: str) -> None:
        result, status = self.resume(run_id, said), self.status(run_id)
        if status is RunStatus.PAUSED:
            self.becomes(run_id, RunStatus.FAILED if self.broken else RunStatus.COMPLETED)
            assert result.status is self.status(run_id)
            assert self.broken or result.output == said
        else:
            assert isinstance(result, FlujoError)

    @rule(run_id=RUNS)
    def answer_a_question_that_nobody_asked(self, run_id: str) -> None:
        assert isinstance(self.resume(run_id, "yes", pause_id="nobody"), FlujoError)

    @rule(run_id=RUNS)
    def retry(self, run_id: str) -> None:
        result, status = self.resume(run_id, retry_failed=True), self.status(run_id)
        if status is RunStatus.FAILED:
            self.becomes(run_id, RunStatus.FAILED if self.broken else RunStatus.COMPLETED)
            assert result.status is self.status(run_id)

    @rule(run_id=RUNS)
    def cancel(self, run_id: str) -> None:
        result, status = self.do(self.client.cancel_task(run_id)), self.status(run_id)
        if status is None:
            assert isinstance(result, RunNotFound)
        elif status in CLOSED:
            assert isinstance(result, ResumeConflict)
        else:
            assert result.status is RunStatus.CANCELLED
            self.becomes(run_id, RunStatus.CANCELLED)

    @rule()
    def break_or_repair(self) -> None:
        self.broken = not self.broken

    @rule()
    def crash_and_restart(self) -> None:
        self.stores.append(SqlStateStore(self.uri))

    @rule(status=st.sampled_from([RunStatus.PAUSED, RunStatus.FAILED, *CLOSED]))
    @precondition(lambda self: self.expected)
    def purge(self, status: RunStatus) -> None:
        gone = [run_id for run_id in self.expected if self.status(run_id) is status]
        purged = self.do(purge(self.stores[-1], [status], 0.0))
        assert purged.runs == len(gone)
        for run_id in gone:
            del self.expected[run_id]

    @rule(tag=HOSTILE)
    def listing(self, tag: str) -> None:
        found = self.do(self.client.list_tasks(metadata_filter={"tag": tag}))
        wanted = [run_id for run_id, (_, tagged) in self.expected.items() if tagged == tag]
        assert [task.run_id for task in found] == wanted[::-1]

    @rule(key=BAD_KEYS)
    def listing_by_a_hostile_key(self, key: str) -> None:
        assert isinstance(self.do(self.client.list_tasks(metadata_filter={key: 1})), SettingsError)

    @invariant()
    def every_run_is_what_the_model_says(self) -> None:
        found = self.do(self.client.list_tasks())
        assert {task.run_id: task.status for task in found} == {
            run_id: status for run_id, (status, _) in self.expected.items()
        }
        assert all(self.asked[run_id] <= self.allowed[run_id] for run_id in self.asked)

    def teardown(self) -> None:
        for store in self.stores:
            self.loop.run_until_complete(store.aclose())
        self.loop.close()


def _drive(uris: Iterator[str], examples: int) -> None:
    machine = type("Days", (Days,), {"uris": uris})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            derandomize="FLUJO_DAYS" not in os.environ,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


@pytest.mark.guarantee("G1", "G4")
def test_a_database_always_matches_the_model(tmp_path: Path, migrated_file: Path) -> None:
    def uris() -> Iterator[str]:
        for day in count():
            yield f"sqlite:///{shutil.copy(migrated_file, tmp_path / f'{day}.db')}"

    _drive(uris(), EXAMPLES)


@pytest.mark.guarantee("G1", "G4")
def test_a_postgres_database_always_matches_the_model(postgres_uri: str) -> None:
    def uris() -> Iterator[str]:
        while True:
            with psycopg.connect(postgres_uri, autocommit=True) as connection:
                connection.execute("TRUNCATE flujo.runs, flujo.blobs, flujo.cache CASCADE")
            yield postgres_uri

    _drive(uris(), max(1, EXAMPLES // 5))
