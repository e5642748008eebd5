"""What is written to sbatch, and what is read back; a real Slurm stands in tests/chaos."""

import base64
import io
import re
import shlex
import socket
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hpsearch.cli import app
from hpsearch.errors import UserError
from hpsearch.execution.slurm import JOB_FILE, LOG_FILE, SlurmClient
from hpsearch.execution.slurm_script import SlurmOptions, batch_script

EVIL = "a'b\"; touch /tmp/evil; $(touch evil) `touch evil` #"
NO_CLUSTER = {"HPSEARCH_ADDRESS": None, "RAY_API_SERVER_ADDRESS": None}
SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20),
                       optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), patches=4_800)

SEARCH = Search(suggest=suggest, budget=4_800, report_every=600, trials=2,
                baseline=TrialConfig(descriptor=L2Net(width=0.125), patches=1_200))
"""


def write(tmp_path: Path, *arguments: str, home: str = "/mnt/hp", **options: Any) -> str:
    space = tmp_path / "space.py"
    space.write_text("SEARCH = 1\n")
    chosen = SlurmOptions(**options)
    return batch_script(
        "mine", ["space.py", *arguments], options=chosen, home=home, files={"space.py": space}
    )


def test_options_become_directives_and_the_space_travels(tmp_path: Path) -> None:
    script = write(
        tmp_path, account="lab", partition="gpu,long", qos="high", time="2-00:00:00", nodes=4,
        constraint="[rack1|rack2]&a100", cpus=8, mem="32G", gres="gpu:a100:4",
    )  # fmt: skip
    directives = [line.split(" ", 1)[1] for line in script.splitlines() if "#SBATCH" in line[:7]]
    assert {
        "--account=lab", "--partition=gpu,long", "--qos=high", "--time=2-00:00:00", "--nodes=4",
        "--constraint=[rack1|rack2]&a100", "--cpus-per-task=8", "--mem=32G", "--gres=gpu:a100:4",
        "--signal=B:USR1@120", "--requeue", "--no-kill",
    } < set(directives)  # fmt: skip
    (line,) = [x for x in script.splitlines() if x.startswith("space_archive=")]
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(line.partition("=")[2]))) as archive:
        member = archive.extractfile("space.py")
        assert member is not None
        assert member.read() == b"SEARCH = 1\n"


def test_no_value_reaches_a_shell(tmp_path: Path) -> None:
    script = write(
        tmp_path, "--model", EVIL, home=f"~/{EVIL}", env=[f"X={EVIL}"], image=f"/{EVIL}.sif",
        modules=["cuda/12.4"],
    )  # fmt: skip
    settings = script[: script.index("# A search as one Slurm job")]
    show = 'printf "%s\\n" "$HPSEARCH_HOME" "$X" "$HPSEARCH_IMAGE" "$@"'
    done = subprocess.run(
        ["bash", "-c", f"module() {{ :; }}\n{settings}\n{show}"], cwd=tmp_path, check=True,
        capture_output=True, text=True, env={"HOME": "/h", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        f"/h/{EVIL}", EVIL, f"/{EVIL}.sif", "mine", "space.py", "--model", EVIL,
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["space.py"]


@pytest.mark.parametrize("name", ["account", "partition", "qos", "time", "mem", "gres"])
@pytest.mark.parametrize("value", ["a\n#SBATCH --uid=0", "a b", "$(id)", "-x", "", "a;b", "a#b"])
def test_a_value_that_is_no_option_of_slurm_is_refused(name: str, value: str) -> None:
    with pytest.raises(UserError, match=f"--{name} .*cannot have") as refused:
        SlurmOptions(**{name: value})  # pyright: ignore[reportArgumentType]
    assert refused.value.code == "bad-slurm-option"


@pytest.mark.parametrize(
    "options",
    [
        {"constraint": "a100\nb"}, {"constraint": "a100;b"}, {"modules": ["-x"]},
        {"modules": ["a b"]}, {"env": ["X"]}, {"env": ["1X=2"]}, {"env": ["X=1\nY=2"]},
        {"env": ["URI=postgresql://me:secret@host/x"]}, {"env": ["AWS_SECRET_ACCESS_KEY=secret"]},
        {"env": ["AWS_SESSION_TOKEN=secret"]},
    ],
)  # fmt: skip
def test_other_values_are_refused_and_no_password_is_kept(options: dict) -> None:
    with pytest.raises(UserError) as refused:
        SlurmOptions(**options)
    assert "secret" not in str(refused.value)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins of Slurm's commands, which answer what a file holds and keep their words."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel"):
        (folder / name).write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/{name}.words\n'
            f"cat {folder}/{name}.answer && exit 0\nexit 1\n"
        )
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_a_submitted_search_is_followed_by_its_job(slurm: Path, tmp_path: Path) -> None:
    client = SlurmClient(tmp_path / "home")
    with pytest.raises(UserError, match="no search 'mine' was submitted"):
        client.job("mine")
    (slurm / "sbatch.answer").write_text("17;cluster\n")
    assert client.submit("mine", "#!/bin/sh\n") == "17"
    folder = client.folder("mine")
    assert f"--output={folder / LOG_FILE}" in (slurm / "sbatch.words").read_text().splitlines()
    assert (folder / "search.sbatch").stat().st_mode & 0o077 == 0

    (slurm / "squeue.answer").write_text("PENDING|BeginTime\n")
    job = client.job("mine")
    assert (job.state, client.progress(job)) == ("queued", "Slurm gives as reason: BeginTime")
    with pytest.raises(UserError, match="has Slurm job 17, which is queued"):
        client.submit("mine", "#!/bin/sh\n")
    (folder / LOG_FILE).write_text("2 of 6 trials · best last val/mAP 0.8\n")
    (slurm / "squeue.answer").write_text("RUNNING|None\n")
    assert client.progress(client.job("mine")).startswith("2 of 6 trials")
    for code, state in ((0, "completed"), (130, "stopped"), (2, "failed")):
        with (folder / LOG_FILE).open("a") as log:
            log.write(f"error: why\nhpsearch ended with code {code}\n")
        for slurms in ("COMPLETED", "OUT_OF_MEMORY"):  # the latter if the kernel killed any process
            (slurm / "squeue.answer").write_text(f"{slurms}|None\n")
            assert client.job("mine").state == state
    (slurm / "squeue.answer").unlink()  # Slurm has forgotten it
    assert [(job.id, job.state) for job in client.jobs()] == [("17", "failed")]
    assert client.progress(client.job("mine")) == "why"
    assert (folder / JOB_FILE).read_text() == "17"


def test_a_stopped_search_resumes_by_its_own_job(slurm: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    resume = ["resume", "mine", "--slurm", "--home", str(home)]
    refused = CliRunner(env=NO_CLUSTER).invoke(app, resume)
    assert isinstance(refused.exception, UserError)
    assert refused.exception.code == "no-such-search"

    (slurm / "sbatch.answer").write_text("17\n")
    (slurm / "squeue.answer").write_text("CANCELLED|None\n")
    script = write(tmp_path, "--trials", "9", account="lab")
    SlurmClient(home).submit("mine", script)
    (slurm / "sbatch.answer").write_text("18\n")
    with pytest.raises(UserError, match="has stopped in Slurm job 17; resume with `hpsearch res"):
        SlurmClient(home).submit("mine", script)
    done = CliRunner(env=NO_CLUSTER).invoke(app, [*resume, "--max-patches", "5000"])
    assert done.exit_code == 0, done.output
    assert "submitted search mine to Slurm as job 18" in done.output
    submitted = (home / "slurm" / "mine" / "search.sbatch").read_text()
    options = "resume_options=(--max-patches 5000)"
    assert submitted == script.replace("resume_options=()", options)

    for words in (["--on-space-change", EVIL], []):
        SlurmClient(home).resume("mine", words)
        submitted = (home / "slurm" / "mine" / "search.sbatch").read_text()
        (line_of_options,) = [x for x in submitted.splitlines() if x.startswith("resume_options=")]
        show = 'set -u; printf "%s\\n" ${resume_options[@]+"${resume_options[@]}"}'
        printed = subprocess.run(
            ["bash", "-c", f"{line_of_options}\n{show}"], capture_output=True, text=True, check=True
        )
        assert printed.stdout.split("\n") == ([*words, ""] if words else ["", ""])


def test_what_slurm_refuses_is_one_sentence(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid account' >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"refuses sbatch \(sbatch: error: invalid account\)"):
        SlurmClient(tmp_path).submit("mine", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no sbatch on this machine"):
        SlurmClient(tmp_path).submit("mine", "#!/bin/sh\n")


@pytest.mark.parametrize("name", ["search.sbatch", "heterogeneous.sbatch"])
def test_the_files_for_hand_hold_the_same_body(cluster: Path, name: str) -> None:
    body = (cluster.parent / "hpsearch" / "execution" / "slurm_job.sh").read_text()
    script = (cluster / "slurm" / name).read_text()
    assert script.endswith(body), "write it again: cluster/slurm/write.sh"
    for path in ("search.sbatch", "heterogeneous.sbatch", "workers.sbatch"):
        subprocess.run(["bash", "-n", str(cluster / "slurm" / path)], check=True)


def test_what_runs_in_the_background_gets_the_signals_itself(cluster: Path) -> None:
    for path in ("hpsearch/execution/slurm_job.sh", "cluster/slurm/workers.sbatch"):
        body = (cluster.parent / path).read_text()
        start = body.index("exec_in_image() {")
        function = body[start : body.index("\n}\n", start) + 3]
        script = f"{function}exec_in_image sh -c 'echo $$' & wait; echo $!"
        done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
        its_own, named = done.stdout.split()
        assert its_own == named
        assert re.search(
            r"^ *exec_in_image (hpsearch search|python -c \S+ ray start) ", body, re.MULTILINE
        )


def test_submit_prints_the_job_that_it_would_submit(tmp_path: Path) -> None:
    space = tmp_path / "space.py"
    space.write_text(SPACE)
    words = ["submit", str(space), "--slurm", "--script", "--data", "tiny", "--trials", "3"]
    more = ["--account", "lab", "--time", "12:00:00", "--module", "cuda/12", "--home", "/mnt/hp"]
    more += ["--image", "own.sif"]
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert {
        "#SBATCH --account=lab", "#SBATCH --time=12:00:00", "module load cuda/12",
        "export HPSEARCH_HOME=/mnt/hp", f"export HPSEARCH_IMAGE={Path('own.sif').absolute()}",
        "set -- space space.py --data tiny --trials 3",
    } < set(lines)  # fmt: skip
    refused = CliRunner().invoke(app, [*words, "--qos", "a b"])
    assert isinstance(refused.exception, UserError)
    nowhere = CliRunner().invoke(app, ["submit", str(space), "--data", "tiny"], env=NO_CLUSTER)
    assert isinstance(nowhere.exception, UserError)
    assert nowhere.exception.code == "no-cluster"


REMOTE = "s3://lab/runs"


def test_a_home_in_an_object_store_needs_no_folder_but_that_of_the_job(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()
    monkeypatch.setattr("hpsearch.cli.submit._check_store", asked.append)
    monkeypatch.setenv("HPSEARCH_CACHE", str(tmp_path / "cache"))
    runner = CliRunner(env={**NO_CLUSTER, "HPSEARCH_HOME": REMOTE})
    (tmp_path / "space.py").write_text(SPACE)
    submit = ["submit", str(tmp_path / "space.py"), "--slurm", "--name", "mine", "--data", "tiny"]
    shown = runner.invoke(app, [*submit, "--script"])
    assert shown.exit_code == 0, shown.output
    assert f"export HPSEARCH_HOME={REMOTE}" in shown.output.splitlines()
    assert not (tmp_path / "cache").exists()

    client = SlurmClient(REMOTE)
    (slurm / "sbatch.answer").write_text("17\n")
    (slurm / "squeue.answer").write_text("COMPLETED|None\n")
    client.submit("mine", shown.output)
    (folder,) = (tmp_path / "cache" / "slurm").iterdir()
    assert client.folder("mine") == folder / "mine"
    job = client.job("mine")
    assert (job.state, job.home) == ("completed", REMOTE), "by Slurm alone: its log is elsewhere"
    assert f"hpsearch status mine --home {REMOTE}" in client.progress(job)
    status = runner.invoke(app, ["status", "mine", "--slurm"])
    assert status.output.startswith("mine: completed"), status.output
    assert asked == []
    taken = runner.invoke(app, submit)
    assert asked == [REMOTE], "before a job waits for its turn"
    assert isinstance(taken.exception, UserError)
    assert taken.exception.code == "search-exists"
    again = runner.invoke(app, ["resume", "mine", "--slurm"])
    assert f"hpsearch logs mine -f --slurm --home {REMOTE}" in " ".join(again.output.split())
    nowhere = runner.invoke(app, ["stop", "near", "--slurm"])
    assert isinstance(nowhere.exception, UserError)
    assert f"from {REMOTE};" in str(nowhere.exception)


@pytest.mark.parametrize(
    ("answer", "words"), [(0, "resume"), (3, "search"), (1, "hpsearch ended with code 2")]
)
def test_a_job_asks_the_object_store_whether_its_search_has_begun(
    cluster: Path, tmp_path: Path, answer: int, words: str
) -> None:
    body = (cluster.parent / "hpsearch" / "execution" / "slurm_job.sh").read_text()
    asks = body[body.index("has_begun() {") : body.index("nodes() {")]
    begins = body[body.index("if has_begun; then") : body.index("driver=$!\n")]
    script = f"""set -uo pipefail
