"""Who listens, and what a door says to somebody without the token."""

import http.client
from dataclasses import dataclass
from pathlib import Path

import grpc

LISTENING = "0A"
METHODS = (
    "JobInfoGcsService/GetAllJobInfo",  # of the head, as the three below
    "InternalKVGcsService/InternalKVKeys",
    "NodeInfoGcsService/GetAllNodeInfo",
    "ActorInfoGcsService/GetAllActorInfo",
    "NodeManagerService/GetNodeStats",  # of a raylet
    "NodeManagerService/GetSystemConfig",
    "ObjectManagerService/Push",
    "CoreWorkerService/NumPendingTasks",  # of a worker, and of the driver
    "CoreWorkerService/GetCoreWorkerStats",
    "ReporterService/HealthCheck",  # of the agent
    "LogService/ListLogs",
    "RayletDriver/Init",  # of Ray Client's server
    "RayletDriver/ClusterInfo",
)
PAGES = (
    ("GET", "/", b""),
    ("GET", "/metrics", b""),
    ("GET", "/api/version", b""),
    ("GET", "/api/jobs/", b""),
    ("GET", "/api/v0/nodes", b""),
    ("GET", "/logs/", b""),
    ("POST", "/api/jobs/", b'{"entrypoint": "touch %s"}'),
    ("POST", "/api/job_agent/jobs/", b'{"entrypoint": "touch %s"}'),
    ("POST", "/get_or_create_runtime_env", b""),
)


@dataclass(frozen=True)
class Door:
    """A listening TCP socket, and the process that has it."""

    pid: int
    process: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return self.host in ("127.0.0.1", "::1", "::ffff:127.0.0.1")

    @property
    def reached_at(self) -> str:
        """An address of this machine where it listens."""
        host = self.host.removeprefix("::ffff:")
        return "127.0.0.1" if host in ("0.0.0.0", "::", "::1") else host

    def ask(self, token: str | None = None) -> dict[str, str]:
        """What gRPC methods answer, by name; nothing if no gRPC is spoken here."""
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        answers: dict[str, str] = {}
        with grpc.insecure_channel(f"{self.reached_at}:{self.port}") as channel:
            for method in METHODS:
                call = channel.unary_unary(f"/ray.rpc.{method}")
                try:
                    call(b"", timeout=5, metadata=metadata)
                    answers[method] = "OK"
                except grpc.RpcError as error:
                    answers[method] = error.code().name  # pyright: ignore
                    if answers[method] == "UNAVAILABLE":
                        return {}
        return answers

    def get(self, written: Path, token: str | None = None) -> dict[str, int]:
        """Status of pages, by method and path; nothing if no HTTP is spoken here.

        Args:
            written: a file that the jobs make which are sent here.
        """
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        answers: dict[str, int] = {}
        for method, path, body in PAGES:
            line = http.client.HTTPConnection(self.reached_at, self.port, timeout=10)
            try:
                line.request(method, path, body.replace(b"%s", str(written).encode()), headers)
                answers[f"{method} {path}"] = line.getresponse().status
            except (OSError, http.client.HTTPException):
                return {}
            finally:
                line.close()
        return answers


def tree(root: int) -> list[int]:
    """A process and all that descend from it, zombies aside."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if fields[0] != "Z":
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def doors(root: int) -> list[Door]:
    """All that a process and its descendants listen at."""
    sockets = {**_listening("tcp"), **_listening("tcp6")}
    found = []
    for pid in tree(root):
        try:
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        for inode in {link[8:-1] for link in links if link.startswith("socket:[")} & {*sockets}:
            found.append(Door(pid, name(pid), *sockets[inode]))
    return found


def name(pid: int) -> str:
    """The command line of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return "ended"


def _listening(family: str) -> dict[str, tuple[str, int]]:
    """Addresses by inode."""
    found = {}
    for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTENING:
            host, port = fields[1].split(":")
            found[fields[9]] = (_readable(host), int(port, 16))
    return found


def _readable(host: str) -> str:
    """An address as the kernel prints it, in words of four bytes, least first."""
    words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
    raw = b"".join(words)
    if len(raw) == 4:
        return ".".join(map(str, raw))
    if raw[:12] == b"\0" * 10 + b"\xff\xff":
        return "::ffff:" + ".".join(map(str, raw[12:]))
    return {b"\0" * 16: "::", b"\0" * 15 + b"\1": "::1"}.get(raw, raw.hex())
