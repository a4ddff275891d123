"""Files of people and programs: uploaded to a form or over the API, limited in size and type, and escaped."""

from __future__ import annotations

import hashlib
import html
import re
from typing import TYPE_CHECKING, Any

import pytest

from flujo.serve.security import csrf
from flujo.services.inspection.task_client import TaskClient
from flujo.settings_serve import ServeTable
from serve.served import Served, served

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = b"we deliver; you pay"
CONTRACT = """\
version: "1"
name: contract
context: contracts:ContractContext
input_schema:
  type: object
  required: [title, scans]
  properties:
    title: {type: string, maxLength: 40}
    scans:
      type: array
      items:
        type: object
        required: [provider_id, key]
        properties: {provider_id: {type: string}, key: {type: string}, sha256: {}, size: {}}
steps:
  - {kind: hitl, name: ask, message: "Sign {{ input.title }}?"}
"""
CODE = '''\
"""The context of a contract."""

from flujo import ContextReference, PipelineContext


class ContractContext(PipelineContext):
    """A contract."""

    contract: ContextReference[str]
    office: str
    notes: str = ""
'''


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("upload")
    (root / "blueprints").mkdir()
    (root / "blueprints/contract.yaml").write_text(CONTRACT)
    (root / "contracts.py").write_text(CODE)
    (root / "flujo.toml").write_text(
        '[blueprints]\nallow_callables = ["contracts"]\n[state_providers]\ndocs = "file:documents"\n'
    )
    settings = ServeTable(max_upload_mib=1, upload_types=("text/plain", "image/*"))
    with served(root, settings) as client:
        yield client


def fields(shown: str) -> dict[str, str]:
    """Return the fields of a form as a browser sends them, without its buttons and files."""
    found = re.findall(r'<input[^>]* name="([^"]+)"[^>]* value="([^"]*)"', shown)
    texts = re.findall(r'<textarea[^>]* name="([^"]+)"[^>]*>\n?([^<]*)<', shown)
    return {html.unescape(name): html.unescape(value) for name, value in [*found, *texts]}


def send(browser: Served, data: dict[str, str], files: dict[str, Any], do: str = "start") -> Any:
    return browser.post(
        "/start/contract", data={**data, "_do": do}, files=files or {"none": b""}, follow_redirects=False
    )


def test_a_run_starts_with_the_files_of_a_form(browser: Served) -> None:
    shown = browser.get("/start/contract").text
    assert 'enctype="multipart/form-data"' in shown
    assert 'type="file"' in shown
    assert 'name="c/contract#file"' in shown
    assert "c/notes" not in shown, "a field with a default that is no file"
    data = {**fields(shown), "v/title": "lease", "v/scans#rows": "1", "c/office": ""}
    # The file is kept while another field is wrong, and a browser cannot send it again.
    wrong = send(browser, data, {"c/contract#file": ("lease.txt", TEXT)})
    assert wrong.status_code == 422
    assert "Uploaded: lease.txt (19 B)" in wrong.text
    again = fields(wrong.text)
    assert (again["v/title"], again["key"]) == ("lease", data["key"])
    scan = {"v/scans/0#file": ("<b>\u202egpj.png", b"\x89PNG\r\n\x1a\nx", "text/html")}
    row = send(browser, again, scan, "add:v/scans").text
    assert "Uploaded: &lt;b&gt;\\u202egpj.png" in row, "the name of a file is shown as a text"
    started = send(browser, {**fields(row), "c/office": "Geneva"}, {})
    assert started.status_code == 303, started.text
    detail = browser.here(
        TaskClient(browser.workspace).get_task, started.headers["location"].removeprefix("/runs/")
    )
    [scanned] = detail.input["scans"]
    assert (scanned["provider_id"], scanned["size"]) == ("docs", 9)
    stored = browser.workspace.project.root / "documents/sha256"
    assert (stored / hashlib.sha256(TEXT).hexdigest()).read_bytes() == TEXT
    assert detail.context["contract"]["sha256"] == hashlib.sha256(TEXT).hexdigest()
    removed = send(browser, again, {}, "drop:c/contract").text
    assert "Uploaded" not in removed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"x" * (2**20 + 1),
            "the file has 1,048,577 bytes, and this server takes files of up to 1,048,576 bytes",
        ),
        (b"%PDF-1.7", "is application/pdf, by its content, and this server takes text/plain, image/*"),
        (b"\0", "is of a type that is not known, by its content"),
    ],
)
def test_a_file_that_is_too_large_or_of_another_type_is_refused_at_its_field(
    browser: Served, content: bytes, said: str
) -> None:
    data = {**fields(browser.get("/start/contract").text), "v/title": "lease", "c/office": "Geneva"}
    answer = send(browser, data, {"c/contract#file": ("a.bin", content)})
    assert answer.status_code == 422
    assert re.search(rf'-wrong"><li>a\.bin: [^<]*{re.escape(said)}', re.sub(r"\s*\n\s*", "", answer.text))
    assert fields(answer.text)["v/title"] == "lease"
    if content.startswith(b"%PDF"):
        direct = browser.post(
            "/api/v1/blobs/docs", content=content, headers={"content-type": "application/octet-stream"}
        )
        assert (direct.status_code, direct.json()["code"]) == (415, "FLJ665")


def test_a_body_without_room_a_forged_reference_and_a_form_of_another_site_start_nothing(
    browser: Served,
) -> None:
    before = len(browser.here(TaskClient(browser.workspace).list_tasks))
    data = {**fields(browser.get("/start/contract").text), "v/title": "lease", "c/office": "Geneva"}
    assert send(browser, data, {"c/contract#file": ("a.txt", b"x" * 3_200_000)}).status_code == 413
    for forged in ('{"provider_id": 1}', "[]", "<script>"):
        answer = send(browser, {**data, "c/contract": forged}, {})
        assert (answer.status_code, "is not an uploaded file" in answer.text) == (422, True)
        assert "<script>" not in answer.text
    token = browser.headers.pop(csrf.HEADER)
    try:
        forged_form = {**data, csrf.FIELD: "x"}
        assert send(browser, forged_form, {"c/contract#file": ("a.txt", TEXT)}).status_code == 403
    finally:
        browser.headers[csrf.HEADER] = token
    assert len(browser.here(TaskClient(browser.workspace).list_tasks)) == before


def test_types_that_are_not_known_by_their_content_are_refused() -> None:
    with pytest.raises(ValueError, match="`upload_types` has 'application/zip'"):
        ServeTable(upload_types=("application/zip",))
