"""The servers of a project: named by its settings, each started at its first use."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import McpCallFailed, ProviderUnavailable, SettingsError
from flujo.governance.sink import GATE
from flujo.services.mcp_servers import McpServers
from flujo.services.project.project import find_project
from local_mcp import children, shop_toml

if TYPE_CHECKING:
    from pathlib import Path


def servers(folder: Path, **env: str) -> McpServers:
    (folder / "flujo.toml").write_text(shop_toml(**env))
    return McpServers(find_project(folder))


def test_an_unknown_server_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no \[mcp.shpo\] in .*flujo.toml") as raised:
        servers(tmp_path).named("shpo")
    assert raised.value.hint is not None
    assert "`shop`" in raised.value.hint


def test_without_the_package_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "flujo.agents.mcp_servers", raising=False)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(ProviderUnavailable, match="needs a package that is not installed") as raised:
        servers(tmp_path).named("shop")
    assert raised.value.hint == "pip install 'flujo[mcp]'"


async def test_a_secret_that_is_not_set_is_an_error_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KB_TOKEN", raising=False)
    shop = servers(tmp_path, TOKEN="${KB_TOKEN}").named("shop")
    with pytest.raises(SettingsError, match=r"flujo.toml:4: `mcp.shop.env.TOKEN` uses \$\{KB_TOKEN\}"):
        await shop.tools()


async def test_a_server_gets_its_secret_and_nothing_else_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KB_TOKEN", "eij2Ohch0")
    monkeypatch.setenv("OTHER_TOKEN", "ahNg8ahch")
    made = servers(tmp_path, TOKEN="${KB_TOKEN}")
    shop = made.named("shop")
    assert await shop.call("environment", {"name": "TOKEN"}, None) == {"result": "eij2Ohch0"}
    assert await shop.call("environment", {"name": "OTHER_TOKEN"}, None) == {"result": "unset"}
    assert GATE.text("it is eij2Ohch0") == "it is ***"
    await made.aclose()
    assert children() == []


async def test_the_log_and_the_errors_of_a_server_have_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flujo.mcp")
    monkeypatch.setenv("KB_TOKEN", "ooz9aiX4i")
    made = servers(tmp_path, TOKEN="${KB_TOKEN}")
    with pytest.raises(McpCallFailed, match="wrong secrets") as raised:
        await made.named("shop").call("leak", {"way": "error"}, None)
    await made.aclose()
    assert "ooz9aiX4i" not in str(raised.value)
    assert any("shop: the secrets are ['***'" in line for line in caplog.messages), caplog.messages
    assert "ooz9aiX4i" not in caplog.text


async def test_listing_stops_the_servers(tmp_path: Path) -> None:
    listed = await servers(tmp_path).listed(["shop"])
    assert "lookup" in listed["shop"]
    assert children() == []
