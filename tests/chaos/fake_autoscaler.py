"""Nodes for Ray's autoscaler: on this machine, but with a folder each, as on machines of their own.

Ray's own provider for tests lets all nodes share one, and each unpacks a job's files anew there,
under the feet of those that run.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

NODE_ID = "RAY_OVERRIDE_NODE_ID_FOR_TESTING"


class ComeAndGo(FakeMultiNodeProvider):
    """Ray's, but for how a node begins and ends."""

    def _create_node_with_resources_and_labels(
        self, node_config: Any, tags: dict, count: int, resources: dict, labels: dict
    ) -> None:
        with self.lock:
            name = self._next_hex_node_id()
            folder = tempfile.mkdtemp(prefix="hp", dir="/tmp")
            node = subprocess.Popen(
                [
                    Path(sys.executable).with_name("ray"), "start", "--block",
                    f"--address={self._gcs_address}", f"--num-cpus={resources['CPU']}",
                    f"--temp-dir={folder}", "--object-store-memory=100000000",
                    "--disable-usage-stats",
                ],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={**os.environ, NODE_ID: name},
            )  # fmt: skip
            self._nodes[name] = {"tags": tags, "node": node, "folder": folder}

    def _terminate_node(self, node: dict[str, Any]) -> None:
        node["node"].send_signal(signal.SIGTERM)
        node["node"].wait(timeout=30)
        shutil.rmtree(node["folder"], ignore_errors=True)
