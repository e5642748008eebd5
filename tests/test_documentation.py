"""Every command in the documents: each is parsed, and each block is run as it is printed.

A block that is not run is listed with the reason. Blocks are run in one folder, in the order of
``RUN``, with a search space and patches of seconds in place of those that the documents name.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import typer.main
from PIL import Image

import hpsearch
from hpsearch.cli import app
from hpsearch.config import L2Net, TrialConfig
from hpsearch.data.builtin_sets import photograph
from hpsearch.data.patch_store import PatchStore

from .data.test_hpatches_import import write_tree
from .data.test_phototour import write_pairs, write_scene
from .forked_commands import SOCKET, client, command_server
from .processes import environment

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md", "CONTRIBUTING.md", "SECURITY.md", "cluster/README.md", "docs/results/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)  # fmt: skip


class Block(NamedTuple):
    """A fenced block of a document."""

    document: str
    language: str
    text: str

    @property
    def first(self) -> str:
        """Its first line, by which the tables here name it."""
        return self.text.splitlines()[0]


def blocks() -> Iterator[Block]:
    for document in DOCUMENTS:
        text = (ROOT / document).read_text()
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield Block(document, found[1], found[2])


class Step(NamedTuple):
    """A block that is run."""

    document: str
    first: str
    """Beginning of its first line."""
    other: dict[str, str] = {}  # noqa: RUF012  (never changed)
    """What is run in place of what is printed: smaller data, and names that exist here."""
    left_out: dict[str, str] = {}  # noqa: RUF012  (never changed)
    """Words of lines that are not run, with the reason."""


TINY = {" mini ": " tiny "}
RUN = (
    Step(
        "README.md",
        "import hpsearch as hp",
        # the search of the table, and a promotion that `rollback` can take back
        {'"small"': '"quickstart"', "seeds=2))": "seeds=2), force=True)", '"mini"': '"tiny"'},
    ),
    Step("README.md", "import mlflow"),
    Step(
        "docs/promotion.md",
        "hpsearch promote quickstart --dry-run",
        # the tiny search's own winner is below RootSIFT, so there was no champion before
        {"hpsearch rollback  ": "hpsearch rollback --version 1  "},
    ),
    Step("docs/losses.md", "from hpsearch.config import SOSR"),
    Step("docs/losses.md", "from hpsearch.config import BatchTriplet"),
    Step("docs/serving.md", "hpsearch describe models:/patch-descriptor@champion", TINY),
    Step("docs/serving.md", "$ hpsearch export"),
    Step(
        "docs/serving.md",
        "hpsearch ensemble",
        {"patch-descriptor@3": "patch-descriptor@2"},
    ),
    Step(
        "docs/evaluation.md",
        "hpsearch evaluate models:/patch-descriptor@champion",
        {"hpsearch evaluate": "hpsearch evaluate --data tiny", "descriptor/3": "descriptor/2",
         "quickstart/7": "quickstart/1"},
        {"--tasks": "needs the task lists of the HPatches benchmark"},
    ),
    Step(
        "docs/gpu.md",
        "hpsearch train config.json --device cuda",
        {"--device cuda ": "--data tiny --device cuda 2>&1 | grep 'no CUDA device' "},
        {"hpsearch search": "the block of README.md that runs a search does that"},
    ),
    Step("docs/data.md", "hpsearch data import hpatches-release.tar.gz"),
    Step(
        "docs/data.md",
        "hpsearch evaluate hpsearch-base --data liberty.arrow",
        {},
        {"hpsearch search": "tests/search/test_search_data.py trains on a scene"},
    ),
    Step("docs/first-hour.md", "hpsearch search search_spaces/quickstart.py --name first --dry"),
    Step("docs/first-hour.md", "hpsearch search search_spaces/quickstart.py --name first --set"),
    Step("docs/first-hour.md", "hpsearch report first"),
    Step("docs/first-hour.md", "hpsearch extend first"),
    Step("docs/first-hour.md", "hpsearch du"),
    Step("docs/write-a-space.md", "import optuna"),
    Step("docs/write-a-space.md", "from hpsearch import Search"),
    Step("docs/matching.md", "hpsearch match first.jpg"),
    Step("docs/matching.md", "hpsearch describe first.jpg"),
    Step("docs/matching.md", "import hpsearch as hp"),
    Step("docs/matching.md", "hpsearch evaluate hpsearch-base"),
    Step("README.md", "hpsearch match first.jpg", TINY | {"descriptors.npy": "base.npy"}),
)  # fmt: skip
TABLE = {
    "hpsearch report quickstart": {},
    "hpsearch train config.json": {"config.json": "config.json --data tiny"},
    "hpsearch data photos ~/Pictures": {},
    "hpsearch data info mini": TINY | {" mini": " tiny"},
    "hpsearch data preview mini": {" mini": " tiny"},
    "hpsearch sync quickstart": {},
}
"""Commands of README's table that no block has, by their beginning; they are run last."""
MAKE = "installs, or runs whole suites; each target is looked up in the Makefile"
CLOUD = "needs an account of a cloud, Docker or a cluster of Kubernetes"
CLUSTER = "needs several machines; tests/chaos/test_manual_cluster.py and test_jobs.py do it on one"
SLURM = "needs Slurm; tests/chaos/test_slurm.py and test_slurm_jobs.py do it"
OUTPUT = "output, whose shape is checked below"
HANDLE = "tests/execution/test_external_trials.py calls these methods"
OWN_LOSS = "tests/training/test_custom_parts.py writes both files and rehearses the space"
NOT_RUN: dict[tuple[str, str], str] = {
    ("docs/tutorial.md", "make demo"): MAKE,
    ("docs/tutorial.md", ".venv/bin/hpsearch"): "docs/first-hour.md and README.md run these",
    ("README.md", "make demo"): MAKE,
    ("CONTRIBUTING.md", "make install"): MAKE,
    ("docs/gpu.md", "make gpu"): MAKE,
    ("README.md", "Leaderboard of quickstart"): OUTPUT,
    ("README.md", "Trained again"): OUTPUT,
    ("README.md", "Retrained"): OUTPUT,
    ("docs/evaluation.md", "verification"): OUTPUT,
    ("docs/own-loss.md", "import torch"): OWN_LOSS,
    ("docs/own-loss.md", "from hpsearch import Search"): OWN_LOSS,
    ("docs/matching.md", "colmap feature_importer"): "needs COLMAP",
    ("docs/matching.md", "pip install"): "installs; tests/workflows/test_match_images.py uses it",
    ("README.md", "hpsearch/config/"): "a list of folders",
    ("docs/python.md", "import hpsearch as hp"): "tests/test_python_api.py runs the notebook",
    ("docs/python.md", 'search = hp.open_search("cell")'): "the notebook has it too",
    ("docs/python.md", 'search = hp.open_search("cell", home'): HANDLE,
    ("docs/python.md", "trial = search.ask()"): HANDLE,
    ("docs/python.md", "$ hpsearch search space.py --set"): "tests/workflows/test_dry_run.py",
    ("docs/python.md", "from torch.utils.tensorboard"): "needs the package tensorboard",
    ("docs/architecture.md", "flowchart TD"): "a drawing",
    ("docs/gpu.md", "hpsearch search search_spaces/full.py"): "needs a GPU",
    ("docs/serving.md", "export MLFLOW_TRACKING_URI"): "tests/cli/test_models.py runs the server",
    ("docs/serving.md", "$ curl"): "tests/cli/test_models.py asks the server",
    ("cluster/README.md", "cluster/pin_images.py"): CLOUD,
    ("cluster/README.md", "export AWS_DEFAULT_REGION"): CLOUD,
    ("cluster/README.md", "IMAGE=$(aws"): CLOUD,
    ("cluster/README.md", "ray down"): CLOUD,
    ("cluster/README.md", "ZONE="): CLOUD,
    ("cluster/README.md", "helm repo add"): CLOUD,
    ("cluster/README.md", 'sed "s|REGISTRY'): CLOUD,
    ("cluster/README.md", "cd cluster/mlflow"): CLOUD,
    ("cluster/README.md", "docker build"): CLOUD,
    ("cluster/README.md", "aws ec2"): CLOUD,
    ("cluster/README.md", "cluster/local/head.sh"): CLUSTER,
    ("cluster/README.md", "export RAY_API_SERVER_ADDRESS"): CLUSTER,
    ("cluster/README.md", "$ export RAY_API_SERVER_ADDRESS"): CLUSTER,
    ("cluster/README.md", "hpsearch submit"): CLUSTER,
    ("cluster/README.md", "$ hpsearch submit"): SLURM,
    ("cluster/README.md", "sbatch"): SLURM,
    ("cluster/README.md", "slurmstepd"): SLURM,
    ("cluster/README.md", "10:00:03"): SLURM,
    ("cluster/README.md", "ray job submit"): CLUSTER,
    ("cluster/README.md", "RAY_USE_TLS=1"): "variables to set",
    ("cluster/README.md", "worker hours ="): "a formula",
    ("docs/data.md", "hpsearch data photos photographs --views detected"): (
        "tests/data/test_detected_views.py runs it"
    ),
}


