"""Blob storage: a folder that no key escapes, and a bucket of a real S3 server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.request
from base64 import b64encode
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo import BucketProvider, ContextReference, FileProvider, Flujo, MemoryProvider, PipelineContext
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, Step, StepConfig
from flujo.exceptions import ReferenceMissing, SettingsError
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from flujo.state.memory_store import MemoryStateStore
from flujo.state.providers import open_provider
from support import HumanInTheLoopStep, Text, call, pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.ports import StateStore

# A separate process. Port 0 lets the system choose a port, which the first line prints.
SERVER = """
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
app = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


class S3:
    """A server with the S3 protocol and one bucket; it can stop and restart elsewhere, empty."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-W", "ignore", "-c", SERVER]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.ask("PUT", "papers")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        url = f"http://127.0.0.1:{self.port}/{path}"
        known = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request"  # not verified there
        headers = {"Content-Type": "application/octet-stream", "Authorization": known}
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as response:
            content: bytes = response.read()
            return content

    def provider(self) -> BucketProvider:
        return bucket(self.port)


def bucket(port: int) -> BucketProvider:
    return BucketProvider(
        "s3://papers/docs",
        endpoint=f"http://127.0.0.1:{port}",
        access_key_id="a",
        secret_access_key="b",
        region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3]:
    server = S3()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        return MemoryProvider()
    if request.param == "file":
        return FileProvider(tmp_path / "not" / "there" / "yet")
    return request.getfixturevalue("s3_server").provider()


async def test_a_stored_value_can_be_read_and_replaced(provider: Any) -> None:
    await provider.put("2026/a paper.pdf", b"one")
    await provider.put("2026/a paper.pdf", b"\x00two\xff")
    assert await provider.get("2026/a paper.pdf") == b"\x00two\xff"


async def test_a_missing_key_is_reported(provider: Any) -> None:
    with pytest.raises((LookupError, FileNotFoundError)):
        await provider.get("nothing/here")


async def test_a_large_value_is_returned_whole(provider: Any) -> None:
    data = bytes(range(256)) * 50_000
    await provider.put("large", data)
    assert await provider.get("large") == data


# A folder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["../x", "a/../../x", "/etc/passwd", "", ".", "a//b", "a/./b", "a\\..\\b", "a\0b", "a/", "link/x"]
)
async def test_no_key_escapes_the_folder(tmp_path: Path, key: str) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (outside / "x").write_bytes(b"not yours")
    (tmp_path / "x").write_bytes(b"not yours")
    (folder / "link").symlink_to(outside)
    provider = FileProvider(folder)
    with pytest.raises(ReferenceMissing, match="not a file inside the folder"):
        await provider.get(key)
    with pytest.raises(ReferenceMissing, match="not a file inside the folder"):
        await provider.put(key, b"mine")
    assert (outside / "x").read_bytes() == (tmp_path / "x").read_bytes() == b"not yours"


@given(key=st.text(st.sampled_from("ab./\\\0 é"), max_size=12))
def test_a_key_is_stored_inside_the_folder_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "keys"
    try:
        path = FileProvider(folder)._path(key)
    except ReferenceMissing:
        return
    assert path != folder
    assert path.resolve().is_relative_to(folder.resolve())


@pytest.mark.guarantee("G24")
async def test_an_interrupted_write_leaves_only_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = FileProvider(tmp_path)
    await provider.put("a", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flujo.state.providers.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        await provider.put("a", b"new")
    assert names(tmp_path) == ["a"]
    assert await provider.get("a") == b"old"


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# A bucket -----------------------------------------------------------------------------------------------


class Paper(PipelineContext):
    raw: ContextReference[bytes]
    text: ContextReference[str] | None = None


async def read(context: Paper) -> int:
    context.text = await ContextReference.of((await context.raw.get()).decode().upper())
    return len(await context.text.get())


TREE = pipeline(
    HumanInTheLoopStep(name="wait", message=Text("?")), call("read", CallableRef("paper:read", read))
)


def runner(store: StateStore, provider: Any) -> Flujo[Any, Any, Paper]:
    return Flujo(TREE, context_model=Paper, store=store, state_providers={"s3": provider})


async def test_a_run_with_its_documents_in_a_bucket(store: StateStore, s3_server: S3) -> None:
    s3_server.ask("PUT", "papers/docs/2026/a.txt", b"abc")
    pointer = {"provider_id": "s3", "key": "2026/a.txt"}
    async with runner(store, s3_server.provider()) as first:
        await first.run_result_async(None, run_id="run", initial_context_data={"raw": pointer})
    async with runner(store, s3_server.provider()) as second:
        result = await second.resume_async("run", "go")
    assert result.context is not None
    assert result.context.text is not None
    assert result.output == 3
    assert s3_server.ask("GET", f"papers/docs/{result.context.text.key}") == b"ABC"


async def test_an_upload_carries_a_digest_that_the_service_verifies() -> None:
    seen: list[str | None] = []

    class Noting(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.headers["x-amz-checksum-sha256"])
            self.send_response(200)
            self.send_header("ETag", '"e"')
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Do not log."""

    with HTTPServer(("127.0.0.1", 0), Noting) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        await bucket(server.server_port).put("checked", b"abc")
    assert seen == [b64encode(sha256(b"abc").digest()).decode()]


