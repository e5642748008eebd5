"""What is said of a job before it is queued, and of one that failed."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.job_submission import JobStatus

from hpsearch.errors import UserError
from hpsearch.execution import job_client
from hpsearch.execution.job_checks import (
    check_arguments,
    check_capacity,
    check_data,
    check_versions,
)
from hpsearch.execution.job_client import JobClient, SearchJob, quote_command
from hpsearch.execution.job_status import failure_line, progress_line
from hpsearch.search.resources import Resources

from ..servers import answering, free_port

HEAD = "http://head:8265"
NODES = [{}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 4.0, "TPU": 4.0}]


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """A server that is not Ray's, as MLflow's: it knows no /api/version."""
    with answering(404) as address:
        yield address


def test_what_answers_and_is_no_head_is_reported(stranger: str) -> None:
    for address, words in (
        ("127.0.0.1:8265", "is not the address of a job server; give the dashboard's"),
        ("http://", "is not the address of a job server"),
        (f"http://{stranger}", "is not a Ray head .*by default port 8265"),
        (f"https://{stranger}", "does not answer in TLS.*http://"),
        (f"http://127.0.0.1:{free_port()}", "no Ray head answers at .*ray start --head"),
    ):
        with pytest.raises(UserError, match=words):
            JobClient(address).jobs()


@pytest.mark.parametrize(
    "words",
    [
        ["--tracking-uri", "http://me:secret@mlflow:5000"],
        ["--study", "postgresql://me:secret@host/studies"],
        ["--study", "postgresql+psycopg://host/studies?user=me&password=secret"],
        ["--tracking-uri=http://me:secret@mlflow:5000"],
        ["--study", "mysql://:secret@host/studies"],
    ],
)
def test_no_password_reaches_the_cluster(words: list[str]) -> None:
    with pytest.raises(UserError, match="holds a password") as refused:
        JobClient(HEAD).submit("mine", ["resume", "mine", *words], home="~/hpsearch")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("state", ["stopped", "completed"])
def test_a_new_search_does_not_take_the_name_of_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    job = SearchJob(
        id="mine", search="mine", home="~/hpsearch", state=state, started_at=None, ended_at=None,
        message="",
    )  # fmt: skip
    monkeypatch.setattr(JobClient, "jobs", lambda self: [job])
    with pytest.raises(UserError, match="another --name") as caught:
        JobClient(HEAD).submit("mine", ["search"], home="~/hpsearch", space=tmp_path / "space.py")
    assert caught.value.code == "search-exists"
    resumes = "hpsearch resume mine" in str(caught.value)
    assert resumes == (state == "stopped"), "which would refuse a search that has completed"


def test_what_holds_no_password_passes() -> None:
    check_arguments(
        [
            "search", "mine.py", "--tracking-uri", "http://mlflow:5000", "--study",
            "postgresql://$PGUSER:$PGPASSWORD@host/studies", "--data", "/mnt/a:b@c.arrow",
            "--model", "a?b=c", "--study", "postgresql://me:${SECRET}@host:5432/studies",
        ]
    )  # fmt: skip


def test_versions_must_agree_but_for_the_last_number() -> None:
    major, minor, _ = ray.__version__.split(".", 2)
    check_versions(HEAD, head_ray=f"{major}.{minor}.99", head_python=None)
    with pytest.raises(UserError, match=r"runs Ray 2\.9\.3, but this is Ray 2\.60.*same on both"):
        check_versions(HEAD, head_ray="2.9.3", head_python=None)
    with pytest.raises(UserError, match=r"runs Python 3\.9, but this is Python 3\.\d+;"):
        check_versions(HEAD, head_ray=ray.__version__, head_python="3.9")


def test_a_store_that_the_head_cannot_see_is_refused_before(tmp_path: Path) -> None:
    for seen in ("mini", "tiny", "/mnt/hpsearch/patches.arrow", "~/patches.arrow"):
        check_data(seen)
    with pytest.raises(UserError, match="relative to this folder, which the cluster does not see"):
        check_data("patches.arrow")


def refused_capacity(asked: Resources, at_once: int | None = None) -> str:
    with pytest.raises(UserError) as refused:
        check_capacity(NODES, asked, at_once)
    return str(refused.value)


def test_capacity_that_no_node_has_is_refused_saying_what_there_is() -> None:
    check_capacity(NODES, Resources(), None)
    check_capacity(NODES, Resources(gpus=1, tpus=4), 2)
    output = refused_capacity(Resources(gpus=2))
    assert "requests 1 CPU and 2 GPUs" in output
    assert "there are 12 CPUs and 1 GPU and 4 TPUs on 3 nodes" in output
    assert "--wait-for-nodes" in output
    assert "9 CPUs" in refused_capacity(Resources(cpus=9, gpus=0, tpus=0))
    assert "3 trials at once do not fit" in refused_capacity(Resources(gpus=1), 3)
    assert "requests 1 CPU and 8 TPUs" in refused_capacity(Resources(device="xla", tpus=8))


@pytest.mark.parametrize(
    ("text", "message", "words"),
    [
        (
            "error: /x/mine.py does not run: ModuleNotFoundError: No module named 'faiss'\n", "",
            "lacks the Python module 'faiss'",
        ),
        ("  raise\nModuleNotFoundError: No module named 'typer'\n", "", "lacks the Python module"),
        ("error: there is no patch store '/a/b.arrow'; give", "", "head sees no patch store at /a"),
        ("noise\nerror: a trial asks for 2 GPUs\n", "exit code 2", "a trial asks for 2 GPUs"),
        ("1 of 9 trials\n", "failed with exit code -9", "out of memory"),
        ("", "Runtime environment setup failed:\nno disk", "could not unpack what was sent: no"),
        ("", "Job supervisor actor died", "the node of the driver was lost"),
        ("  match x:\nSyntaxError: invalid syntax\n", "exit code 1", "Python is too old"),
        ("Traceback\nKeyError: 'x'\n", "exit code 1", "KeyError: 'x'"),
    ],
)  # fmt: skip
def test_why_a_job_failed_is_one_sentence(text: str, message: str, words: str) -> None:
    output = failure_line(text, message)
    assert words in output
    assert "\n" not in output


def test_a_store_that_lies_on_this_machine_alone_is_detected(tmp_path: Path) -> None:
    store = tmp_path / "own.arrow"
    store.touch()
    text = f"there is no patch store '{store}'"
    assert "(it is on this machine)" in failure_line(text, "")
    store.unlink()
    assert "(it is on this machine)" not in failure_line(text, "")


def test_how_far_a_search_is_is_its_latest_line() -> None:
    rays = "2026-11-21 INFO job_manager.py:581 -- Runtime env is setting up.\n"
    rays += "Running entrypoint for job mine: python -m hpsearch search mine.py\n"
    rays += "\x1b[33m(raylet)\x1b[0m A worker died or was killed while executing a task ...\n"
    assert progress_line(rays) == "starting"
    assert progress_line(f"{rays}waiting for nodes: a trial asks for 1 GPU\n").startswith("waiting")
    lines = f"{rays}a  0 of 9 trials · x\nb  1 of 9 trials · y\nc started\n"
    assert progress_line(lines) == "1 of 9 trials · y"
    ended = (
        f"{lines}\nsearch x: 9 trials of at most 5 patches\n9 trials: 4 completed, 5 pruned\nNext"
    )
    assert progress_line(ended) == "9 trials: 4 completed, 5 pruned"


def test_a_home_folder_is_the_heads() -> None:
    assert (
        quote_command(["search", "a b.py", "--home", "~/h s"]) == "search 'a b.py' --home ~/'h s'"
    )


class Head:
    """Job server that runs each job at once."""

    def __init__(self, logs: str, *, code: int = 0, hangs: bool = False) -> None:
        self.logs, self.code, self.hangs = logs, code, hangs
        self.jobs: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []

    def submit_job(self, **job: Any) -> str:
        self.jobs["raysubmit_1"] = job
        return "raysubmit_1"

    def get_job_status(self, job: str) -> JobStatus:
        if self.hangs:
            return JobStatus.RUNNING
        return JobStatus.FAILED if self.code else JobStatus.SUCCEEDED

    def get_job_logs(self, job: str) -> str:
        return self.logs

    def get_job_info(self, job: str) -> SimpleNamespace:
        return SimpleNamespace(message=f"exit code {self.code}")

    def delete_job(self, job: str) -> None:
        self.calls.append(f"deleted {job}")

    def stop_job(self, job: str) -> None:
        self.calls.append(f"stopped {job}")


def head_with(head: Head) -> JobClient:
    client = JobClient(HEAD)
    vars(client)["client"] = head
    return client


def test_a_command_runs_on_the_head_and_leaves_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    ray_line = "Running entrypoint for job raysubmit_1: python -m hpsearch show mine\n"
    head = Head(f"{ray_line}mine: completed\n\n  space  x\x1b[2J.py\n")
    printed = head_with(head).run(["show", "mine"], home="~/hpsearch")
    assert printed == "mine: completed\n\n  space  x [2J.py"
    job = head.jobs["raysubmit_1"]
    assert job["entrypoint"] == "python -m hpsearch show mine --home ~/hpsearch"
    assert job["runtime_env"]["env_vars"]["COLUMNS"] == "77"
    assert "metadata" not in job, "it is no attempt at the search"
    assert head.calls == ["deleted raysubmit_1"]


def test_a_command_that_fails_or_hangs_on_the_head_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = Head("error: there is no search 'mine' in /x; there are: none yet\n", code=2)
    with pytest.raises(UserError, match=r"^http://head:8265: there is no search 'mine' in /x"):
        head_with(failed).run(["show", "mine"], home="/x")
    assert failed.calls == ["deleted raysubmit_1"]
    monkeypatch.setattr(job_client, "COMMAND_TIMEOUT_S", -1.0)
    hanging = Head("", hangs=True)
    with pytest.raises(UserError) as caught:
        head_with(hanging).run(["show", "mine"], home="/x")
    assert caught.value.code == "head-busy"
    assert hanging.calls == ["stopped raysubmit_1"]
