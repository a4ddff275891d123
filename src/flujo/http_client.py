"""A client of `flujo serve` with the interface of `TaskClient`: `from flujo import FlujoHTTPClient`."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx2

from flujo.domain import paths
from flujo.domain.context_references import ContextReference
from flujo.domain.questions import QuestionClaim
from flujo.domain.queues import DEFAULT_QUEUE
from flujo.exceptions import FlujoError, ServerUnavailable, SettingsError, WaitTimedOut
from flujo.governance.sink import GATE
from flujo.services.given import seconds, seconds_of, text
from flujo.services.inspection.view_readers import (
    delivery_of_data,
    detail_of_data,
    evaluation_of_data,
    line_of_data,
    question_of_data,
    result_of_data,
    task_of_data,
)
from flujo.services.lifetime import ClosedAtExit
from flujo.services.project.system import SystemClock
from flujo.services.runs.answers import NO_RESULT
from flujo.services.runs.forks import UNCHANGED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence

    from flujo.domain.evaluations import Evaluation
    from flujo.domain.models import Metadata, PipelineResult
    from flujo.domain.sent_events import Delivery
    from flujo.services.inspection.following import LogLine
    from flujo.services.inspection.questions import Question
    from flujo.services.inspection.task_detail import TaskDetail
    from flujo.services.inspection.tasks import Moment, Task
    from flujo.services.runs.forks import Fork

    Result = PipelineResult[Any, Any]

_CLOCK = SystemClock()
_API = "/api/v1"
_WAIT_S = 20.0
"""For how long one request waits for the end of a run."""
_TIMEOUT_S = 30.0
_MAX_PAGE = 1000
_AGAIN_S = 0.5
"""After how long a stream that broke off is continued."""


class FlujoHTTPClient(ClosedAtExit):
    """Lists, shows, starts, answers and cancels runs through a server, as `TaskClient` does on a database.

    Errors of the server are raised as the classes that `TaskClient` raises. Acts are recorded under the name
    of the token.
    """

    def __init__(
        self, url: str, *, token: str | None = None, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        """Set the address of a server; connects to nothing yet.

        Args:
            url: where `flujo serve` is: `https://flujo.example.com`, or with the path under which it is.
            token: a token of `flujo tokens create`. A server on the loopback address needs none.
            transport: how requests are sent, for proxies and tests. Default: by HTTP.

        Raises:
            SettingsError: `url` is not an address of HTTP.
        """
        address = text(url, "url").rstrip("/")
        if not address.startswith(("http://", "https://")):
            raise SettingsError(
                f"`url` is {address!r}", hint="pass an address such as 'http://127.0.0.1:8400'"
            )
        headers = {}
        if token is not None:
            GATE.know([text(token, "token")], of="the token of a FlujoHTTPClient")
            headers["authorization"] = f"Bearer {token}"
        self._client = httpx2.AsyncClient(
            base_url=address + _API, headers=headers, timeout=_TIMEOUT_S, transport=transport
        )

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._client.aclose()

    async def list_tasks(
        self,
        status: str | Sequence[str] | None = None,
        metadata_filter: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        blueprint: str | None = None,
        queue: str | None = None,
        pause: str | None = None,
        kind: str | Sequence[str] | None = None,
        parent: str | None = None,
        chain: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        order: str = "newest",
        limit: int = 100,
        cursor: str | None = None,
    ) -> list[Task]:
        """Return a page of runs, up to 1,000; see `TaskClient.list_tasks`."""
        wanted = {
            "status": status,
            "metadata": None if metadata_filter is None else json.dumps(metadata_filter),
            "user_id": user_id,
            "blueprint": blueprint,
            "queue": queue,
            "pause": pause,
            "kind": kind,
            "parent": parent,
            "chain": chain,
            "order": order,
            "limit": limit,
            "cursor": cursor,
            "since": seconds_of(since, "since", _CLOCK),
            "until": seconds_of(until, "until", _CLOCK),
        }
        found = await self._get("/runs", **wanted)
        return [task_of_data(each) for each in found["runs"]]

    async def get_task(self, run_id: str) -> TaskDetail:
        """Return a run with its history; see `TaskClient.get_task`."""
        return detail_of_data(await self._get(_run(run_id)))

    async def get_log(self, run_id: str, *, after: int = 0) -> list[LogLine]:
        """Return the log of a run; see `TaskClient.get_log`."""
        found = await self._get(f"{_run(run_id)}/log", after=after)
        return [line_of_data(each) for each in found["lines"]]

    async def follow(self, run_id: str, *, after: int = 0) -> AsyncGenerator[LogLine, None]:
        """Yield the log of a run until it ends; see `TaskClient.follow`.

        A stream that breaks off is continued behind the last line, as soon as the server answers again.
        """
        last, is_first = "", True
        while True:
            headers = {"last-event-id": last} if last else {}
            try:
                async with self._stream(f"{_run(run_id)}/events", {"after": after}, headers) as events:
                    is_first = False
                    async for name, event_id, data in events:
                        if name == "end":
                            return
                        if name == "error":
                            raise _rebuilt(data)
                        last = event_id or last
                        yield line_of_data(data)
            except ServerUnavailable:
                if is_first:
                    raise
            await asyncio.sleep(_AGAIN_S)

    async def start_task(
        self,
        blueprint: str,
        input: Any = None,  # noqa: A002 - as `TaskClient.start_task`
        *,
        context: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        metadata: Metadata | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: int = 0,
        delay_s: float = 0.0,
        idempotency_key: str | None = None,
    ) -> Task:
        """Put a run of a blueprint of the server's project into a queue; see `TaskClient.start_task`."""
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        facts = {"context": dict(context or {}), "user_id": user_id, "metadata": dict(metadata or {})}
        place = {"queue": queue, "priority": priority, "delay_s": delay_s}
        body = {"blueprint": blueprint, "input": input, **facts, **place}
        return task_of_data(await self._post("/runs", body, headers))

    async def resume_task(
        self,
        run_id: str,
        input: Any,  # noqa: A002 - as `TaskClient.resume_task`
        pause_id: str | None = None,
        *,
        digest: str | None = None,
    ) -> Result:
        """Answer a question of a run, which a worker or the owner of the run continues.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            input: the answer: JSON data that fits the question's `answer_schema`.
            pause_id: the path of the step that asks, if several questions are open.
            digest: the digest of the question that was answered. Default: that of the one that is open now.

        Raises:
            RunNotFound | AmbiguousPause | WrongPauseKind | InputRejected | ResumeConflict: see
                `TaskClient.resume_task`.
        """
        if digest is None:
            digest = await self._digest(run_id, pause_id)
        body = {"answer": input, "pause_id": pause_id, "digest": digest}
        return result_of_data(await self._post(f"{_run(run_id)}/answer", body))

    async def resolve_task(
        self, run_id: str, outcome: str, *, result: Any = NO_RESULT, pause_id: str | None = None
    ) -> Result:
        """Set the outcome of a call in doubt; see `TaskClient.resolve_task`."""
        given = {} if result is NO_RESULT else {"result": result}
        body = {"outcome": outcome, "pause_id": pause_id, **given}
        return result_of_data(await self._post(f"{_run(run_id)}/resolve", body))

    async def send_event(
        self,
        event: str,
        payload: Any = None,
        *,
        run_id: str | None = None,
        key: str | None = None,
        all: bool = False,  # noqa: A002 - as `TaskClient.send_event`
        event_id: str | None = None,
    ) -> Delivery:
        """Send an event; see `TaskClient.send_event`."""
        address = {"run_id": run_id, "key": key, "all": all, "event_id": event_id}
        return delivery_of_data(await self._post("/events", {"event": event, "payload": payload, **address}))

    async def rate(
        self,
        run_id: str,
        score: float,
        *,
        path: str | None = None,
        name: str | None = None,
        reason: str | None = None,
    ) -> Evaluation:
        """Record the score that a person gives; see `TaskClient.rate`."""
        body = {"score": score, "path": path, "name": name, "reason": reason}
        return evaluation_of_data(await self._post(f"{_run(run_id)}/rate", body))

    async def cancel_task(self, run_id: str) -> Task:
        """Cancel a run; see `TaskClient.cancel_task`."""
        return task_of_data(await self._post(f"{_run(run_id)}/cancel", {}))

    async def retry_task(self, run_id: str) -> Result:
        """Retry the failed step of a run in the process of the server; see `TaskClient.retry_task`."""
        return await self._executed(f"{_run(run_id)}/retry", {})

    async def continue_task(self, run_id: str) -> Result:
        """Resume a run in the process of the server; see `TaskClient.continue_task`."""
        return await self._executed(f"{_run(run_id)}/resume", {})

    async def fork_task(self, run_id: str, fork: Fork) -> Result:
        """Run again from a step in the process of the server; see `TaskClient.fork_task`."""
        same = {"prompts": dict(fork.prompts), "models": dict(fork.models), "live_effects": fork.live_effects}
        body = {
            "at": fork.at,
            "context": dict(fork.context),
            "answers": dict(fork.answers),
            **same,
            "run_id": fork.run_id,
        }
        given = {} if fork.input is UNCHANGED else {"input": fork.input}
        return await self._executed(f"{_run(run_id)}/fork", {**body, **given})

    async def wait(
        self,
        run_id: str,
        timeout: float | None = None,  # noqa: ASYNC109 - its error names the run
    ) -> Result:
        """Wait until a run ends, asks a human, or needs one to resume it; see `TaskClient.wait`."""
        limit = None if timeout is None else seconds(timeout, "timeout")
        began = _CLOCK.monotonic()
        while True:
            left = _WAIT_S if limit is None else began + limit - _CLOCK.monotonic()
            try:
                wait_s = max(0.0, min(_WAIT_S, left))
                return result_of_data(await self._get(f"{_run(run_id)}/result", wait=wait_s))
            except WaitTimedOut:
                if limit is not None and began + limit <= _CLOCK.monotonic():
                    raise

    async def questions(
        self,
        *,
        blueprint: str | None = None,
        queue: str | None = None,
        user_id: str | None = None,
        metadata_filter: Mapping[str, Any] | None = None,
        kind: str | Sequence[str] | None = None,
        run_id: str | None = None,
        words: str | None = None,
        claimed_by: str | None = None,
        unclaimed: bool = False,
        order: str = "urgency",
        limit: int = 100,
        cursor: str | None = None,
    ) -> list[Question]:
        """Return a page of the open questions, up to 1,000; see `TaskClient.questions`."""
        found = await self._get(
            "/questions",
            blueprint=blueprint,
            queue=queue,
            user_id=user_id,
            metadata=None if metadata_filter is None else json.dumps(metadata_filter),
            kind=kind,
            run_id=run_id,
            words=words,
            claimed_by=claimed_by,
            unclaimed=unclaimed,
            order=order,
            limit=limit,
            cursor=cursor,
        )
        return [question_of_data(each) for each in found["questions"]]

    async def reveal_question(self, run_id: str, pause_id: str) -> str:
        """Return the message of a question with its personal data; see `TaskClient.reveal_question`."""
        return str((await self._post(f"{_run(run_id)}/reveal", {"pause_id": pause_id}))["message"])

    async def claim_question(self, run_id: str, pause_id: str, *, take: bool = False) -> QuestionClaim:
        """Claim an open question for 15 minutes; see `TaskClient.claim_question`."""
        body = {"pause_id": pause_id, "take": take}
        return QuestionClaim(**await self._post(f"{_run(run_id)}/claim", body))

    async def release_question(self, run_id: str, pause_id: str) -> bool:
        """End the claim of this client; return whether there was one. See `TaskClient.release_question`."""
        return bool((await self._post(f"{_run(run_id)}/release", {"pause_id": pause_id}))["released"])

    async def escalate_question(self, run_id: str, pause_id: str, reason: str) -> None:
        """Leave an open question to others who can decide it; see `TaskClient.escalate_question`."""
        await self._post(f"{_run(run_id)}/escalate", {"pause_id": pause_id, "reason": reason})

    async def store_blob(self, data: bytes, provider: str) -> ContextReference[bytes]:
        """Store a large value with a state provider; see `TaskClient.store_blob`."""
        headers = {"content-type": "application/octet-stream"}
        found = await self._sent("POST", f"/blobs/{quote(provider, safe='')}", content=data, headers=headers)
        return ContextReference[bytes](**found)

    async def read_blob(self, reference: ContextReference[bytes]) -> bytes:
        """Return a value that was stored under its SHA-256; see `TaskClient.read_blob`."""
        provider, digest = quote(reference.provider_id, safe=""), reference.key.removeprefix("sha256/")
        with _reaching(self._client):
            answer = await self._client.get(f"/blobs/{provider}/{quote(digest, safe='')}")
        return answer.content if answer.is_success else _read(answer)

    async def _digest(self, run_id: str, pause_id: str | None) -> str:
        """Return the digest of the open question that is meant; empty when the server has to say which."""
        asked = await self.questions(run_id=run_id, limit=_MAX_PAGE)
        found = {each.pause.pause_id: each.digest for each in asked}
        names = list(found)
        meant = paths.find(pause_id, names) if pause_id is not None else names[0] if len(names) == 1 else None
        return "" if meant is None else found[meant]

    async def _executed(self, path: str, body: Mapping[str, Any]) -> Result:
        """Return the result of a run that the server executes, however long it takes."""
        found = await self._post(path, {**body, "wait": _WAIT_S})
        return result_of_data(found) if "output" in found else await self.wait(found["run_id"])

    async def _get(self, path: str, **given: Any) -> Any:
        return await self._sent("GET", path, params=_query(given))

    async def _post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> Any:
        return await self._sent("POST", path, json=body, headers=headers)

    async def _sent(self, method: str, path: str, **more: Any) -> Any:
        with _reaching(self._client):
            answer = await self._client.request(method, path, **more)
        return _read(answer)

    @asynccontextmanager
    async def _stream(
        self, path: str, given: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[tuple[str, str, Any]]]:
        """Open a stream of events, each as its name, its id and its data."""
        with _reaching(self._client):
            async with self._client.stream("GET", path, params=_query(given), headers=headers) as answer:
                if answer.status_code >= httpx2.codes.BAD_REQUEST:
                    await answer.aread()
                    _read(answer)
                yield _events(answer)