@pytest.mark.parametrize(
    "block", list(blocks()), ids=lambda block: f"{block.document}:{block.first}"
)
def test_a_block_is_run_or_listed_with_a_reason(block: Block) -> None:
    steps = [s for s in RUN if s.document == block.document and block.first.startswith(s.first)]
    reasons = [
        why
        for (document, first), why in NOT_RUN.items()
        if document == block.document and block.first.startswith(first)
    ]
    assert len(steps) + len(reasons) == 1, f"{block.document}: {block.first}"


def block_of(step: Step) -> Block:
    (found,) = (
        b for b in blocks() if b.document == step.document and b.first.startswith(step.first)
    )
    return found


def test_what_is_replaced_or_left_out_is_there() -> None:
    for step in RUN:
        text = block_of(step).text
        assert [words for words in (*step.other, *step.left_out) if words not in text] == []


# --- commands, parsed -----------------------------------------------------------------------------


FENCED = re.compile(r"^```\w*\n.*?^```$", re.MULTILINE | re.DOTALL)


def inline_code(document: str) -> list[str]:
    """Code within the sentences and tables of a document."""
    return re.findall(r"`([^`]+)`", FENCED.sub("", (ROOT / document).read_text()))


def commands(document: str) -> Iterator[str]:
    """Commands of hpsearch in a document: lines of blocks, and code within sentences."""
    text = (ROOT / document).read_text()
    for block in FENCED.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"(?:\$ )?(?:\.venv/bin/)?hpsearch (\S.*)", line)
            if found and not found[1].startswith("ended with code"):
                yield found[1]
    for code in inline_code(document):
        if found := re.fullmatch(r"(?:\.venv/bin/)?hpsearch (.+)", " ".join(code.split())):
            yield found[1]


