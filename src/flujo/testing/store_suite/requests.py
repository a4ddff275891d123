"""The limits of providers: all stores of a database count the requests of each other."""

from __future__ import annotations

import asyncio

from flujo.domain.providers import Allowed
from flujo.testing.store_suite.examples import SHORT_S, OpenStore

_RPM = Allowed(rpm=2)
_TPM = Allowed(tpm=100)


class RequestsSuite:
    """Requests to a provider are counted once, whichever store asks."""

    async def test_stores_share_the_number_of_requests(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(3)]
        asked = [store.admit_request("p", 0, _RPM) for store in stores for _ in range(2)]
        found = await asyncio.gather(*asked)
        tickets = [each.ticket for each in found if each.ticket is not None]
        assert len(set(tickets)) == len(tickets) == 2
        assert all(0 < each.wait_s <= 60 for each in found if each.ticket is None)
        assert (await stores[0].admit_request("another", 0, _RPM)).ticket is not None

    async def test_tokens_count_at_their_most_until_the_request_is_settled(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        first = await mine.admit_request("p", 60, _TPM)
        assert first.ticket is not None
        assert (await other.admit_request("p", 60, _TPM)).ticket is None
        assert (await other.admit_request("p", 40, _TPM)).ticket is not None
        await mine.settle_request("p", first.ticket, 20)
        assert (await other.admit_request("p", 41, _TPM)).ticket is None
        assert (await other.admit_request("p", 40, _TPM)).ticket is not None

    async def test_a_request_that_is_larger_than_the_limit_is_sent_alone(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        large = await mine.admit_request("p", 500, _TPM)
        assert large.ticket is not None
        assert (await other.admit_request("p", 1, _TPM)).ticket is None
        await mine.settle_request("p", large.ticket, None)  # it was not sent
        assert (await other.admit_request("p", 1, _TPM)).ticket is not None
        assert (await mine.admit_request("p", 500, _TPM)).ticket is None

    async def test_a_request_counts_for_the_span(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        for _ in range(2):
            assert (await mine.admit_request("p", 0, _RPM, span_s=60)).ticket is not None
        assert (await other.admit_request("p", 0, _RPM, span_s=60)).ticket is None
        await asyncio.sleep(SHORT_S)
        assert (await other.admit_request("p", 0, _RPM, span_s=SHORT_S)).ticket is not None

    async def test_a_settled_request_that_is_forgotten_changes_nothing(self, open_store: OpenStore) -> None:
        store = await open_store()
        await store.settle_request("p", 1, 50)
        assert (await store.admit_request("p", 100, _TPM)).ticket is not None
