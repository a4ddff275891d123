"""Tokens of the API: added and revoked with an act, and found by the digest of their secret."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flujo.domain.access import Role, Token
from flujo.domain.acts import Actor, ActQuery, Verb, Via
from flujo.domain.reach import Reach
from flujo.exceptions import TokenExists, TokenRefused

if TYPE_CHECKING:
    from flujo.testing.store_suite.examples import OpenStore

ADA = Actor("ada", Via.CLI)
_REACH = Reach(blueprints=("triage",), queues=("support",), metadata={"team": "north"})
_TOKEN = Token(name="service", digest=b"d" * 32, role=Role.OPERATOR, reach=_REACH)


class TokensSuite:
    """A token is valid until it is revoked or expires, by the store's clock."""

    async def test_a_token_is_found_by_its_digest_until_it_is_revoked(self, open_store: OpenStore) -> None:
        store, other = await open_store(), await open_store()
        added = await store.add_token(_TOKEN, ADA)
        assert added == replace(_TOKEN, created_at=added.created_at)
        assert added.created_at > 0
        assert await other.token(_TOKEN.digest) == added
        assert await other.token(b"e" * 32) is None
        revoked = await other.revoke_token("service", ADA)
        assert revoked == await other.revoke_token("service", ADA)
        assert await store.token(_TOKEN.digest) is None
        assert await store.tokens() == [revoked]
        acts = await store.recorded_acts(ActQuery(object="service"))
        assert [act.verb for act in acts] == [Verb.REVOKE, Verb.ISSUE]

    async def test_a_token_expires_by_the_clock_of_the_store(self, open_store: OpenStore) -> None:
        store = await open_store()
        late = replace(_TOKEN, name="late", digest=b"f" * 32)
        added = await store.add_token(_TOKEN, ADA, lives_s=0.0)
        await store.add_token(late, ADA, lives_s=3600.0)
        assert added.expires_at == pytest.approx(added.created_at, abs=1.0)
        assert await store.token(_TOKEN.digest) is None
        assert (await store.token(late.digest)) is not None

    async def test_a_name_is_given_once_and_the_same_token_again_changes_nothing(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        added = await store.add_token(_TOKEN, ADA)
        assert await store.add_token(_TOKEN, ADA) == added
        await store.revoke_token("service", ADA)
        with pytest.raises(TokenExists, match="service"):
            await store.add_token(replace(_TOKEN, digest=b"x" * 32), ADA)
        assert len(await store.recorded_acts(ActQuery(object="service"))) == 2
        with pytest.raises(TokenRefused, match="nobody"):
            await store.revoke_token("nobody", ADA)

    async def test_of_two_tokens_with_one_name_added_at_once_one_is_refused(
        self, open_store: OpenStore
    ) -> None:
        stores = await open_store(), await open_store()
        given = [replace(_TOKEN, digest=bytes([number]) * 32) for number in range(2)]
        added = await asyncio.gather(
            *(store.add_token(token, ADA) for store, token in zip(stores, given, strict=True)),
            return_exceptions=True,
        )
        assert sorted(type(each).__name__ for each in added) == ["Token", "TokenExists"]
