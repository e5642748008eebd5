"""Write the software bill of materials: every pinned version and its hashes, as CycloneDX 1.6 JSON.

From constraints.hashed.txt alone, without a network, and the same bytes each time::

    python .ci/sbom.py build/sbom.json
"""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from hash_constraints import HASHED, ROOT, read_hashes, read_pins


def make_component(name: str, version: str, digests: list[str]) -> dict[str, Any]:
    """A package of PyPI; the hashes are those of its wheels, each a file of its own."""
    address = f"pkg:pypi/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": address,
        "name": name,
        "version": version,
        "purl": address,
        "externalReferences": [
            {
                "type": "distribution",
                "url": f"https://pypi.org/project/{name}/{version}/",
                "hashes": [{"alg": "SHA-256", "content": digest} for digest in digests],
            }
        ],
    }


def make_bill(hashed: str, project: dict[str, Any]) -> dict[str, Any]:
    """The bill of materials of a project, from the text of its hashed constraints."""
    pins, hashes = read_pins(hashed), read_hashes(hashed)
    name, version = project["name"], project["version"]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": f"pkg:pypi/{name}@{version}",
                "name": name,
                "version": version,
                "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": [make_component(each, pins[each], hashes[each]) for each in sorted(pins)],
    }


def main(target: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bill = make_bill(HASHED.read_text(), project)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill, indent=2) + "\n")
    print(f"{target}: {len(bill['components'])} packages")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
