"""The suite that every `StateStore` passes: inherit `StateStoreSuite`, write the fixture, run pytest.

    class TestMyStore(StateStoreSuite):
        @pytest.fixture
        async def open_store(self):
            ...
            yield open_one   # async: (**options) -> StateStore, all on one fresh database

The tests are coroutines (pytest-asyncio in its `auto` mode runs them). They use a store through its
port only, so they apply to any backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.testing.store_suite.acts import ActsSuite
from flujo.testing.store_suite.cancelling import CancellingSuite
from flujo.testing.store_suite.clocks import ClocksSuite
from flujo.testing.store_suite.crashes import CrashesSuite
from flujo.testing.store_suite.effects import EffectsSuite
from flujo.testing.store_suite.evaluations import EvaluationsSuite
from flujo.testing.store_suite.events import EventsSuite
from flujo.testing.store_suite.examples import RUN, OpenStore, entry, move, new_run, writes
from flujo.testing.store_suite.families import FamiliesSuite
from flujo.testing.store_suite.feeds import FeedsSuite
from flujo.testing.store_suite.figures import FiguresSuite
from flujo.testing.store_suite.forks import ForksSuite
from flujo.testing.store_suite.imports import ImportsSuite
from flujo.testing.store_suite.journal import JournalSuite
from flujo.testing.store_suite.messages import MessagesSuite
from flujo.testing.store_suite.moves import MovesSuite
from flujo.testing.store_suite.open_questions import OpenQuestionsSuite
from flujo.testing.store_suite.ownership import OwnershipSuite
from flujo.testing.store_suite.queries import QueriesSuite
from flujo.testing.store_suite.questions import QuestionsSuite
from flujo.testing.store_suite.queues import QueuesSuite
from flujo.testing.store_suite.requests import RequestsSuite
from flujo.testing.store_suite.rights import RightsSuite
from flujo.testing.store_suite.runs import RunsSuite
from flujo.testing.store_suite.schedules import SchedulesSuite
from flujo.testing.store_suite.sessions import SessionsSuite
from flujo.testing.store_suite.shared_budgets import SharedBudgetsSuite
from flujo.testing.store_suite.task_budgets import TaskBudgetsSuite
from flujo.testing.store_suite.tokens import TokensSuite
from flujo.testing.store_suite.touches import TouchesSuite
from flujo.testing.store_suite.values import ValuesSuite
from flujo.testing.store_suite.waiting import WaitingSuite

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

__all__ = ["RUN", "OpenStore", "StateStoreSuite", "entry", "move", "new_run", "writes"]


class StateStoreSuite(
    RunsSuite,
    JournalSuite,
    ValuesSuite,
    OwnershipSuite,
    RightsSuite,
    MovesSuite,
    QuestionsSuite,
    EffectsSuite,
    WaitingSuite,
    QueriesSuite,
    CancellingSuite,
    CrashesSuite,
    ClocksSuite,
    ActsSuite,
    EventsSuite,
    TouchesSuite,
    QueuesSuite,
    MessagesSuite,
    FamiliesSuite,
    TaskBudgetsSuite,
    SharedBudgetsSuite,
    SchedulesSuite,
    ImportsSuite,
    RequestsSuite,
    ForksSuite,
    FeedsSuite,
    EvaluationsSuite,
    FiguresSuite,
    TokensSuite,
    SessionsSuite,
    OpenQuestionsSuite,
):
    """The behaviour of every store; subclass it and define the fixture `open_store`.

    `open_store(**options)` opens one more store on the same database, as another process would. Options:
    `lease_s`, and `renew_s`; a `renew_s` longer than any test makes an owner that never renews.
    """

    @pytest.fixture
    async def open_store(self) -> OpenStore:
        """Open stores on one fresh database; the fixture closes them."""
        raise NotImplementedError("give the fixture `open_store`")

    @pytest.fixture
    async def store(self, open_store: OpenStore) -> StateStore:
        """Return one store on a fresh database."""
        return await open_store()
