"""Settings of the tests that talk to models."""

from __future__ import annotations

import certifi
import pytest

_END = "-----END CERTIFICATE-----\n"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a file with one authority; the servers of these tests speak plain HTTP."""
    file = tmp_path_factory.mktemp("authorities") / "one.pem"
    file.write_text(certifi.contents().partition(_END)[0] + _END, encoding="utf-8")
    return str(file)


@pytest.fixture(autouse=True)
def _few_authorities(certificate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each client read one authority: reading all of them takes longer than most of these tests."""
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