def parse(words: list[str]) -> str:
    """Parse a command without running it; the error is returned, empty if there is none."""
    command: Any = typer.main.get_command(app)
    if words[0].startswith("-"):
        return ""
    rest = list(words)
    while hasattr(command, "commands") and rest:
        if rest[0] not in command.commands:
            return f"no command {rest[0]}"
        command = command.commands[rest.pop(0)]
    try:
        command.make_context("hpsearch", rest)
    except Exception as error:
        missing = type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError")
        # a sentence may name a command, or one of its options, without its arguments
        return "" if missing else str(error) or type(error).__name__
    return ""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_is_one_that_exists(document: str) -> None:
    found = [words for words in commands(document) if words[0].islower()]
    # an address in an object store is looked up while the options are read
    local = {line: re.sub(r"\bs3://\S+", "runs", line) for line in found}
    errors = {line: parse(shlex.split(words, comments=True)) for line, words in local.items()}
    assert {line: why for line, why in errors.items() if why} == {}


def test_commands_are_found_and_mistakes_in_them() -> None:
    assert sum(len(list(commands(document))) for document in DOCUMENTS) > 60
    assert "no command serch" in parse(["serch", "a.py"])
    assert "--compiled" in parse(["train", "config.json", "--compiled"])
    assert parse(["train", "config.json", "--precision", "float32"]) == ""


def test_every_target_of_make_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for line in re.findall(r"^make (.*)$|`make ([^`]*)`", (ROOT / document).read_text(), re.M)
        for target in re.findall(r"^[\w-]+", "".join(line))
    }
    assert {"demo", "test", "gpu"} <= named <= targets


# --- blocks, run ----------------------------------------------------------------------------------


