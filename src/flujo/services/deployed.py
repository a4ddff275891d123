"""What a project has deployed: blueprints, agents, schedules, workers, queues, budgets and messages."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic.errors import PydanticInvalidForJsonSchema

from flujo.domain.access import Right
from flujo.exceptions import BlueprintError
from flujo.services.checks.locking import LOCK_FILE, lock_digest
from flujo.services.checks.validation import compiled_or_refused
from flujo.services.forecast.forecast import NOT_GIVEN, forecast
from flujo.services.inspection import messages
from flujo.services.inspection.budgets import budget_states
from flujo.services.inspection.inventory import inventory
from flujo.services.inspection.schedule_client import ScheduleClient
from flujo.services.runs.queues import no_worker_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.access import Principal
    from flujo.domain.outbox import Message
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.queues import QueueState, WorkerRecord
    from flujo.services.forecast.forecast import Forecast
    from flujo.services.inspection.budgets import BudgetState
    from flujo.services.inspection.schedule_views import ScheduleView
    from flujo.services.workspace import Workspace

Lock = Literal["locked", "differs", "no lock", "invalid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedBlueprint:
    """A blueprint as it is on disk, against the lock."""

    name: str
    path: str
    description: str = ""
    lock: Lock
    """`locked`: flujo.lock holds it as it is; `differs`: the lock does not hold it as it is;
    `no lock`: there is none; `invalid`: it has errors."""
    agents: tuple[tuple[str, str], ...] = ()
    """The agents in it, each with its model."""
    error: str | None = None


class Deployed:
    """Reads what a project has deployed, with the rights of a principal.

    Args:
        workspace: the project; the caller closes it.
        principal: whose rights apply. One that is limited to some runs sees only its blueprints.
    """

    def __init__(self, workspace: Workspace, principal: Principal) -> None:
        self._workspace = workspace
        self._principal = principal

    @property
    def sees_everything(self) -> bool:
        """Whether the principal is limited to no runs, and sees what is about all of them."""
        return not self._principal.reach

    def names(self) -> list[tuple[str, str]]:
        """Return the names and descriptions of the blueprints, without a check of them."""
        self._principal.require(Right.READ)
        found = self._workspace.project.blueprints()
        return sorted((each.name, each.description) for each in found if self._reaches(each.name))

    def blueprints(self) -> list[DeployedBlueprint]:
        """Return the blueprints of the project, each with its lock state and agents."""
        self._principal.require(Right.READ)
        project, found = self._workspace.project, []
        has_lock = (project.root / LOCK_FILE).exists()
        for each in project.blueprints():
            if not self._reaches(each.name):
                continue
            try:
                pipeline = compiled_or_refused(project, each.path)
            except BlueprintError as error:
                found.append(
                    DeployedBlueprint(name=each.name, path=each.path, lock="invalid", error=error.message)
                )
                continue
            is_locked = lock_digest(project, each.path, pipeline) is not None
            items = [item for item in inventory(each.path, pipeline) if item.what == "agent"]
            found.append(
                DeployedBlueprint(
                    name=pipeline.name,
                    path=each.path,
                    description=each.description,
                    lock="locked" if is_locked else "differs" if has_lock else "no lock",
                    agents=tuple((item.name, item.detail) for item in items),
                )
            )
        return found

    def pipeline(self, blueprint: str) -> Pipeline:
        """Return the tree of a blueprint, to be read.

        Raises:
            AccessDenied: the principal may not start runs of it.
            SettingsError: there is no such blueprint.
            BlueprintError: it has errors.
        """
        self._principal.require(Right.OPERATE)
        project = self._workspace.project
        found = self._workspace.load(project.locate(blueprint, project.root)).pipeline
        if not self._reaches(found.name):
            self._principal.require_new(found.name, "", {})
        return found

    def context_schema(self, pipeline: Pipeline) -> Any:
        """Return the JSON Schema of the context that a run starts with.

        None without a context, and for a class of which JSON Schema can say nothing.

        Raises:
            CallableError: its class cannot be imported.
        """
        self._principal.require(Right.OPERATE)
        if pipeline.context_type is None:
            return pipeline.context_schema
        with suppress(PydanticInvalidForJsonSchema):
            return self._workspace.bind(pipeline).context(pipeline).declared.model_json_schema()
        return None

    async def forecast(self, pipeline: Pipeline, given: Any = NOT_GIVEN) -> Forecast:
        """Return what a run of a blueprint will probably cost; with an input, of a run with that input."""
        self._principal.require(Right.READ)
        store = await self._workspace.store()
        return await forecast(pipeline, self._workspace.project, given=given, store=store)

    async def no_worker_note(self, queue: str) -> str | None:
        """Return a note when no worker serves a queue."""
        self._principal.require(Right.READ)
        return await no_worker_note(await self._workspace.store(), queue)

    async def schedules(self) -> list[ScheduleView]:
        """Return the schedules of the database and of the files."""
        self._principal.require_everywhere(Right.READ)
        return await ScheduleClient(self._workspace).list_schedules()

    async def workers(self) -> list[WorkerRecord]:
        """Return the workers that are alive, with the runs that they execute."""
        self._principal.require_everywhere(Right.READ)
        return await (await self._workspace.store()).workers()

    async def queues(self) -> list[QueueState]:
        """Return the queues that have runs which have not ended."""
        self._principal.require_everywhere(Right.READ)
        return await (await self._workspace.store()).queue_states()

    async def budgets(self) -> list[BudgetState]:
        """Return what the runs of each rule of `[[budgets.rule]]` have used."""
        self._principal.require_everywhere(Right.READ)
        return await budget_states(self._workspace)

    async def outbox(self, limit: int = 50) -> Sequence[Message]:
        """Return messages of the outbox, the newest first."""
        self._principal.require_everywhere(Right.READ)
        return await messages.listed(await self._workspace.store(), limit=limit)

    async def redeliver(self, message_id: int) -> None:
        """Make a message due again.

        Raises:
            MessageNotFound: there is no such message.
        """
        self._principal.require_everywhere(Right.OPERATE)
        await messages.redeliver(await self._workspace.store(), [message_id])

    def _reaches(self, blueprint: str) -> bool:
        blueprints = self._principal.reach.blueprints
        return not blueprints or blueprint in blueprints