name=far head=127.0.0.1:1 HPSEARCH_HOME={REMOTE} is_folder=
in_image() {{ printf '%s\\n' "${{@: -2}}" >asked; return {answer}; }}
exec_in_image() {{ echo "$2"; }}
set -- space.py
{asks}{begins}wait"""
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "asked").read_text().split() == [REMOTE, "far"]
    assert done.stdout.strip() == words, done.stderr
    assert done.returncode == (2 if answer == 1 else 0)


def test_a_signal_that_reaches_the_batch_shell_alone_reaches_the_driver(
    cluster: Path, tmp_path: Path
) -> None:
    """Where Slurm tracks processes by cgroup, scancel signals no other process of a job."""
    body = (cluster.parent / "hpsearch" / "execution" / "slurm_job.sh").read_text()
    traps = body[body.index("driver= asked=\n") : body.index("# A space that was sent along")]
    waits = body[body.index('if [ -n "$asked" ]; then kill') : body.index('if [ "$asked" = usr1 ]')]
    driver = "trap 'echo saved; exit 130' TERM; touch ready; while :; do sleep 0.05; done"
    script = f"""{traps}
bash -c "{driver}" &
driver=$!
{waits}"""
    shell = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, stdout=subprocess.PIPE)
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    shell.terminate()
    printed, _ = shell.communicate(timeout=60)
    assert printed.decode().split("\n") == ["saved", "hpsearch ended with code 130", ""]


@pytest.mark.parametrize(
    ("mounts", "root"),
    [
        ("30 1 8:1 / /tmp rw - ext4 /dev/sdb rw\n", "/tmp"),
        ("30 1 8:1 /slurm/7/.7 /tmp rw - ext4 /dev/sda rw\n", "/var/tmp"),
        ("", "/tmp"),
    ],
)
@pytest.mark.parametrize(
    "path", ["hpsearch/execution/slurm_job.sh", "cluster/slurm/workers.sbatch"]
)
def test_ray_has_no_folder_that_slurm_removes_while_trials_save(
    cluster: Path, tmp_path: Path, path: str, mounts: str, root: str
) -> None:
    """Slurm's job_container/tmpfs unmounts the /tmp of a job as soon as the job is canceled."""
    body = (cluster.parent / path).read_text()
    start = body.index("new_folder() {")
    function = body[start : body.index("\n}\n", start) + 3]
    (tmp_path / "mounts").write_text(mounts)
    function = function.replace("/proc/self/mountinfo", str(tmp_path / "mounts"))
    script = f'{function}made=$(new_folder); echo "$made"; rmdir "$made"'
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"{root}/hp.")


