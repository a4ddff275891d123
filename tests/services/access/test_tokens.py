"""Tokens of the API, and what a client may do in the name of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.client import TaskClient
from flujo.domain.access import Principal, Right, Role
from flujo.domain.acts import Actor, Via
from flujo.domain.run import RunStatus
from flujo.exceptions import AccessDenied, FlujoError, RunNotFound, SettingsError, TokenRefused
from flujo.services.access.tokens import create, principal_of
from flujo.state.memory_store import MemoryStateStore
from flujo.testing.store_suite import move, new_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ADA = Actor("ada", Via.CLI)
OWN, OTHERS = "own-1", "others-1"

CALLS: dict[Right, list[Callable[[TaskClient, str], Awaitable[Any]]]] = {
    Right.READ: [
        lambda client, run: client.get_task(run),
        lambda client, run: client.get_log(run),
        lambda client, run: client.wait(run),
        lambda client, run: client.list_tasks(parent=run),
        lambda client, run: client.count(chain=run),
    ],
    Right.ANSWER: [
        lambda client, run: client.resume_task(run, "yes"),
        lambda client, run: client.resolve_task(run, "retry"),
        lambda client, run: client.rate(run, 0.5),
    ],
    Right.OPERATE: [
        lambda client, run: client.cancel_task(run),
        lambda client, run: client.retry_task(run),
        lambda client, run: client.send_event("paid", run_id=run),
    ],
}


@pytest.fixture
async def store() -> MemoryStateStore:
    made = MemoryStateStore()
    for run_id, team in ((OWN, "north"), (OTHERS, "south")):
        run = await made.accept(new_run(run_id, metadata={"team": team}), {})
        await made.write(move(run, RunStatus.COMPLETED))
    return made


async def _principal(store: MemoryStateStore, role: Role) -> Principal:
    new = await create(store, str(role), role, actor=ADA, metadata={"team": "north"})
    return await principal_of(store, new.secret)


async def _outcome(call: Awaitable[Any]) -> type[BaseException] | None:
    try:
        await call
    except FlujoError as error:
        return type(error)
    return None


@pytest.mark.parametrize("role", Role)
async def test_each_role_may_do_what_its_rights_say_on_runs_within_reach(
    store: MemoryStateStore, role: Role
) -> None:
    client = TaskClient(store, principal=await _principal(store, role))
    for right, calls in CALLS.items():
        for call in calls:
            own, others = await _outcome(call(client, OWN)), await _outcome(call(client, OTHERS))
            if right in role.rights:
                assert own not in (AccessDenied, RunNotFound)
                assert others is RunNotFound
            else:
                assert (own, others) == (AccessDenied, AccessDenied)


async def test_a_list_of_a_limited_principal_has_its_runs_only(store: MemoryStateStore) -> None:
    client = TaskClient(store, principal=await _principal(store, Role.VIEWER))
    assert [task.run_id for task in await client.list_tasks()] == [OWN]
    assert await client.count() == {"completed": 1}


async def test_a_limited_principal_reads_nothing_about_all_runs(store: MemoryStateStore) -> None:
    client = TaskClient(store, principal=await _principal(store, Role.ADMIN))
    for call in (client.queues(), client.workers(), client.send_event("paid", key="order-1")):
        with pytest.raises(AccessDenied, match="limited to some runs"):
            await call
    with pytest.raises(RunNotFound):
        await client.get_task("o")


async def test_an_act_is_recorded_under_the_name_of_the_token(store: MemoryStateStore) -> None:
    client = TaskClient(store, principal=await _principal(store, Role.ANSWERER))
    await client.rate(OWN, 0.5)
    [act] = await store.acts((await store.find(OWN)).run_id)
    assert act.actor == Actor("answerer", Via.API)
    with pytest.raises(SettingsError, match="exclude each other"):
        await client.rate(OWN, 0.5, by="bob")


async def test_a_secret_that_is_unknown_expired_or_revoked_is_refused_alike(store: MemoryStateStore) -> None:
    expired = await create(store, "expired", Role.VIEWER, actor=ADA, lives_s=0.0)
    revoked = await create(store, "revoked", Role.VIEWER, actor=ADA)
    await store.revoke_token("revoked", ADA)
    said = set()
    for secret in (expired.secret, revoked.secret, "flujo_x", "", "\udc80"):
        with pytest.raises(TokenRefused) as refused:
            await principal_of(store, secret)
        said.add(str(refused.value))
    assert len(said) == 1


async def test_a_token_cannot_be_created_with_a_name_role_or_limit_that_nothing_fits(
    store: MemoryStateStore,
) -> None:
    wrong: list[dict[str, Any]] = [
        {"name": "a b"},
        {"name": ""},
        {"role": "root"},
        {"metadata": {"a-b": "1"}},
    ]
    for given in wrong:
        words: dict[str, Any] = {"name": "x", "role": "viewer", **given}
        with pytest.raises(SettingsError):
            await create(store, **words, actor=ADA)
    assert await store.tokens() == []
