"""A machine of a cluster behind a link that can be cut: a network namespace and a virtual cable."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

HOST, FAR = "10.213.77.1", "10.213.77.2"
"""The machine's two ends; the addresses of the nodes lie on loopback, which a cut leaves alone."""
HEAD, NODE = "10.213.78.1", "10.213.78.2"


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)


def can_cut() -> bool:
    """Whether this user may make namespaces and drop what goes through a link."""
    if not (shutil.which("ip") and shutil.which("tc")):
        return False
    made = subprocess.run(["ip", "netns", "add", "hpsearch-try"], check=False, capture_output=True)
    if made.returncode == 0:
        _run("ip netns del hpsearch-try")
    return made.returncode == 0


@dataclass(frozen=True)
class Link:
    """Between this machine, with the head, and a namespace, with a node."""

    namespace: str = "hpsearch-far"

    def cut(self) -> None:
        """Whatever is sent is lost, both ways, and nobody is told."""
        for end, where in (("hpnear", ""), ("hpfar", f"ip netns exec {self.namespace} ")):
            # a bucket that is smaller than any packet
            _run(f"{where}tc qdisc add dev {end} root tbf rate 8bit burst 1 latency 1ms")

    def restore(self) -> None:
        for end, where in (("hpnear", ""), ("hpfar", f"ip netns exec {self.namespace} ")):
            _run(f"{where}tc qdisc del dev {end} root")


@contextmanager
def link() -> Iterator[Link]:
    made = Link()
    far = f"ip netns exec {made.namespace} ip"
    for command in (
        f"ip netns add {made.namespace}",
        f"ip link add hpnear type veth peer name hpfar netns {made.namespace}",
        f"ip addr add {HOST}/30 dev hpnear",
        "ip link set hpnear up",
        f"ip addr add {HEAD}/32 dev lo",
        f"{far} addr add {FAR}/30 dev hpfar",
        f"{far} link set hpfar up",
        f"{far} link set lo up",
        f"{far} addr add {NODE}/32 dev lo",
        f"{far} route add {HEAD}/32 via {HOST} src {NODE}",
        f"ip route add {NODE}/32 via {FAR} src {HEAD}",
    ):
        _run(command)
    try:
        yield made
    finally:
        _run(f"ip addr del {HEAD}/32 dev lo")
        _run("ip link del hpnear")
        _run(f"ip netns del {made.namespace}")
