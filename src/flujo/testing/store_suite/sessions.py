"""Sessions: begun and ended with an act, and found by the digest of their secret."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flujo.domain.access import Session
from flujo.domain.acts import OF_LOGINS, Act, Actor, ActQuery, Verb, Via
from flujo.domain.journal import RunId
from flujo.exceptions import RunNotFound
from flujo.testing.store_suite.examples import new_run

if TYPE_CHECKING:
    from flujo.testing.store_suite.examples import OpenStore

ADA = Actor("ada", Via.WEB)
_SESSION = Session(name="ada", digest=b"s" * 32, proof=b"p" * 32)


class SessionsSuite:
    """A session is valid until it ends or expires, by the store's clock."""

    async def test_a_session_is_found_by_its_digest_until_it_ends(self, open_store: OpenStore) -> None:
        store, other = await open_store(), await open_store()
        begun = await store.begin_session(_SESSION, ADA, lives_s=3600.0, details=b'{"address":"::1"}')
        assert begun == replace(_SESSION, created_at=begun.created_at, expires_at=begun.expires_at)
        assert begun.expires_at - begun.created_at == pytest.approx(3600.0, abs=1.0)
        assert await store.begin_session(_SESSION, ADA, lives_s=60.0) == begun, "repeated after a lost answer"
        assert await other.session(_SESSION.digest) == begun
        assert await other.session(b"t" * 32) is None
        await other.end_session(_SESSION.digest, ADA)
        await other.end_session(_SESSION.digest, ADA)
        assert await store.session(_SESSION.digest) is None
        ended, logged_in = await store.recorded_acts(ActQuery(object="ada", verbs=OF_LOGINS))
        assert (ended.verb, ended.actor) == (Verb.LOG_OUT, ADA)
        assert (logged_in.verb, logged_in.after) == (Verb.LOG_IN, b'{"address":"::1"}')

    async def test_a_session_expires_by_the_clock_of_the_store(self, open_store: OpenStore) -> None:
        store = await open_store()
        await store.begin_session(_SESSION, ADA, lives_s=0.0)
        assert await store.session(_SESSION.digest) is None

    async def test_an_act_on_no_run_is_recorded(self, open_store: OpenStore) -> None:
        store = await open_store()
        refused = Act(verb=Verb.LOGIN_REFUSED, actor=ADA, object="ada", after=b'{"address":"::1"}')
        await store.record_act(refused)
        [found] = await store.recorded_acts(ActQuery(verbs=(Verb.LOGIN_REFUSED,)))
        assert replace(found, at=None) == refused
        assert found.at is not None

    async def test_an_act_that_changes_nothing_is_recorded_on_its_run(self, open_store: OpenStore) -> None:
        store = await open_store()
        run = await store.accept(new_run("r"), {})
        seen = Act(verb=Verb.REVEAL, actor=ADA, run_id=run.run_id, object="ask")
        await store.record_act(seen)
        [found] = await store.acts(run.run_id)
        assert replace(found, at=None) == seen
        with pytest.raises(RunNotFound):
            await store.record_act(replace(seen, run_id=RunId("other")))
