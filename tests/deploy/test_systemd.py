"""The units for systemd: systemd accepts them, and they agree with Flujo."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from deploy.command_lines import DEPLOY, VARIABLES, most_to_stop_s, parsed
from flujo.cli.exit_codes import ExitCode
from missing import NO_SYSTEMD

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = DEPLOY / "systemd"
COMMON = FOLDER / "flujo-.service.d/common.conf"
PROGRAM = "/srv/shop/.venv/bin/flujo"
UNITS = sorted(FOLDER.glob("*.service"))
LASTING = [unit for unit in UNITS if unit.name != "flujo-migrate.service"]
by_name = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
by_lasting_name = pytest.mark.parametrize("unit", LASTING, ids=lambda unit: str(unit.name))


def values(file: Path, key: str) -> list[str]:
    """Return the values of a key in the order of the file."""
    lines = (line.partition("=") for line in file.read_text("utf-8").splitlines())
    return [value for name, _, value in lines if name == key]


def words(unit: Path) -> list[str]:
    [command] = values(unit, "ExecStart")
    program, *rest = shlex.split(command)
    assert program == PROGRAM
    return rest


@by_name
def test_a_unit_calls_flujo_with_options_that_it_has(unit: Path) -> None:
    assert unit.stem.removesuffix("@") == f"flujo-{parsed(words(unit))[0]}"


@by_lasting_name
def test_a_process_gets_more_time_to_stop_than_it_takes(unit: Path) -> None:
    [seconds] = values(unit, "TimeoutStopSec")
    assert float(seconds) >= most_to_stop_s(words(unit)) + 10


@by_lasting_name
def test_a_process_starts_again_unless_its_settings_are_wrong(unit: Path) -> None:
    [never] = values(unit, "RestartPreventExitStatus")
    codes = {ExitCode(int(code)) for code in never.split()}
    assert ExitCode.USAGE in codes
    assert codes <= {ExitCode.USAGE, ExitCode.CALLABLE}
    assert values(unit, "Restart") == ["on-failure"]
    assert values(unit, "StartLimitIntervalSec") == ["0"]


def test_what_the_units_have_in_common_names_settings_of_flujo() -> None:
    for line in values(COMMON, "Environment"):
        name, _, folder = line.partition("=")
        assert name in VARIABLES
        assert folder == f"/var/cache/{values(COMMON, 'CacheDirectory')[0]}"
    # SIGTERM for the main process alone: a child that it needs must not be stopped before it.
    assert (values(COMMON, "KillMode"), values(COMMON, "KillSignal")) == (["mixed"], ["SIGTERM"])
    assert values(COMMON, "EnvironmentFile") == ["/etc/flujo/environment", "-/etc/flujo/%p"]
    assert all(unit.name.startswith("flujo-") for unit in UNITS)


def test_systemd_accepts_the_units_and_finds_little_that_they_could_harm(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip(NO_SYSTEMD)
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    for unit in tmp_path.glob("*.service"):  # the program must exist
        unit.write_text(unit.read_text("utf-8").replace(PROGRAM, "/bin/true"), "utf-8")
    named = [unit.name.replace("@.", "@1.") for unit in UNITS]
    env = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}

    def analyzed(*command: str) -> subprocess.CompletedProcess[str]:
        every = ["systemd-analyze", *command, *named]
        return subprocess.run(every, env=env, capture_output=True, text=True, check=False)

    verified = analyzed("verify", "--man=no")
    assert (verified.returncode, verified.stderr) == (0, "")
    harm = analyzed("security", "--offline=true", "--threshold=25", "--no-pager")  # 25 is 2.5 of 10
    assert harm.returncode == 0, harm.stdout[-500:]