def test_workers_of_an_array_need_a_folder(cluster: Path) -> None:
    """Where they find address and token of the head."""
    done = subprocess.run(
        ["bash", cluster / "slurm" / "workers.sbatch", "far"], capture_output=True, text=True,
        env={"HPSEARCH_HOME": REMOTE, "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert REMOTE in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("home", "cache", "bound"),
    [
        ("/h", "", "/h,/tmp,/var/tmp"),
        (REMOTE, "", "/tmp,/var/tmp"),
        (REMOTE, "/scratch/c", "/tmp,/var/tmp,/scratch/c"),
    ],
)
def test_apptainer_wraps_every_command_of_the_package(
    cluster: Path, tmp_path: Path, home: str, cache: str, bound: str
) -> None:
    stand_in = tmp_path / "apptainer"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    body = (cluster.parent / "hpsearch" / "execution" / "slurm_job.sh").read_text()
    start = body.index("exec_in_image() {")
    function = body[start : body.index("\n}\n", start) + 3]
    words = "exec_in_image hpsearch search 'a b'"
    done = subprocess.run(
        ["bash", "-c", f"{function}{words}"], check=True, capture_output=True, text=True,
        env={
            "PATH": f"{tmp_path}:/bin", "HPSEARCH_IMAGE": "/i.sif", "HPSEARCH_HOME": home,
            "HPSEARCH_CACHE": cache,
        },
    )  # fmt: skip
    assert done.stdout.splitlines() == shlex.split(
        f"exec --nv --bind {bound} /i.sif hpsearch search 'a b'"
    )


FIRST_PART = {"HET_SIZE": "2", "MEM_PER_NODE": "900", "JOB_NODELIST_HET_GROUP_1": "n7"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"JOB_NODELIST": "n1\nn2", "CPUS_PER_TASK": "8", "MEM_PER_NODE": "900"},
            "n2 2 --cpus-per-task=8 900 -",
        ),
        (
            {**FIRST_PART, "CPUS_PER_TASK_HET_GROUP_1": "8", "MEM_PER_NODE_HET_GROUP_1": "32000"},
            "n7 0 --het-group=1 --cpus-per-task=8 32000 -",
        ),
        ({**FIRST_PART, "MEM_PER_CPU_HET_GROUP_1": "4000"}, "n7 0 --het-group=1 - 4000"),
    ],
)
def test_workers_get_the_processors_and_the_memory_of_their_part_of_the_job(
    cluster: Path, variables: dict[str, str], words: str
) -> None:
    """Without a suffix, Slurm's variables are those of the first part, or absent."""
    body = (cluster.parent / "hpsearch" / "execution" / "slurm_job.sh").read_text()
    start, end = body.index("cpus=$SLURM_CPUS_ON_NODE"), body.index("for _ in 1 2 3; do")
    show = "echo ${SLURM_MEM_PER_NODE:--} ${SLURM_MEM_PER_CPU:--}"
    script = f"""set -u; nodes() {{ echo "$1"; }}
{body[start:end]}
echo $workers $cpus "${{options[@]}}" $("${{worker_variables[@]}}" bash -c '{show}')"""
    environment = {"PATH": "/usr/bin:/bin", "SLURM_CPUS_ON_NODE": "2", "SLURMD_NODENAME": "n1"}
    given = {f"SLURM_{name}": value for name, value in variables.items()}
    done = subprocess.run(
        ["bash", "-c", script], env=environment | given, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.stdout.strip() == words


def test_a_head_whose_port_is_open_but_whose_start_fails_is_started_again(
    cluster: Path, tmp_path: Path
) -> None:
    """On a busy node Ray's server answers, and the rest does not start in its 30 s."""
    body = (cluster.parent / "hpsearch" / "execution" / "slurm_job.sh").read_text()
    start, end = body.index("for _ in 1 2 3; do"), body.index('if [ -z "${head_group:-}" ]; then')
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = f"""here=127.0.0.1 cpus=1
free_ports() {{ echo {server.getsockname()[1]} 2; }}
start_ray() {{
  echo >>tries
  if [ "$(wc -l <tries)" -gt 1 ]; then echo "Ray runtime started." >"$head_folder/log"; fi
  sleep $(($(wc -l <tries) * 2))
}}
new_folder() {{ mktemp -d; }}
{body[start:end]}
wc -l <tries
kill -KILL -- "-$head_group"
rm -rf "$head_folder" """
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True
        )
    assert done.stdout.strip() == "2"


