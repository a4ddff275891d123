"""The part of `TaskClient` for large values, which state providers keep outside the database."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from flujo.domain.access import Right
from flujo.domain.context_references import ContextReference
from flujo.governance.sink import GATE
from flujo.services.given import instance, text
from flujo.services.inspection.client_base import ClientBase

if TYPE_CHECKING:
    from flujo.services.binding.blob_references import RunBlobs


class BlobClient(ClientBase):
    """Stores large values, and reads them."""

    async def store_blob(self, data: bytes, provider: str) -> ContextReference[bytes]:
        """Store a large value, and return the reference that stands for it in the context of a run.

        Args:
            data: the value.
            provider: the id of a state provider of the project.

        Raises:
            SettingsError: this client has no project, or an argument has the wrong type.
            ProviderNotGiven | ProviderFailed: the project has no such provider, or it does not store it.
            SecretInValue: the value contains a known secret.
        """
        self._require_everywhere(Right.OPERATE)
        data, provider = instance(bytes, data, "data"), text(provider, "provider")
        return ContextReference[bytes](**await (await self._blobs()).put(data, provider))

    async def read_blob(self, reference: ContextReference[bytes]) -> bytes:
        """Return the value behind a reference, as it was stored: no personal data in it is masked.

        Raises:
            AccessDenied: personal data is masked for the principal.
            SettingsError: this client has no project, or this is not a reference.
            ProviderNotGiven | ProviderFailed | ReferenceMissing | ReferenceCorrupt: it cannot be read.
        """
        self._require_everywhere(Right.ADMINISTER if GATE.hides_personal_data else Right.READ)
        reference = instance(ContextReference, reference, "reference")
        return await (await self._blobs()).get(reference, "")

    @abstractmethod
    async def _blobs(self) -> RunBlobs: ...
