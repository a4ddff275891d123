"""The Dockerfile and what it leaves out: pinned, small, not root, and without a shell between Flujo and its signals."""

from __future__ import annotations

import json
import re
import tomllib

from deploy.command_lines import DEPLOY, parsed

INSTRUCTIONS = [
    tuple(line.split(None, 1))
    for line in (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
LAST = INSTRUCTIONS[max(place for place, each in enumerate(INSTRUCTIONS) if each[0] == "FROM") :]


def of(name: str) -> list[str]:
    return [rest for word, rest in INSTRUCTIONS if word == name]


def last(name: str) -> str:
    """Return what the image does in the end: the last instruction of its last stage counts."""
    return [rest for word, rest in LAST if word == name][-1]


def test_both_stages_have_the_same_pinned_python_which_flujo_supports() -> None:
    [python] = of("ARG")
    version = python.removeprefix("PYTHON=")
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]
    assert {stage.split(" AS ")[0] for stage in of("FROM")} == {"python:${PYTHON}-slim"}


def test_the_image_has_packages_but_not_what_has_built_them() -> None:
    assert not any("pip" in rest for word, rest in LAST if word == "RUN")
    assert ("COPY", "--from=packages /venv /venv") in LAST
    assert not {"ADD", "ONBUILD", "VOLUME"} & {word for word, _ in INSTRUCTIONS}


def test_the_user_is_a_number_and_not_root_and_owns_no_file() -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", last("USER"))
    assert "--chown" not in " ".join(of("COPY"))


def test_flujo_gets_the_signals_and_its_default_command_exists() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["flujo"]
    assert parsed(json.loads(last("CMD")))[0] == "worker"


def test_no_secret_and_no_database_is_copied_or_written_into_it() -> None:
    ignored = (DEPLOY / ".dockerignore").read_text("utf-8").split()
    assert {".env", ".env.*", ".flujo/", "**/*.key", "**/*.pem", ".git/"} <= set(ignored)
    assert not re.search(r"KEY|TOKEN|SECRET|PASSWORD|URI", " ".join(of("ENV") + of("ARG")))