@contextmanager
def _reaching(client: httpx2.AsyncClient) -> Iterator[None]:
    """Raise the errors of connections as one of Flujo."""
    try:
        yield
    except httpx2.HTTPError as error:
        where = f"{client.base_url.scheme}://{client.base_url.netloc.decode()}"
        raise ServerUnavailable(
            f"the server at {where} cannot be reached: {str(error) or type(error).__name__}"
        ) from error


def _read(answer: httpx2.Response) -> Any:
    """Return the data of an answer.

    Raises:
        FlujoError: the error that the server answered with.
        ServerUnavailable: the answer is that of another program, such as the page of a proxy.
    """
    try:
        found = answer.json()
    except ValueError:
        found = None
    if answer.is_success and isinstance(found, dict):
        return found
    if isinstance(found, dict) and isinstance(found.get("title"), str):
        raise _rebuilt(found)
    raise ServerUnavailable(
        f"{answer.url.host} answered {answer.status_code}, and not as Flujo does",
        hint="check the address: `GET /api/v1/openapi.json` below it is the document of the API",
    )


def _rebuilt(problem: Mapping[str, Any]) -> FlujoError:
    """Return the error that a server has written as a problem."""
    kind = _KINDS.get(problem.get("code") or "", FlujoError)
    facts = problem.get("facts") or {}
    return kind(problem["title"], hint=problem.get("hint"), **facts)


def _kinds(kind: type[FlujoError]) -> Iterator[type[FlujoError]]:
    for each in kind.__subclasses__():
        yield from _kinds(each)  # the class that has introduced a code comes last, and stays
        yield each


_KINDS = {each.code: each for each in _kinds(FlujoError)}
"""The errors by their codes."""


async def _events(answer: httpx2.Response) -> AsyncIterator[tuple[str, str, Any]]:
    """Yield the events of a stream: the name, the id and the data of each."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if not line:
            if "data" in fields:
                yield fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"])
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")


def _run(run_id: Any) -> str:
    return f"/runs/{quote(text(run_id, 'run_id'), safe='')}"


def _query(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without those that are not given."""
    return {name: each for name, each in given.items() if each is not None}
