"""Every bad file is refused with the expected finding at its line; every good look-alike passes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bad.corpus import CASES as BAD
from bad.corpus import Case
from flujo.blueprint.diagnostics import RULES, Diagnostic, render
from flujo.blueprint.language.models import Blueprint
from flujo.blueprint.language.validation import check
from flujo.blueprint.reading.reader import read
from flujo.blueprint.reading.source_map import Document
from good.corpus import CASES as GOOD


def _read(data: bytes) -> tuple[Document, Blueprint | None, list[Diagnostic]]:
    document = read(data, "case.yaml")
    blueprint, found = check(document)
    return document, blueprint, [*document.diagnostics, *found]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_a_bad_file_is_refused_for_its_reason_at_its_line(case: Case) -> None:
    document, blueprint, found = _read(case.data)
    named = [finding for finding in found if RULES[finding.code].slug == case.slug]
    assert case.line in [finding.span.line for finding in named], [str(finding) for finding in found]
    said = " ".join(f"{finding.message} {finding.hint}" for finding in named)
    assert [word for word in case.words if word not in said] == []
    if any(finding.is_error for finding in found):
        assert blueprint is None
    for finding in found:
        assert render(finding, {"case.yaml": document.text}).isprintable() is False  # several lines
        assert json.dumps(finding.message)
        assert "pydantic" not in finding.message
        assert "Input should" not in finding.message


@pytest.mark.parametrize("name", GOOD)
def test_a_good_look_alike_passes(name: str) -> None:
    data = GOOD[name]
    _, blueprint, found = _read(data if isinstance(data, bytes) else data.encode())
    assert [str(finding) for finding in found] == []
    assert blueprint is not None


def test_names_of_cases_are_unique() -> None:
    names = [case.name for case in BAD]
    assert len(set(names)) == len(names)


def test_reading_the_bad_files_takes_little_memory_and_touches_nothing() -> None:
    """Runs in a separate process with a hook that refuses sockets, processes, writes and imports of named modules."""
    script = """
import sys
from pathlib import Path
from flujo.blueprint.reading.reader import read
from flujo.blueprint.language.validation import check
from bad.corpus import CASES
check(read(CASES[-1].data, "warm up"))
loaded = set(sys.modules)

def hook(event, args):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec")) or (event == "open" and "w" in str(args[1])):
        raise SystemExit(f"{event} {args}")

sys.addaudithook(hook)
for case in CASES:
    check(read(case.data, case.name))
assert set(sys.modules) <= loaded | {"unicodedata"}, set(sys.modules) - loaded
assert "jsonschema" not in sys.modules, "it takes longer to load than a blueprint to check"
status = Path("/proc/self/status")  # getrusage would count what the parent had when it forked
peaks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")] if status.exists() else [0]
print(int(peaks[0]) // 1024)
"""
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tests, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 256
