"""Parts of the night: known vulnerabilities, versions for other Pythons, searches that are hurt.

Each part ends in one line, ``NAME: passed``, ``failed`` or ``not run``, with the reason. The exit
code is 1 if one failed, whatever was not run.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from typing import Literal, NamedTuple

from hash_constraints import HASHED, INDEX, PINS, ROOT, fetch_page, read_pins
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sbom import main as write_bill

AUDITOR = "pip-audit==2.10.0"
INSTALLER = "uv==0.13.9"
PYTHONS = ("3.11", "3.12", "3.13")


class Outcome(NamedTuple):
    """How a part ended, and why."""

    state: Literal["passed", "failed", "not run"]
    reason: str


def read_audit(printed: str, complaint: str) -> Outcome:
    """The outcome of pip-audit from its JSON, and from what it complained of.

    A package that the service does not know is no package without vulnerabilities: if it knows
    fewer than all, the check was not run.
    """
    try:
        packages = json.loads(printed)["dependencies"]
    except (ValueError, KeyError):
        return Outcome(
            "not run",
            complaint.strip().splitlines()[-1]
            if complaint.strip()
            else "pip-audit printed nothing",
        )
    found = [
        f"{each['name']} {each['version']} {flaw['id']}"
        for each in packages
        for flaw in each.get("vulns", [])
    ]
    if found:
        return Outcome("failed", "; ".join(found))
    unknown = [each["name"] for each in packages if "skip_reason" in each]
    if unknown or not packages:
        return Outcome(
            "not run", f"the service has no answer for {len(unknown)} of {len(packages)} packages"
        )
    return Outcome("passed", f"no known vulnerability in {len(packages)} packages")


def check_advisories() -> Outcome:
    """Known vulnerabilities of all pinned versions, by PyPI's advisories."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        installed = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", AUDITOR], capture_output=True, text=True
        )
        if installed.returncode:
            return Outcome("not run", f"{AUDITOR} cannot be installed")
        command = ["-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json"]
        audit = subprocess.run(
            [python, *command, "--progress-spinner", "off", "--requirement", HASHED],
            capture_output=True, text=True,
        )  # fmt: skip
    return read_audit(audit.stdout, audit.stderr)


def list_requirements() -> list[str]:
    """What all our environments ask for, without torch: that would bring gigabytes of CUDA."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["onnx"], *extras["dev"], *extras["postgresql"]]
    wanted += extras["docs"]
    for name in ("launcher.txt", "mlflow/server.txt"):
        lines = (ROOT / "cluster" / name).read_text().splitlines()
        wanted += [line for line in lines if line and not line.startswith("#")]
    ours = {"torch", canonicalize_name(project["name"])}
    return [each for each in wanted if canonicalize_name(Requirement(each).name) not in ours]


def find_unpinned(report: dict[str, list[dict]], pins: dict[str, str]) -> list[str]:
    """Packages of pip's report that constraints.txt does not name."""
    installed = (each["metadata"] for each in report["install"])
    return [
        f"{each['name']}=={each['version']}"
        for each in installed
        if canonicalize_name(each["name"]) not in pins
    ]


def resolve(python: str) -> Outcome:
    """Whether the pinned versions fit together, and are all, on another Python."""
    try:
        fetch_page(INDEX, "pip")
    except OSError as error:
        return Outcome("not run", f"no answer from {INDEX}: {error}")
    command = ["install", "--dry-run", "--quiet", "--ignore-installed", "--report", "-"]
    command += ["--target", str(ROOT / "build" / "none")]  # older pips ask for one; nothing is made
    only = ["--only-binary", ":all:", "--python-version", python, "--constraint", str(PINS)]
    pip = subprocess.run(
        [sys.executable, "-m", "pip", *command, *only, *list_requirements()],
        capture_output=True, text=True,
    )  # fmt: skip
    if pip.returncode:
        errors = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")]
        return Outcome("failed", errors[-1] if errors else pip.stderr.strip()[-300:])
    report = json.loads(pip.stdout)
    unpinned = find_unpinned(report, read_pins(PINS.read_text()))
    if unpinned:
        return Outcome("failed", f"not in {PINS.name}: {', '.join(unpinned)}")
    return Outcome("passed", f"{len(report['install'])} packages, all pinned; torch left out")


def write_sbom() -> Outcome:
    """The software bill of materials."""
    write_bill(ROOT / "build" / "sbom.json")
    return Outcome("passed", "build/sbom.json")


def build_docs() -> Outcome:
    """The site of ``docs/``; a warning is an error."""
    done = subprocess.run(["make", "docs"], cwd=ROOT)
    return Outcome(
        "failed" if done.returncode else "passed", f"make docs ended with {done.returncode}"
    )


def run_chaos() -> Outcome:
    """Searches that are hurt, for as long as they take."""
    done = subprocess.run(["make", "chaos"], cwd=ROOT)
    return Outcome(
        "failed" if done.returncode else "passed", f"make chaos ended with {done.returncode}"
    )


def run_suite_with(resolution: str) -> Outcome:
    """Run the suite with other versions than the pinned ones.

    Args:
        resolution: ``lowest-direct`` for the lowest versions that pyproject.toml allows,
            ``highest`` for the newest ones. torch is pinned in both, since another build would
            bring CUDA, and so are the tools that run the tests.
    """
    pins = read_pins(PINS.read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dev = project["optional-dependencies"]["dev"]
    tools = {canonicalize_name(Requirement(each).name) for each in dev} - {"hpsearch"}
    pinned = [f"{name}=={pins[name]}" for name in sorted({"torch"} | tools)]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        for command in (
            [python, "-m", "pip", "install", "--quiet", INSTALLER],
            [f"{folder}/bin/uv", "pip", "install", "--quiet", "--python", python, "--resolution",
             resolution, "--editable", f"{ROOT}[onnx]", *pinned],
        ):  # fmt: skip
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                return Outcome("not run", f"no environment: {done.stderr.strip()[-300:]}")
        suite = subprocess.run(
            [python, "-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
    last = suite.stdout.strip().splitlines()[-1:] or ["the suite printed nothing"]
    return Outcome("failed" if suite.returncode else "passed", last[0])


PARTS: dict[str, Callable[[], Outcome]] = {
    "advisories": check_advisories,
    **{f"resolve-{python}": (lambda python=python: resolve(python)) for python in PYTHONS},
    "sbom": write_sbom,
    "docs": build_docs,
    "lowest": lambda: run_suite_with("lowest-direct"),
    "newest": lambda: run_suite_with("highest"),
    "chaos": run_chaos,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(
            f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr
        )
        return 2
    states = []
    for name in names or PARTS:
        outcome = PARTS[name]()
        states.append(outcome.state)
        print(f"{name}: {outcome.state} ({outcome.reason})", flush=True)
    return int("failed" in states)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