def test_a_worker_of_an_array_asks_the_head_for_a_drain_before_it_ends(
    cluster: Path, tmp_path: Path
) -> None:
    """Slurm sends SIGTERM to every process; Ray's own are started so that they outlive it."""
    programs = {
        "scontrol": "echo NodeAddr=127.0.0.1",
        "python": 'case "$1" in -c) echo $$ >ray; exec sleep 60;; esac; '
        'echo "$@" >>asked; kill "$(cat ray)"',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "slurm" / "far").mkdir(parents=True)
    (tmp_path / "slurm" / "far" / "head").write_text("127.0.0.1:1 token\n")
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin", "HPSEARCH_HOME": str(tmp_path), "SLURM_JOB_ID": "1",
        "SLURMD_NODENAME": "n1", "SLURM_CPUS_ON_NODE": "2",
    }  # fmt: skip
    worker = subprocess.Popen(
        ["bash", cluster / "slurm" / "workers.sbatch", "far"], env=environment, cwd=tmp_path
    )
    while not (tmp_path / "ray").exists() or not (tmp_path / "ray").read_text():
        assert worker.poll() is None
        time.sleep(0.05)
    worker.terminate()
    assert worker.wait(60) == 128 + 15, "as Ray ended"
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert asked.startswith("-m hpsearch.execution.preemption_agent now --temp-dir /")
