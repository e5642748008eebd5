"""The tracking server on Kubernetes: the API's own schema, and names that must meet."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes_validate import ValidationError, validate

KUBERNETES = "1.34"
SECRET = {"POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
"""Keys of the Secret that the README makes."""


@pytest.fixture
def objects(documents: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return copy.deepcopy(documents["mlflow/kubernetes.yaml"])


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Labels and pod of everything that runs."""
    for each in objects:
        template = each.get("spec", {}).get("template")
        if template:
            yield template["metadata"]["labels"], template["spec"]


def containers(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for _, pod in pods(objects):
        yield from [*pod.get("initContainers", []), *pod["containers"]]


def dangling(objects: list[dict[str, Any]]) -> list[str]:
    """Names that one object uses and no other defines."""
    found = []
    labels = [label for label, _ in pods(objects)]
    names = {(each["kind"], each["metadata"]["name"]) for each in objects}
    for each in objects:
        spec, name = each.get("spec", {}), each["metadata"]["name"]
        if each["kind"] == "Service" and spec["selector"] not in labels:
            found.append(f"service {name} finds no pod")
        wanted = spec.get("selector", {}).get("matchLabels")
        if wanted and wanted != spec["template"]["metadata"]["labels"]:
            found.append(f"{name} does not know its own pods")
        if each["kind"] == "StatefulSet" and ("Service", spec["serviceName"]) not in names:
            found.append(f"{name} has no service")
    return found + [
        f"no key {key}" for box in containers(objects) for key in secrets(box) if key not in SECRET
    ]


def secrets(container: dict[str, Any]) -> Iterator[str]:
    for entry in container.get("env", []):
        reference = entry.get("valueFrom", {}).get("secretKeyRef")
        if reference:
            assert reference["name"] == "hpsearch-mlflow"
            yield reference["key"]


def test_kubernetes_accepts_it(objects: list[dict[str, Any]]) -> None:
    assert len(objects) == 10
    for each in objects:
        validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("index", "path", "value"),
    [
        (0, ("data",), {"PORT": 5000}),
        (1, ("spec", "replica"), 1),
        (1, ("spec", "selector"), None),
        (2, ("spec", "ports"), [{"name": "http"}]),
        (3, ("spec", "template", "spec", "containers", 0, "image"), 17),
        (7, ("spec", "ingress"), {}),
    ],
)
def test_kubernetes_refuses_a_mistake(
    objects: list[dict[str, Any]], index: int, path: tuple[Any, ...], value: object
) -> None:
    place: Any = objects[index]
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    with pytest.raises(ValidationError):
        validate(objects[index], KUBERNETES, strict=True)


def test_names_meet(objects: list[dict[str, Any]]) -> None:
    assert dangling(objects) == []


def test_names_that_do_not_meet_are_noticed(objects: list[dict[str, Any]]) -> None:
    objects[2]["spec"]["selector"] = {"app": "mlfow"}
    objects[3]["spec"]["serviceName"] = "postgres"
    objects[5]["spec"]["template"]["metadata"]["labels"] = {"app": "storage"}
    assert len(dangling(objects)) == 4  # the pods of the last are lost to their service as well


def test_nothing_is_reachable_from_outside(objects: list[dict[str, Any]]) -> None:
    kinds = {each["kind"] for each in objects}
    services = [each["spec"] for each in objects if each["kind"] == "Service"]
    assert "Ingress" not in kinds
    assert all(spec.get("type", "ClusterIP") == "ClusterIP" for spec in services)


def test_every_container_is_confined_and_watched(objects: list[dict[str, Any]]) -> None:
    for container in containers(objects):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
    for _, pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"]
        assert {"readinessProbe", "livenessProbe"} <= pod["containers"][0].keys()


def test_runs_and_artifacts_lie_on_volumes(objects: list[dict[str, Any]]) -> None:
    for each in objects:
        if each["kind"] == "StatefulSet":
            (claim,) = each["spec"]["volumeClaimTemplates"]
            mount = each["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]
            assert claim["metadata"]["name"] == mount["name"]