async def test_an_unreachable_server_fails_the_step_and_the_run_resumes_when_it_is_back(
    store: StateStore,
) -> None:
    server = S3()
    try:
        async with runner(store, server.provider()) as made:
            await made.run_result_async(None, run_id="run", initial_context_data={"raw": b"abc"})
            server.stop()
            gone = await made.resume_async("run", "go")
            assert (gone.status, gone.error and gone.error.type) == (RunStatus.FAILED, "ProviderFailed")
            assert gone.error is not None
            assert gone.error.retryable
            assert "\n" not in gone.error.message
        server.start()
        async with runner(store, server.provider()) as made:
            empty = await made.resume_async("run", retry_failed=True)
            assert empty.error is not None
            assert empty.error.type == "ReferenceMissing"
            assert gone.context is not None
            server.ask("PUT", f"papers/docs/{gone.context.raw.key}", b"abc")
            assert (await made.resume_async("run", retry_failed=True)).output == 3
    finally:
        server.stop()


# Settings -------------------------------------------------------------------------------------------------


def test_a_setting_names_a_folder_or_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    relative, absolute = (
        open_provider("a", "file:docs", tmp_path),
        open_provider("b", "file:///var/docs", tmp_path),
    )
    assert isinstance(relative, FileProvider)
    assert isinstance(absolute, FileProvider)
    assert (relative.folder, str(absolute.folder)) == (tmp_path / "docs", "/var/docs")
    assert isinstance(open_provider("c", "s3://papers/docs", tmp_path), BucketProvider)


FAR = """
from flujo import ContextReference


async def made(megabytes: int) -> ContextReference[bytes]:
    return await ContextReference[bytes].of(b"x" * megabytes * 1_000_000)


def measured(reference: ContextReference[bytes]) -> int:
    return len(reference.get_sync())
"""
MEGABYTES = int(os.environ.get("FLUJO_REFERENCE_MB", "20"))
"""The size of the value that passes from worker to worker; `make soak` takes 500 MB."""


async def test_a_large_value_goes_from_worker_to_worker_past_the_process_of_the_run(
    s3_server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_server.port}")
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "far_values.py").write_text(FAR, "utf-8")
    (tmp_path / "flujo.toml").write_text(
        '[blueprints]\nallow_callables = ["far_values"]\n[state_providers]\ndocs = "s3://papers/docs"\n'
        '[executors.cores]\nkind = "processes"\nsize = 1\n',
        "utf-8",
    )
    far = StepConfig(executor="cores")
    tree = pipeline(
        Step("make", call=CallableRef("far_values:made"), arguments={"megabytes": "{{ input }}"}, config=far),
        Step("measure", call=CallableRef("far_values:measured"), config=far),
    )
    asked: list[str] = []  # by this process; a worker has objects of its own
    for name in ("get", "put"):
        monkeypatch.setattr(BucketProvider, name, lambda _, key, *__: asked.append(key))
    async with Workspace(find_project(tmp_path)) as workspace:
        binding = workspace.bind(tree)
        async with Flujo[Any, Any, Any](tree, store=MemoryStateStore(), binding=binding) as runner:
            assert (await runner.run_result_async(1)).output == 1_000_000
            before = _peak_memory(begins=True)
            result = await runner.run_result_async(MEGABYTES)
            grown = _peak_memory() - before
    sys.modules.pop("far_values")
    assert (result.error, result.output) == (None, MEGABYTES * 1_000_000)
    assert asked == []
    assert grown < MEGABYTES * 1_000_000 / 4


def _peak_memory(*, begins: bool = False) -> int:
    """Return the largest number of bytes that this process had in memory since the last time that it began."""
    if begins:
        Path("/proc/self/clear_refs").write_text("5", "utf-8")
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.mark.parametrize("url", ["docs", "C:docs", "ftp:x/y", "s3:papers", "", "file:"])
def test_a_setting_that_names_neither_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(
        SettingsError, match=f"`state_providers.docs` is '{url}', which is not a state provider"
    ):
        open_provider("docs", url, tmp_path)


def test_an_unknown_storage_is_refused_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"`state_providers.docs`: the bucket 'ftp://x/y' cannot be opened: .*URL"
    ):
        open_provider("docs", "ftp://x/y", tmp_path)


def test_a_bucket_without_its_package_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(SettingsError) as error:
        BucketProvider("s3://papers")
    assert error.value.hint == "pip install 'flujo[s3]'"
