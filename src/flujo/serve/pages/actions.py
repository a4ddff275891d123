"""What people do with a run: resume, retry, cancel and fork it, each after a page that says what happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from flujo.domain.access import Right
from flujo.domain.paths import ROOT, shown
from flujo.exceptions import FlujoError, InputRejected
from flujo.serve.endpoints import Endpoint
from flujo.serve.pages.rendering import page
from flujo.serve.serving import principal, serving, tasks
from flujo.services.inspection import formatting
from flujo.services.project.inputs import read_json, read_overrides
from flujo.services.replay.export import SUFFIX
from flujo.services.runs.forks import UNCHANGED, Fork

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.datastructures import FormData
    from starlette.requests import Request

    from flujo.services.inspection.task_detail import TaskDetail
    from flujo.services.inspection.tasks import Task

_WAIT_S = 0.5
"""For how long a request waits for a run that the server executes: its page shows the rest."""
_MOST_PLACES = 500
"""How many steps the list of a fork has."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something that a person can do with a run."""

    name: str
    title: str
    about: str
    """What happens, for the page on which it is confirmed."""
    statuses: tuple[str, ...]
    """What a run can be shown as when it is possible."""

    def fits(self, task: Task) -> bool:
        """Return whether it is possible with a run."""
        return str(task.display_status) in self.statuses


_OPEN = ("accepted", "running", "orphaned", "paused", "answered", "in_doubt", "waiting", "interrupted")
RESUME = Action(
    "resume",
    "Resume",
    "This server continues the run where it stopped. Completed steps keep their results.",
    ("interrupted", "parked", "orphaned", "answered"),
)
RETRY = Action(
    "retry",
    "Retry",
    "This server executes the failed step again, and the steps after it. Completed steps keep their results.",
    ("failed", "parked"),
)
CANCEL = Action(
    "cancel",
    "Cancel",
    "The run ends for good. A step that is being executed is stopped; what it has done is not undone.",
    (*_OPEN, "failed", "parked"),
)
FORK = Action(
    "fork",
    "Fork",
    "A new run begins at the step, with the recorded results of everything before it. Calls with effects are "
    "not made again unless you say so. The run itself stays as it is.",
    (
        "paused",
        "answered",
        "in_doubt",
        "waiting",
        "interrupted",
        "completed",
        "failed",
        "cancelled",
        "parked",
    ),
)
ACTIONS = (RESUME, RETRY, CANCEL, FORK)


def possible(request: Request, task: Task) -> list[Action]:
    """Return what the sender of a request can do with a run."""
    may = Right.OPERATE in principal(request).role.rights and not serving(request).settings.read_only
    return [each for each in ACTIONS if may and each.fits(task)]


async def confirm(request: Request) -> Response:
    """Show what an action does, with the button that does it."""
    return await _asked(request, _action(request), {}, None)


async def act(request: Request) -> Response:
    """Do the action, and show the run; of a fork the new one."""
    action, form = _action(request), await request.form()
    client, run_id = tasks(request), request.path_params["run_id"]
    try:
        if action is CANCEL:
            run_id = (await client.cancel_task(run_id)).run_id
        elif action is FORK:
            wanted = _fork(form, serving(request).workspace.random.run_id())
            await serving(request).executing.begin(client.fork_task(run_id, wanted), _WAIT_S)
            run_id = wanted.run_id or run_id
        else:
            work = client.retry_task(run_id) if action is RETRY else client.continue_task(run_id)
            result = await serving(request).executing.begin(work, _WAIT_S)
            run_id = run_id if result is None else result.run_id
    except InputRejected as error:
        return await _asked(request, action, {name: str(value) for name, value in form.items()}, error)
    return RedirectResponse(_address(request, run_id), 303)


async def export(request: Request) -> Response:
    """Answer with a run as one file, as `flujo export` writes it."""
    run_id, data = await tasks(request).export_task(request.path_params["run_id"])
    name = f'attachment; filename="{run_id}{SUFFIX}"'
    return Response(data, media_type="application/zstd", headers={"content-disposition": name})


def _action(request: Request) -> Action:
    return next(each for each in ACTIONS if request.url.path.endswith(f"/{each.name}"))


def _address(request: Request, run_id: str) -> str:
    return f"{request.scope.get('root_path', '')}/runs/{quote(run_id)}"


async def _asked(
    request: Request, action: Action, filled: Mapping[str, str], refused: FlujoError | None
) -> Response:
    detail = await tasks(request).get_task(request.path_params["run_id"])
    return page(
        request,
        "act.html",
        status=200 if refused is None else 422,
        action=action,
        task=detail.task,
        short_id=formatting.short_id(detail.task.run_id),
        is_possible=action.fits(detail.task),
        places=_places(detail) if action is FORK else [],
        filled=filled,
        refused=refused,
        leads_to=_address(request, detail.task.run_id),
    )


def _places(detail: TaskDetail) -> list[tuple[str, str]]:
    """Return the steps at which a run can be forked: their paths, as stored and as shown."""
    paths = (node.path for node in detail.trace.walk() if node.path != ROOT and node.items is None)
    return [(path, shown(path)) for path, _ in zip(paths, range(_MOST_PLACES), strict=False)]


def _fork(form: FormData, run_id: str) -> Fork:
    """Return the fork that a form asks for.

    Raises:
        InputRejected: a field cannot be read.
    """
    given = {name: str(form.get(name, "")).strip() for name in ("at", "input", "context", "models")}
    if not given["at"]:
        raise InputRejected("no step is chosen", hint="choose the step at which the fork begins")
    context = _json(given["context"], "context", {})
    if not isinstance(context, dict):
        raise InputRejected("the context is not an object", hint='write `{"NAME": VALUE}`')
    models = read_overrides(given["models"].split(), option="models")
    return Fork(
        at=given["at"],
        input=_json(given["input"], "input", UNCHANGED),
        context=context,
        models=models,
        live_effects="live_effects" in form,
        run_id=run_id,
    )


def _json(text: str, name: str, otherwise: Any) -> Any:
    return read_json(text, option=name) if text else otherwise


ENDPOINTS = (
    *(Endpoint("GET", f"/runs/{{run_id}}/{each.name}", confirm, Right.OPERATE) for each in ACTIONS),
    *(Endpoint("POST", f"/runs/{{run_id}}/{each.name}", act, Right.OPERATE) for each in ACTIONS),
    Endpoint("GET", "/runs/{run_id}/export", export, Right.READ),
)
