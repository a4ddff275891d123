"""`make soak` runs a proportion of its counts, every part of it, and reports what did not pass."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from docs.test_reliability import RELIABILITY
from soak.run import ROOT, Record, counts, number_of_tests, parts, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_given_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FLUJO_")]:
        monkeypatch.delenv(name)


def record(**more: str) -> Record:
    return Record(0.01, "abc1234", "2026-01-02", {"FLUJO_KILLS": "2", **more})


def ended(folder: Path) -> dict[str, str]:
    """Return the recorded result of each part."""
    return {
        part["name"]: part["result"] for part in json.loads((folder / "record.json").read_text())["parts"]
    }


def test_a_scaled_run_takes_a_proportion_and_not_less_than_make_test(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, small = counts(1), counts(0.01)
    assert (whole["FLUJO_SIM_SEEDS"], small["FLUJO_SIM_SEEDS"]) == ("200000", "2000")
    assert (whole["FLUJO_CRASH_EVERY"], whole["FLUJO_CORPUS_STRIDE"], whole["FLUJO_INTERLEAVE"]) == (
        "1",
        "1",
        "all",
    )
    assert whole["FLUJO_APPROVALS"] == "1000"
    assert small["FLUJO_RUNS"] == "400"
    assert "FLUJO_CRASH_TWICE" not in small
    monkeypatch.setenv("FLUJO_SIM_SEEDS", "7")
    monkeypatch.setenv("FLUJO_CRASH_TWICE", "1")
    assert (counts(1)["FLUJO_SIM_SEEDS"], counts(0.01)["FLUJO_CRASH_TWICE"]) == ("7", "1")


@pytest.mark.parametrize(
    "test",
    ["durability/test_crash_points.py", "durability/test_lost_wires.py", "durability/test_cancelled.py"],
)
def test_a_scaled_run_kills_at_no_fewer_points_than_make_test(test: str) -> None:
    strides = re.findall(
        r"EVERY.*?or (\d+)|EVERY or \((\d+) if .* else (\d+)\)", (ROOT / "tests" / test).read_text("utf-8")
    )
    assert strides
    least = min(int(number) for found in strides for number in found if number)
    assert int(counts(0.001)["FLUJO_CRASH_EVERY"]) <= least


def test_one_failure_is_not_called_failures(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    assert number_of_tests(report) == ""
    report.write_text('<s><testsuite tests="1200" failures="1" errors="0" skipped="2"/></s>')
    assert number_of_tests(report) == "1,200 tests, 1 failure, 2 skipped"


def test_every_count_is_read_by_a_test() -> None:
    pages = [page.read_text("utf-8") for page in (ROOT / "tests").rglob("*.py") if page.parent.name != "soak"]
    for name in counts(1):
        assert any(f'"{name}"' in page for page in pages), name


def test_a_whole_run_makes_every_mutation_and_a_scaled_one_a_few(tmp_path: Path) -> None:
    whole, small = parts(1, tmp_path), parts(0.01, tmp_path)
    assert len(whole["mutations"]) > 100
    assert len(small["mutations"]) < 10
    assert len(small["generated"]) < len(whole["generated"])


def test_a_part_that_fails_is_recorded_and_the_next_ones_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shows = "import os; print(os.environ.get('FLUJO_KILLS'), os.environ['FLUJO_EVIDENCE'])"
    commands: Mapping[str, list[str]] = {
        "faults": ["-c", f"{shows}; raise SystemExit(3)"],
        "mutations": ["-c", shows],
    }
    assert not run(record(FLUJO_KILLS="9"), commands, tmp_path)
    assert ended(tmp_path) == {"faults": "failed", "mutations": "passed"}
    out = capfd.readouterr().out
    assert f"9 {tmp_path / 'evidence.jsonl'}\n" in out
    assert f"None {tmp_path / 'evidence.jsonl'}\n" in out, (
        "mutations are detected with the counts of make test"
    )
    assert out.index("part 1 of 2: faults") < out.index("part 2 of 2: mutations")
    assert "failed" in out.splitlines()[-2]


def test_an_interrupted_run_records_which_part_did_not_end(tmp_path: Path) -> None:
    # A process that was started in the background may ignore SIGINT, and so do those that it starts.
    program = (
        "import signal, sys; from pathlib import Path; from soak.run import Record, run\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])\n"
        "waits = ['-c', 'import time; print(\"waits\", flush=True); time.sleep(600)']\n"
        "run(Record(1, 'c', 'd', {}), {'one': ['-c', ''], 'two': waits, 'three': ['-c', '']}, Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "waits\n":
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        rest, _ = process.communicate(timeout=60)
    assert ended(tmp_path) == {"one": "passed", "two": "interrupted", "three": "did not run"}
    assert "did not run" in rest


def test_the_page_shows_the_counts_the_parts_and_the_faults_of_the_run(tmp_path: Path) -> None:
    line = {"guarantees": ["G1"], "test": "tests/a.py::test_it", "faults": 30, "seeds": 4, "violations": []}
    (tmp_path / "evidence.jsonl").write_text(json.dumps({**line, "passed": True}) + "\n", "utf-8")
    run(record(), {"one": ["-c", ""], "two": ["-c", "raise SystemExit(1)"]}, tmp_path)
    section = RELIABILITY.last_soak(tmp_path)
    assert "2026-01-02 at commit abc1234, with 1 % of the counts" in section
    assert "| `FLUJO_KILLS` | 2 |" in section
    assert "| one | passed |" in section
    assert "| two | failed |" in section
    assert "| G1 | 30 | 4 | 1 | 0 |" in section


def test_the_page_keeps_the_section_when_it_is_written_again() -> None:
    page = RELIABILITY.page(RELIABILITY.proofs([]), "made here", "by hand\n", "## Last soak\n\nran\n")
    assert RELIABILITY.parts_of(page) == (
        page.partition("\n<!-- last soak -->\n")[0],
        "## Last soak\n\nran\n",
        "by hand\n",
    )
