"""`flujo doctor` checks the targets of messages: what it finds, and that it sends nothing."""

from __future__ import annotations

import base64
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flujo.exceptions import CallableError, FlujoError, SettingsError
from flujo.services.admin import target_checks
from flujo.services.admin.doctor import examine
from flujo.services.admin.target_checks import check_target
from flujo.services.project.project import find_project

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.services.project.project import Project

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
TOML = """
[notify.call]
callable = "told_by_doctor:tell"
[notify.gone]
callable = "told_by_doctor:tel"
[notify.hook]
url = "https://hooks.example.test/path-1"
secret = "${HOOK_SECRET}"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "flujo.toml").write_text(TOML)
    (tmp_path / "told_by_doctor.py").write_text("def tell(message):\n    raise AssertionError\n")
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    return find_project(tmp_path)


def known(*hosts: str) -> Any:
    """Return a look-up that knows these hosts."""

    def look(host: str, _: Any) -> list[str]:
        if host not in hosts:
            raise socket.gaierror("unknown")
        return [host]

    return look


def test_a_callable_is_imported_and_not_called(project: Project) -> None:
    assert check_target(project, "call") == "`told_by_doctor:tell`"
    with pytest.raises(CallableError, match="tel"):
        check_target(project, "gone")


def test_the_host_of_a_webhook_is_looked_up(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", known("hooks.example.test"))
    assert check_target(project, "hook") == "the host `hooks.example.test`, whose requests are signed"
    monkeypatch.setattr(socket, "getaddrinfo", known())
    with pytest.raises(
        SettingsError, match=r"`hooks.example.test` of \[notify.hook\] has no address"
    ) as found:
        check_target(project, "hook")
    assert "path-1" not in str(found.value)


def test_a_name_service_that_does_not_answer_ends_the_check(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [] if never.wait(60) else None)
    monkeypatch.setattr(target_checks, "RESOLVING_S", 0.01)
    with pytest.raises(SettingsError, match="has no address"):
        check_target(project, "hook")
    never.set()


@pytest.mark.parametrize("secret", ["", "whsec_short", "plain"])
def test_a_secret_that_is_none_is_found(
    project: Project, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", known("hooks.example.test"))
    monkeypatch.setenv("HOOK_SECRET", secret)
    with pytest.raises(FlujoError):
        check_target(project, "hook")


def test_the_doctor_lists_each_target(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", known("hooks.example.test"))
    found = [(each.state, each.detail) for each in examine(project) if each.name == "notify"]
    assert [state for state, _ in found] == ["ok", "warn", "ok"]
    assert found[0][1] == "call: `told_by_doctor:tell`"
