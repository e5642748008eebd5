"""The tracking server in compose: the published schema, its variables, and what is reachable."""

import copy
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<rule>:-|:\?)(?P<rest>[^}]*))?\}")
SCHEMA = json.loads(
    (files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text()
)


@pytest.fixture
def text(cluster: Path) -> str:
    return (cluster / "mlflow" / "compose.yaml").read_text()


@pytest.fixture
def example(cluster: Path) -> dict[str, str]:
    """What .env.example sets; what it leaves to the user is set to letters."""
    lines = (cluster / "mlflow" / ".env.example").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {name: value or "f00d" for name, value in pairs}


@pytest.fixture
def stack(text: str, example: dict[str, str]) -> dict[str, Any]:
    return yaml.safe_load(interpolated(text, example))


def interpolated(text: str, values: Mapping[str, str]) -> str:
    """As compose does it: ``:-`` gives a default, ``:?`` a reason to refuse.

    Raises:
        KeyError: if a variable is empty that has no default.
    """

    def value(found: re.Match[str]) -> str:
        given = values.get(found["name"], "")
        if given:
            return given
        if found["rule"] == ":-":
            return found["rest"]
        raise KeyError(f"{found['name']}: {found['rest'] or 'not set'}")

    return VARIABLE.sub(value, text)


def mistakes(stack: dict[str, Any]) -> list[str]:
    """What the schema refuses, and names that nobody defines."""
    found = [error.message for error in Draft202012Validator(SCHEMA).iter_errors(stack)]
    services = stack["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if other not in services:
                found.append(f"{name} waits for {other}, which is not there")
            elif how["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                found.append(f"{name} waits for {other}, which has no health check")
        named = {volume.split(":")[0] for volume in service.get("volumes", [])}
        if named - stack["volumes"].keys():
            found.append(f"{name} mounts a volume that is not there")
    return found


def test_the_schema_accepts_it(stack: dict[str, Any]) -> None:
    assert mistakes(stack) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("service",), {}),
        (("services", "mlflow", "image"), 7),
        (("services", "mlflow", "environments"), {}),
        (("services", "mlflow", "depends_on", "postgres", "condition"), 1),
        (("services", "postgres", "healthcheck"), None),
        (("services", "storage", "volumes"), ["elsewhere:/data"]),
    ],
)
def test_a_mistake_is_refused(stack: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    broken = copy.deepcopy(stack)
    place = broken
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    assert mistakes(broken)


def test_it_does_not_start_without_passwords(text: str, example: dict[str, str]) -> None:
    for name in ("POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"):
        with pytest.raises(KeyError, match=name):
            interpolated(text, {**example, name: ""})


def test_the_example_names_every_variable(text: str, example: dict[str, str]) -> None:
    used = {found["name"] for found in VARIABLE.finditer(text)}
    assert used == example.keys()
    assert "$" not in VARIABLE.sub("", text)


def test_passwords_come_from_the_environment_alone(text: str) -> None:
    stack = yaml.safe_load(text)
    for service in stack["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|KEY", name):
                assert VARIABLE.fullmatch(value), name


def test_only_mlflow_is_reachable_and_only_from_here(text: str, example: dict[str, str]) -> None:
    defaults = {name: value for name, value in example.items() if not name.startswith("MLFLOW_")}
    services = yaml.safe_load(interpolated(text, defaults))["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"mlflow": ["127.0.0.1:5000:5000"]}


def test_runs_and_artifacts_outlive_the_containers(stack: dict[str, Any]) -> None:
    mounted = [v for service in stack["services"].values() for v in service.get("volumes", [])]
    assert sorted(mounted) == ["artifacts:/data", "runs:/var/lib/postgresql/data"]


def test_passwords_are_never_committed(cluster: Path) -> None:
    assert ".env" in (cluster / ".gitignore").read_text().split()
