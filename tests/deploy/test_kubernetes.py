"""The manifests for Kubernetes: valid in the oldest and the newest supported version, and in agreement with Flujo and the image."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from deploy.command_lines import DEPLOY, VARIABLES, most_to_stop_s, parsed
from flujo.serve.api import health
from flujo.services.runs.heartbeat import BEAT_S
from flujo.state.leases import LEASE_S
from missing import NO_KUBECTL

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = DEPLOY / "kubernetes"
OLDEST = "1.30.0"
"""The first version that knows `preStop.sleep` without a feature gate."""


def documents(*files: Path) -> list[dict[str, Any]]:
    return [each for file in files for each in yaml.safe_load_all(file.read_text("utf-8"))]


FILES = [file for file in sorted(FOLDER.rglob("*.yaml")) if file.name != "kustomization.yaml"]
OBJECTS = {f"{each['kind']}/{each['metadata']['name']}": each for each in documents(*FILES)}
PODS = {name: each["spec"]["template"] for name, each in OBJECTS.items() if "template" in each["spec"]}
CONTAINERS = {name: pod["spec"]["containers"][0] for name, pod in PODS.items()}
WORKER, SERVE = "Deployment/flujo-worker", "Deployment/flujo-serve"


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", OBJECTS)
def test_a_manifest_has_only_keys_that_its_kind_has(name: str, version: str) -> None:
    kubernetes_validate.validate(OBJECTS[name], version, strict=True)


def test_a_misspelt_key_deep_inside_would_be_found() -> None:
    wrong = copy.deepcopy(OBJECTS[WORKER])
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["periodSecond"] = 5
    with pytest.raises(kubernetes_validate.ValidationError, match="periodSecond"):
        kubernetes_validate.validate(wrong, OLDEST, strict=True)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_calls_flujo_with_options_that_it_has(name: str) -> None:
    assert name.endswith(parsed(CONTAINERS[name]["args"])[0])
    assert "command" not in CONTAINERS[name]  # that would replace the entry point of the image


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_no_rights_and_the_user_of_the_image(name: str) -> None:
    pod, own = PODS[name]["spec"], CONTAINERS[name]["securityContext"]
    user, group = re.findall(r"^USER (\d+):(\d+)$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.M)[-1]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user),
        "runAsGroup": int(group),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert set(CONTAINERS[name]["resources"]) == {"requests", "limits"}
    assert [each["name"] for each in pod["volumes"]] == ["tmp"]


@pytest.mark.parametrize("name", [WORKER, SERVE])
def test_a_process_gets_more_time_to_stop_than_it_takes(name: str) -> None:
    before = CONTAINERS[name].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    takes = before + most_to_stop_s(CONTAINERS[name]["args"])
    assert PODS[name]["spec"]["terminationGracePeriodSeconds"] >= takes + 10


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe"])
def test_the_probe_of_a_worker_asks_for_a_fresh_heartbeat_file(probe: str, tmp_path: Path) -> None:
    file = str(parsed(CONTAINERS[WORKER]["args"])[1]["heartbeat_file"])
    assert file.startswith(CONTAINERS[WORKER]["volumeMounts"][0]["mountPath"] + "/")
    command = CONTAINERS[WORKER][probe]["exec"]["command"]
    seconds = int(re.findall(r"(\d+) seconds ago", command[-1])[0])
    assert seconds >= max(4 * BEAT_S, 2 * LEASE_S)
    beat = tmp_path / "heartbeat"
    here = [word.replace(file, str(beat)) for word in command]

    def answers() -> bool:
        return subprocess.run(here, stderr=subprocess.DEVNULL, check=False).returncode == 0

    assert not answers()
    beat.touch()
    assert answers()
    os.utime(beat, (beat.stat().st_mtime - 2 * seconds,) * 2)
    assert not answers()


def test_the_probes_of_the_server_exist_and_need_no_login() -> None:
    container = CONTAINERS[SERVE]
    port = parsed(container["args"])[1]["port"]
    assert container["ports"] == [{"name": "http", "containerPort": port}]
    open_to_all = {each.path for each in health.ENDPOINTS if each.right is None}
    asked = {name: container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert all(each["path"] in open_to_all and each["port"] == "http" for each in asked.values())
    assert asked["livenessProbe"]["path"] == "/healthz"  # which does not ask the database


def test_selectors_find_the_pods_and_every_pod_has_its_budget_and_policy() -> None:
    for name in (WORKER, SERVE):
        labels = PODS[name]["metadata"]["labels"]
        short = name.removeprefix("Deployment/")
        assert OBJECTS[name]["spec"]["selector"]["matchLabels"] == labels
        assert OBJECTS[f"PodDisruptionBudget/{short}"]["spec"]["selector"]["matchLabels"] == labels
        assert OBJECTS[f"NetworkPolicy/{short}"]["spec"]["podSelector"]["matchLabels"] == labels
    assert OBJECTS["Service/flujo-serve"]["spec"]["selector"] == PODS[SERVE]["metadata"]["labels"]


def test_the_files_of_kustomize_name_every_manifest_and_what_the_pods_refer_to() -> None:
    [common] = documents(FOLDER / "common/kustomization.yaml")
    for name in ("migrate", "app"):
        [each] = documents(FOLDER / name / "kustomization.yaml")
        assert set(each["resources"]) == {file.name for file in FILES if file.parent.name == name}
        assert each["components"] == ["../common"]
    assert {container["image"] for container in CONTAINERS.values()} == {common["images"][0]["name"]}
    [settings] = common["configMapGenerator"]
    assert {line.partition("=")[0] for line in settings["literals"]} <= VARIABLES
    for container in CONTAINERS.values():
        maps = [each["configMapRef"]["name"] for each in container["envFrom"] if "configMapRef" in each]
        assert maps == [settings["name"]]


def test_the_manifests_hold_no_secret() -> None:
    assert not any(each["kind"] == "Secret" for each in OBJECTS.values())
    assert not any("env" in container for container in CONTAINERS.values())


@pytest.mark.parametrize("name", ["migrate", "app"])
def test_kubectl_builds_them(name: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip(NO_KUBECTL)
    built = subprocess.run(
        ["kubectl", "kustomize", FOLDER / name], capture_output=True, check=True, text=True
    ).stdout
    [image] = set(re.findall(r"image: (.*)", built))
    assert re.fullmatch(r"registry\.example\.com/shop:[\d.]+", image)
    found = list(yaml.safe_load_all(built))
    assert {each["metadata"]["namespace"] for each in found} == {"flujo"}
    for each in found:
        kubernetes_validate.validate(each, OLDEST, strict=True)