class Work(NamedTuple):
    """A folder in which the commands are run, with everything that they name."""

    folder: Path
    commands: Path
    """Socket of the server that runs them."""
    outputs: dict[str, str]
    """What each block printed, by its first line."""

    def run(self, block: Block, text: str) -> str:
        """Run a block in a shell, or in Python; the first command that fails ends it."""
        programs = self.folder / "bin"
        call = [programs / "python", "-c", text] if block.language == "python" else [
            "bash", "-ec", text,
        ]  # fmt: skip
        home = {"HOME": str(self.folder), "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        path = os.pathsep.join([str(programs), os.environ["PATH"]])
        done = subprocess.run(
            call, env=environment(PATH=path, **{SOCKET: str(self.commands)}, **home),
            cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        self.outputs[block.first] = done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny: PatchStore) -> Iterator[Work]:
    folder = tmp_path_factory.mktemp("documents")
    (folder / "search_spaces").mkdir()
    space = (ROOT / "tests" / "end_to_end" / "space.py").read_text()
    assert "BUDGET = 1_920" in space
    (folder / "search_spaces" / "quickstart.py").write_text(
        space.replace("BUDGET = 1_920", "BUDGET = 960")
    )
    (folder / "bin").mkdir()
    client(folder / "bin", "hpsearch", "hpsearch")
    client(folder / "bin", "python")
    (folder / "runs" / "data").mkdir(parents=True)
    shutil.copy(tiny.path, folder / "runs" / "data")
    trial = TrialConfig(descriptor=L2Net(width=0.125), patches=200)
    (folder / "config.json").write_text(trial.model_dump_json())
    np.save(folder / "patches.npy", tiny.noisy[0])
    (folder / "Pictures").mkdir()
    for name in ("camera", "grass", "gravel"):
        Image.fromarray(photograph(name)[::2, ::2]).save(folder / "Pictures" / f"{name}.png")
    gray = Image.fromarray(photograph("coffee")[::2, ::2])
    gray.save(folder / "first.jpg")
    gray.rotate(5).save(folder / "second.jpg")
    write_sources(folder)
    (folder / "sequences" / "v_coffee").mkdir(parents=True)
    for number in range(1, 7):
        gray.save(folder / "sequences" / "v_coffee" / f"{number}.png")
        np.savetxt(folder / "sequences" / "v_coffee" / f"H_1_{number}", np.eye(3))
    with command_server(tmp_path_factory.mktemp("server")) as commands:
        yield Work(folder, commands, {})


def write_sources(folder: Path) -> None:
    """Write what docs/data.md reads: archives of strips, pictures and a scene, and arrays."""
    write_tree(folder / "hpatches-release", counts={"i_nuts": 2, "v_wall": 2})
    sequence = folder / "hpatches-sequences-release" / "v_coffee"
    sequence.mkdir(parents=True)
    gray = Image.fromarray(photograph("coffee")[::4, ::4])
    for number in range(1, 7):
        gray.save(sequence / f"{number}.ppm")
        (sequence / f"H_1_{number}").write_text("1 0 0 0 1 0 0 0 1")
    points = np.arange(64) // 4
    write_scene(folder / "liberty", points)
    pairs = [(4 * p, 4 * p + step) for p in range(15) for step in (1, 5)]
    write_pairs(folder / "liberty", points, pairs, 1000)
    for name, kind in (("hpatches-release", "gztar"), ("hpatches-sequences-release", "zip"),
                       ("liberty", "zip")):  # fmt: skip
        shutil.make_archive(str(folder / name), kind, folder, name)
        shutil.rmtree(folder / name)
    shutil.copytree(folder / "Pictures", folder / "photographs")
    np.save(folder / "ids.npy", np.arange(16) // 4)
    np.save(folder / "names.npy", np.repeat(["v_bridge", "v_tower"], 8))


def printed_text(step: Step) -> str:
    """A block without its output, and with what the step replaces."""
    lines = block_of(step).text.splitlines()
    if step.first.startswith("$ "):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    kept = [line for line in lines if not any(words in line for words in step.left_out)]
    text = "\n".join(kept)
    for printed, used in step.other.items():
        text = text.replace(printed, used)
    return text


def test_the_program_that_is_installed_is_this_package() -> None:
    """The blocks below are run by a client of the same name."""
    done = subprocess.run(
        ["hpsearch", "--version"], env=environment(PYTHONPATH=str(ROOT)), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == hpsearch.__version__


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("step", RUN, ids=lambda step: f"{step.document}:{step.first}")
def test_a_block_runs_as_printed(step: Step, work: Work) -> None:
    if "trained/mine" in (text := printed_text(step)):
        text = f"hpsearch train config.json --data tiny --output trained/mine\n{text}"
    work.run(block_of(step), text)


SHAPES = (
    (
        Step("docs/evaluation.md", "verification"),
        next(step for step in RUN if step.document == "docs/evaluation.md"),
    ),
)
"""Blocks that show output, and the blocks whose commands print it."""
NUMBER = re.compile(r"[-+]?\d[\d,.]*(?:e-?\d+)?k?")


def shape(text: str) -> set[str]:
    """Lines of an output with 0 for every number, and one space for several."""
    return {" ".join(NUMBER.sub("0", line).split()) for line in text.splitlines()} - {""}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("shown", "step"), SHAPES)
def test_output_has_the_shape_that_is_shown(shown: Step, step: Step, work: Work) -> None:
    block = block_of(step)
    if block.first not in work.outputs:
        work.run(block, printed_text(step))
    expected = shape(block_of(shown).text)
    assert len(expected) > 5
    assert expected - shape(work.outputs[block.first]) == set()


def test_a_shape_ignores_numbers_alone() -> None:
    assert shape("a  0.5 … 1,000\n\nb") == shape("a 12 … 3.25\nb")
    assert shape("winner 0.5") != shape("baseline 0.5")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", TABLE)
def test_a_command_of_the_table_runs_as_printed(command: str, work: Work) -> None:
    (line,) = (
        line
        for line in dict.fromkeys(inline_code("README.md"))
        if line.startswith(command) and (line == command or line[len(command)] == " ")
    )
    for printed, used in TABLE[command].items():
        line = line.replace(printed, used)
    work.run(Block("README.md", "", line), line)
