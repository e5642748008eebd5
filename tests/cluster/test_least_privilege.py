"""No container has rights that it does not use, and stores answer those alone who need them."""

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.docker import docker_start_cmds

LAUNCHER = ("aws-gpu.yaml", "gcp-tpu.yaml")
WRITABLE_ROOT = {"rustfs"}
"""Containers whose image is not known to run on a read-only root."""


def pods(document: Any) -> Iterator[dict[str, Any]]:
    """Every pod specification within a Kubernetes document."""
    if isinstance(document, dict):
        if "containers" in document:
            yield document
        for value in document.values():
            yield from pods(value)
    elif isinstance(document, list):
        for value in document:
            yield from pods(value)


@pytest.fixture
def all_pods(documents: dict[str, list[Any]]) -> list[dict[str, Any]]:
    named = [f"kuberay/ray{kind}.yaml" for kind in ("cluster", "job")] + ["mlflow/kubernetes.yaml"]
    return [pod for name in named for pod in pods(documents[name])]


def boxes(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def test_no_pod_runs_as_root_or_with_the_account_of_its_namespace(
    all_pods: list[dict[str, Any]],
) -> None:
    assert len(all_pods) == 9
    for pod in all_pods:
        context = pod["securityContext"]
        assert context["runAsNonRoot"]
        assert context["runAsUser"] >= 999
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False


def test_no_container_can_gain_a_right_or_change_its_image(all_pods: list[dict[str, Any]]) -> None:
    for box in (box for pod in all_pods for box in boxes(pod)):
        context = box["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context.get("privileged")
        assert context.get("readOnlyRootFilesystem", False) == (box["name"] not in WRITABLE_ROOT)


def test_what_has_a_read_only_root_can_write_below_tmp(all_pods: list[dict[str, Any]]) -> None:
    for pod in all_pods:
        scratch = {volume["name"] for volume in pod.get("volumes", []) if "emptyDir" in volume}
        for box in boxes(pod):
            if box["name"] not in WRITABLE_ROOT:
                mounts = {mount["mountPath"]: mount["name"] for mount in box["volumeMounts"]}
                assert mounts["/tmp"] in scratch


def test_only_the_autoscaler_may_ask_kubernetes_for_workers(
    documents: dict[str, list[Any]], all_pods: list[dict[str, Any]]
) -> None:
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    options = documents["kuberay/raycluster.yaml"][0]["spec"]["autoscalerOptions"]
    assert account in [mount["mountPath"] for mount in options["volumeMounts"]]
    assert options["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounted = [mount for pod in all_pods for box in boxes(pod) for mount in box["volumeMounts"]]
    assert [mount for mount in mounted if mount["mountPath"].startswith("/var/run/secrets")] == []


def allows(policy: dict[str, Any], source: dict[str, str], target: dict[str, str]) -> set[int]:
    """Ports at which a policy lets pods of one set of labels reach those of another."""

    def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
        assert selector.keys() == {"matchLabels"}
        return selector["matchLabels"].items() <= labels.items()

    if not matches(policy["podSelector"], target):
        return set()
    return {
        port["port"]
        for rule in policy["ingress"]
        for peer in rule["from"]
        for port in rule["ports"]
        if peer.keys() == {"podSelector"} and matches(peer["podSelector"], source)
    }


HEAD = {"ray.io/node-type": "head", "ray.io/cluster": "hpsearch"}
STRANGER = {"app": "anything"}


@pytest.mark.parametrize(
    ("source", "reached"),
    [
        (HEAD, {"mlflow": {5000}}),
        ({"mlflow-client": "true"}, {"mlflow": {5000}}),
        ({"app": "mlflow"}, {"mlflow-postgres": {5432}, "mlflow-storage": {9000}}),
        ({"ray.io/node-type": "worker"}, {}),
        (STRANGER, {}),
    ],
)
def test_each_store_answers_those_alone_who_need_it(
    documents: dict[str, list[Any]], source: dict[str, str], reached: dict[str, set[int]]
) -> None:
    objects = documents["mlflow/kubernetes.yaml"]
    policies = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]
    apps = {pod["metadata"]["labels"]["app"] for each in objects for pod in templates(each)}
    closed = {policy["podSelector"]["matchLabels"]["app"] for policy in policies}
    assert closed == apps, "a pod without a policy is open to all"
    assert all(policy["policyTypes"] == ["Ingress"] for policy in policies)
    found = {
        app: set().union(*(allows(policy, source, {"app": app}) for policy in policies))
        for app in apps
    }
    assert {app: ports for app, ports in found.items() if ports} == reached


def templates(each: dict[str, Any]) -> list[dict[str, Any]]:
    template = each.get("spec", {}).get("template")
    return [template] if template else []


def test_compose_gives_no_service_a_capability(documents: dict[str, list[Any]]) -> None:
    for name, service in documents["mlflow/compose.yaml"][0]["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("read_only", False) == (name != "storage"), name
        assert not service.get("privileged")


@pytest.mark.parametrize("name", LAUNCHER)
def test_nodes_run_without_privileges(documents: dict[str, list[Any]], name: str) -> None:
    docker = documents[name][0]["docker"]
    options = [*docker["run_options"], *docker.get("worker_run_options", [])]
    assert {"--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(options)
    assert "--privileged" not in options


def test_a_tpu_host_gives_its_container_the_chips_and_nothing_else(
    documents: dict[str, list[Any]], tmp_path: Path
) -> None:
    """Ray hands the options to a shell of the host; here that shell sees another /dev."""
    for name in ("vfio/0", "vfio/vfio", "accel0", "sda", "mem"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    docker = documents["gcp-tpu.yaml"][0]["docker"]
    options = [*docker["run_options"], *docker["worker_run_options"]]
    command = docker_start_cmds(
        "ray", "IMAGE", {}, "hpsearch", options, "hpsearch", "/home/ray", docker_cmd="docker"
    )
    seen = command.replace("/dev/", f"{tmp_path}/").replace("-type c", "-type f")
    done = subprocess.run(
        ["bash", "-c", f'docker() {{ printf "%s\\n" "$@"; }}\n{seen}'],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    given = set(re.findall(rf"^--device={tmp_path}/(.+)$", done.stdout, re.MULTILINE))
    assert given == {"vfio/0", "vfio/vfio", "accel0"}


@pytest.mark.parametrize("name", LAUNCHER)
def test_docker_s_socket_stays_closed_to_others(
    documents: dict[str, list[Any]], name: str, tmp_path: Path
) -> None:
    lines = documents[name][0]["initialization_commands"]
    about = [line for line in lines if "docker.sock" in line]
    assert any("usermod --append --groups docker" in line for line in about)
    socket = tmp_path / "docker.sock"
    socket.touch()
    socket.chmod(0o660)
    for line in about:
        stand_ins = 'sudo() { [ $1 = usermod ] || command "$@"; }\nUSER=$(id -un)\n'
        script = stand_ins + line.replace("/var/run/", f"{tmp_path}/")
        subprocess.run(["bash", "-c", script], check=True)
    assert stat.S_IMODE(socket.stat().st_mode) == 0o660
    assert socket.stat().st_uid == os.getuid()
