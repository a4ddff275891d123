"""Large values over HTTP: stored under their SHA-256, limited in size and type, and never shown by a browser."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from flujo.settings_serve import ServeTable

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.testclient import TestClient

BLOBS = "/api/v1/blobs/docs"
BYTES = {"content-type": "application/octet-stream"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "flujo.toml").write_text(
        'state_uri = "sqlite:///state.db"\n[state_providers]\ndocs = "file:documents"\n'
    )
    return tmp_path


def test_a_value_is_stored_and_read_again(
    browser: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"<script>alert(1)</script>"
    digest = hashlib.sha256(data).hexdigest()
    stored = browser.post(BLOBS, content=data, headers=BYTES)
    assert (stored.status_code, stored.json()) == (
        201,
        {"provider_id": "docs", "key": f"sha256/{digest}", "sha256": digest, "size": len(data)},
    )
    read = browser.get(f"{BLOBS}/{digest}")
    assert (read.content, read.headers["content-type"]) == (data, BYTES["content-type"])
    assert (read.headers["content-disposition"], read.headers["x-content-type-options"]) == (
        "attachment",
        "nosniff",
    )
    assert browser.post(BLOBS, content=bytes(1_100_000), headers=BYTES).status_code == 201
    (root / "documents" / "sha256" / digest).write_bytes(b"changed")
    assert browser.get(f"{BLOBS}/{digest}").json()["code"] == "FLJ463"
    monkeypatch.setattr(ServeTable, "max_upload", 10)
    for path, content, headers, status in (
        (BLOBS, b"x" * 11, BYTES, 413),
        (BLOBS, b"{}", {"content-type": "application/json"}, 415),
        ("/api/v1/blobs/other", b"x", BYTES, 400),
    ):
        assert browser.post(path, content=content, headers=headers).status_code == status
    assert [browser.get(f"{BLOBS}/{name}").status_code for name in ("0" * 64, "..%2Fflujo.toml", "x")] == [
        404,
        404,
        400,
    ]
