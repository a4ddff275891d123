"""What the settings and the variables of OpenTelemetry say about telemetry."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import SettingsError, TelemetryUnavailable
from flujo.governance.sink import GATE
from flujo.services.telemetry import telemetry_of
from flujo.settings import load
from flujo.telemetry.options import TelemetryOptions

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.telemetry.telemetry import Telemetry

URL = "http://collector.example:4318"


def options(tmp_path: Path, table: str = "") -> TelemetryOptions | None:
    found = of(tmp_path, table)
    return None if found is None else found.options


def of(tmp_path: Path, table: str) -> Telemetry | None:
    file = tmp_path / "flujo.toml"
    file.write_text(f"[telemetry]\n{table}\n")
    return telemetry_of(load(file))


def test_nothing_is_sent_unless_a_collector_is_named(tmp_path: Path) -> None:
    assert options(tmp_path) is None


def test_the_settings_name_a_collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTOR_TOKEN", "Bearer 5f2e8c1b9a7d")
    found = options(
        tmp_path,
        f'endpoint = "{URL}"\nservice_name = "support"\ncontent = true\n'
        'headers = { authorization = "${COLLECTOR_TOKEN}" }',
    )
    assert found == TelemetryOptions(
        endpoint=URL,
        headers=(("authorization", "Bearer 5f2e8c1b9a7d"),),
        service_name="support",
        sends_content=True,
    )
    assert GATE.text("5f2e8c1b9a7d") == "***"


def test_variables_come_before_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://other.example:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=3c9d41f07a52")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "other")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    found = options(tmp_path, f'endpoint = "{URL}"')
    assert found is not None
    assert (found.endpoint, found.service_name) == (None, None), "the SDK reads them itself"
    assert (found.sends_traces, found.sends_metrics) == (True, False)
    assert GATE.text("3c9d41f07a52") == "***"


@pytest.mark.parametrize("off", ["settings", "variable"])
def test_telemetry_can_be_turned_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", URL)
    if off == "variable":
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert options(tmp_path, "enabled = false" if off == "settings" else "") is None


def test_a_collector_in_the_settings_needs_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flujo.telemetry.telemetry.find_spec", lambda _: None)
    with pytest.raises(TelemetryUnavailable, match=r"flujo\.toml:2 names a collector") as found:
        options(tmp_path, f'endpoint = "{URL}"')
    assert "flujo[otel]" in (found.value.hint or "")


def test_without_the_extra_a_collector_in_the_variables_alone_is_ignored_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr("flujo.telemetry.telemetry.find_spec", lambda _: None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", URL)
    assert options(tmp_path) is None
    assert "pip install 'flujo[otel]'" in caplog.text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('endpoint = "collector:4318"', "write `http://…` or `https://…`"),
        ('endpoint = "http://me:secret-word@collector"', "without a password"),
        ('headers = { authorization = "${NOT_SET}" }\nendpoint = "http://c"', "NOT_SET"),
        ('endpont = "http://c"', "did you mean `endpoint`"),
    ],
)
def test_wrong_settings_name_their_place(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(SettingsError) as found:
        options(tmp_path, table)
    assert message in str(found.value)
    assert "flujo.toml:2" in str(found.value)
    assert "secret-word" not in str(found.value)


def test_other_commands_need_no_variables_of_its_headers(tmp_path: Path) -> None:
    file = tmp_path / "flujo.toml"
    file.write_text('[telemetry]\nendpoint = "http://c"\nheaders = { authorization = "${NOT_SET}" }\n')
    assert load(file).telemetry.headers == {"authorization": "${NOT_SET}"}
