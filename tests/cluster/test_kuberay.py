"""RayCluster and RayJob: the operator's fields, Kubernetes' pods, and what Ray makes of both."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate import ValidationError, validate
from ray._private import ray_constants
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

KUBERNETES = "1.34"
SCHEMA = yaml.safe_load((Path(__file__).parent / "schemas" / "kuberay.yaml").read_text())


@pytest.fixture
def cluster_object(documents: dict[str, list[Any]]) -> dict[str, Any]:
    return copy.deepcopy(documents["kuberay/raycluster.yaml"][0])


@pytest.fixture
def job_object(documents: dict[str, list[Any]]) -> dict[str, Any]:
    return copy.deepcopy(documents["kuberay/rayjob.yaml"][0])


def mistakes(document: dict[str, Any]) -> list[str]:
    """What the operator's API would refuse."""
    kind = {"$ref": f"#/$defs/{document['kind']}", **SCHEMA}
    found = Draft202012Validator(kind).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in found]


def groups(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def check_pod(template: dict[str, Any]) -> None:
    """Kubernetes' own schema, unknown fields refused; and names that nobody defines."""
    wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
    validate(wrapped, KUBERNETES, strict=True)
    spec = template["spec"]
    known = {volume["name"] for volume in spec["volumes"]}
    mounted = {mount["name"] for box in spec["containers"] for mount in box["volumeMounts"]}
    assert mounted <= known, f"no volume is called {mounted - known}"


def containers(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in groups(spec):
        yield from group["template"]["spec"]["containers"]


def test_the_operator_knows_every_field(
    cluster_object: dict[str, Any], job_object: dict[str, Any]
) -> None:
    assert mistakes(cluster_object) == []
    assert mistakes(job_object) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "rayversion"), "2.60.0"),
        (("spec", "rayVersion"), 2.6),
        (("spec", "authOptions", "mode"), "tokens"),
        (("spec", "autoscalerOptions", "version"), "v3"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "headGroupSpec", "template"), None),
        (("metadata", "name"), "HPSearch"),
        (("apiVersion",), "ray.io/v1alpha1"),
    ],
)
def test_a_mistake_is_refused(
    cluster_object: dict[str, Any], path: tuple[str, ...], value: object
) -> None:
    place = cluster_object
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert len(mistakes(cluster_object)) == 1


def test_a_group_needs_its_bounds(cluster_object: dict[str, Any]) -> None:
    del cluster_object["spec"]["workerGroupSpecs"][0]["maxReplicas"]
    assert "'maxReplicas' is a required property" in mistakes(cluster_object)[0]


def test_kubernetes_accepts_every_pod(
    cluster_object: dict[str, Any], job_object: dict[str, Any]
) -> None:
    for spec in (cluster_object["spec"], job_object["spec"]["rayClusterSpec"]):
        for group in groups(spec):
            check_pod(group["template"])


