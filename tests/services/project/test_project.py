"""A project is found from any folder inside it, and names its blueprints."""

from pathlib import Path

import pytest

from flujo.exceptions import SecretInValue, SettingsError
from flujo.governance.sink import GATE
from flujo.services.project.project import find_project

BLUEPRINT = 'version: "1"\nname: {name}\ndescription: {about}\nsteps: []\n'


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FLUJO_STATE_URI", raising=False)
    (tmp_path / "flujo.toml").write_text('[project]\nname = "demo"\n', "utf-8")
    (tmp_path / "blueprints/deep").mkdir(parents=True)
    add(tmp_path, "blueprints/triage.yaml", "ticket_triage")
    add(tmp_path, "blueprints/deep/answer.yml", "answer")
    return tmp_path


def add(root: Path, path: str, name: str, about: str = "") -> None:
    (root / path).write_text(BLUEPRINT.format(name=name, about=about), "utf-8")


def test_the_nearest_flujo_toml_upward_makes_the_project(root: Path) -> None:
    found = find_project(root / "blueprints/deep")
    assert found.root == root
    assert found.config_file == root / "flujo.toml"


def test_a_folder_without_one_is_a_project_with_defaults(tmp_path: Path) -> None:
    found = find_project(tmp_path)
    assert found.root == tmp_path
    assert found.config_file is None
    assert found.blueprints() == []


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not a folder"):
        find_project(tmp_path / "gone")


def test_the_database_of_a_project_is_in_its_root(root: Path) -> None:
    assert find_project(root / "blueprints").state_uri == f"sqlite:///{root}/.flujo/state.db"


@pytest.mark.parametrize("uri", ["sqlite:////var/x.db", "postgresql://u@h/db"])
def test_an_absolute_database_stays_where_it_is(
    root: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", uri)
    assert find_project(root).state_uri == uri


def test_blueprints_are_listed_with_name_and_description(root: Path) -> None:
    add(root, "blueprints/hello.yaml", "hello", "Greet")
    listed = [(b.name, b.path, b.description) for b in find_project(root).blueprints()]
    assert listed == [
        ("answer", "blueprints/deep/answer.yml", ""),
        ("hello", "blueprints/hello.yaml", "Greet"),
        ("ticket_triage", "blueprints/triage.yaml", ""),
    ]


def test_a_blueprint_that_is_not_yaml_is_still_listed(root: Path) -> None:
    (root / "blueprints/broken.yaml").write_bytes(b"\xff: [")
    assert "broken" in [b.name for b in find_project(root).blueprints()]


@pytest.mark.parametrize("text", ["blueprints/triage.yaml", "triage", "ticket_triage"])
def test_a_blueprint_is_found_by_path_stem_and_name(root: Path, text: str) -> None:
    assert find_project(root).locate(text, root) == "blueprints/triage.yaml"


def test_a_path_is_relative_to_the_folder_where_it_was_typed(root: Path) -> None:
    assert find_project(root).locate("answer.yml", root / "blueprints/deep") == "blueprints/deep/answer.yml"


def test_a_misspelt_name_is_answered_with_the_one_that_was_meant(root: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        find_project(root).locate("ticket_traige", root)
    assert caught.value.hint == "did you mean `ticket_triage`?"


def test_a_name_that_several_have_is_refused(root: Path) -> None:
    add(root, "blueprints/deep/triage.yaml", "other")
    with pytest.raises(SettingsError, match="matches several"):
        find_project(root).locate("triage", root)


def test_a_file_outside_the_project_is_refused(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("elsewhere") / "x.yaml"
    outside.write_text("steps: []", "utf-8")
    with pytest.raises(SettingsError, match="outside the project"):
        find_project(root).locate(str(outside), root)


def test_a_folder_stands_for_all_blueprints_in_it(root: Path) -> None:
    assert find_project(root).locate_all("blueprints/deep", root) == ["blueprints/deep/answer.yml"]


def test_a_folder_that_is_set_and_missing_is_an_error(root: Path) -> None:
    (root / "flujo.toml").write_text('[blueprints]\npaths = ["flows"]\n', "utf-8")
    with pytest.raises(SettingsError, match="names 'flows', which does not exist"):
        find_project(root).blueprint_paths()


def test_secrets_of_the_environment_are_masked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234")
    find_project(root)
    assert GATE.text("key sk-canary-1234 refused") == "key *** refused"
    with pytest.raises(SecretInValue, match="OPENAI_API_KEY"):
        GATE.admit(b'["sk-canary-1234"]', "the input")