def test_kubernetes_refuses_a_mistake_in_a_pod(cluster_object: dict[str, Any]) -> None:
    head, gpu, tpu = (group["template"] for group in groups(copy.deepcopy(cluster_object["spec"])))
    head["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(ValidationError):
        check_pod(head)
    gpu["spec"]["terminationGracePeriodSeconds"] = "30"
    with pytest.raises(ValidationError):
        check_pod(gpu)
    tpu["spec"]["volumes"] = [{"name": "other", "emptyDir": {}}]
    with pytest.raises(AssertionError, match="no volume is called"):
        check_pod(tpu)


def test_the_disk_is_a_claim_that_exists(
    documents: dict[str, list[Any]], cluster_object: dict[str, Any], job_object: dict[str, Any]
) -> None:
    (claim,) = documents["kuberay/storage.yaml"]
    validate(claim, KUBERNETES, strict=True)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for spec in (cluster_object["spec"], job_object["spec"]["rayClusterSpec"]):
        for group in groups(spec):
            volumes = group["template"]["spec"]["volumes"]
            (name,) = (
                volume["persistentVolumeClaim"]["claimName"]
                for volume in volumes
                if "persistentVolumeClaim" in volume
            )
            assert name == claim["metadata"]["name"]


def test_ray_reads_the_groups_as_meant(cluster_object: dict[str, Any]) -> None:
    cluster_object["metadata"]["namespace"] = "default"
    config = _derive_autoscaling_config_from_ray_cr(cluster_object)
    kinds = config["available_node_types"]
    found = {
        name: {key: kind["resources"].get(key, 0) for key in ("CPU", "GPU", "TPU")}
        for name, kind in kinds.items()
    }
    assert found == {
        "headgroup": {"CPU": 0, "GPU": 0, "TPU": 0},
        "gpu": {"CPU": 3, "GPU": 1, "TPU": 0},
        "tpu": {"CPU": 200, "GPU": 0, "TPU": 8},
    }
    assert kinds["tpu"]["resources"]["TPU-v5litepod-8-head"] == 1
    assert (config["max_workers"], config["idle_timeout_minutes"]) == (20, 5)


def test_a_tpu_host_has_all_chips_of_its_slice(cluster_object: dict[str, Any]) -> None:
    (group,) = (g for g in cluster_object["spec"]["workerGroupSpecs"] if g["groupName"] == "tpu")
    pod = group["template"]["spec"]
    chips = int(pod["containers"][0]["resources"]["limits"]["google.com/tpu"])
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    assert chips * group["numOfHosts"] == math.prod(int(side) for side in topology.split("x"))


def test_the_job_runs_on_the_same_nodes(
    cluster_object: dict[str, Any], job_object: dict[str, Any]
) -> None:
    whole, part = cluster_object["spec"], job_object["spec"]["rayClusterSpec"]
    # The job's cluster is of one size: a search takes the workers that are there when it begins.
    del whole["enableInTreeAutoscaling"], whole["autoscalerOptions"]
    assert whole["headGroupSpec"]["template"]["spec"]["volumes"].pop()["name"] == "account"
    bounds = ("replicas", "minReplicas", "maxReplicas")
    assert len({part["workerGroupSpecs"][0][bound] for bound in bounds}) == 1
    for spec in (whole, part):
        spec["workerGroupSpecs"] = spec["workerGroupSpecs"][:1]
        for bound in bounds:
            del spec["workerGroupSpecs"][0][bound]
    assert whole == part


def test_the_job_cleans_up_and_can_be_tried_again(job_object: dict[str, Any]) -> None:
    spec = job_object["spec"]
    assert spec["shutdownAfterJobFinishes"]
    assert spec["backoffLimit"] > 0
    assert "hpsearch resume" in spec["entrypoint"]
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_SIGNAL"] == "SIGINT"


def test_a_worker_that_is_asked_to_end_has_time_to_leave(
    cluster_object: dict[str, Any], job_object: dict[str, Any]
) -> None:
    wait = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert hasattr(ray_constants, wait), "Ray tells its head no more when it is told to end"
    for spec in (cluster_object["spec"], job_object["spec"]["rayClusterSpec"]):
        for group in spec["workerGroupSpecs"]:
            pod = group["template"]["spec"]
            (container,) = pod["containers"]
            (seconds,) = (each["value"] for each in container["env"] if each["name"] == wait)
            assert 0 < float(seconds) < pod["terminationGracePeriodSeconds"]


def test_every_container_is_confined_and_watched(cluster_object: dict[str, Any]) -> None:
    for container in containers(cluster_object["spec"]):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        # Without a token, which a probe does not have.
        assert container["livenessProbe"]["httpGet"]["path"] in PUBLIC_EXACT_PATHS
    for group in groups(cluster_object["spec"]):
        assert group["template"]["spec"]["securityContext"]["runAsNonRoot"]


def test_a_token_is_asked_for(cluster_object: dict[str, Any]) -> None:
    assert cluster_object["spec"]["authOptions"] == {
        "mode": "token",
        "secretName": "hpsearch-token",
    }
