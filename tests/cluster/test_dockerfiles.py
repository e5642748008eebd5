"""Dockerfiles: pinned, without privileges, from files that are there, with tested versions."""

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("Dockerfile", "mlflow/Dockerfile")
INSTRUCTION = re.compile(r"^(ARG|CMD|COPY|ENV|EXPOSE|FROM|RUN|USER|WORKDIR) +(.+)$", re.DOTALL)


@dataclass(frozen=True)
class Instruction:
    """One line, continued lines joined."""

    word: str
    rest: str


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile.

    Raises:
        ValueError: if a line is none that we use.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        match = INSTRUCTION.match(line)
        if match is None:
            raise ValueError(f"not an instruction: {line!r}")
        found.append(Instruction(match[1], re.sub(r" +", " ", match[2])))
    return found


def complaints(text: str) -> list[str]:
    """What is wrong with a Dockerfile that is built from the root of this repository."""
    instructions = parse(text)
    users = [each.rest for each in instructions if each.word == "USER"]
    found = _unpinned(instructions) + _missing_sources(instructions)
    if not users or users[-1] in ("root", "0"):
        found.append("it ends as root")
    return found + [
        f"without hashes: {command}"
        for each in instructions
        if each.word == "RUN"
        for command in each.rest.split("&&")
        if "pip install" in command and not is_hashed(command)
    ]


def is_hashed(command: str) -> bool:
    """Whether pip installs nothing but what a hash names, our own package, or PyTorch's wheel."""
    hashed = "--constraint constraints.hashed.txt --only-binary :all:" in command
    own = re.search(r"--no-deps --no-index --no-build-isolation \.$", command.strip())
    pytorch = re.search(
        r"--no-deps --index-url https://download\.pytorch\.org/whl/cpu "
        r"\"\$\(grep '\^torch==' [\w.]+\)(\+cpu)?\"$",
        command.strip(),
    )
    return bool(hashed or "--require-hashes" in command or own or pytorch)


def _unpinned(instructions: list[Instruction]) -> list[str]:
    stages: set[str] = set()
    found = []
    for each in instructions:
        if each.word == "FROM":
            image, _, stage = each.rest.partition(" AS ")
            chosen = fnmatch.filter(stages, image.replace("${DEVICE}", "*"))
            if not chosen and not re.fullmatch(
                r"[\w./-]+:\d+\.\d+\.\d+[-\w]*(@sha256:[0-9a-f]{64})?", image
            ):
                found.append(f"not pinned: {image}")
            stages.add(stage)
    return found


def _missing_sources(instructions: list[Instruction]) -> list[str]:
    """Sources of COPY that are not there, or that .dockerignore keeps away."""
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = [each.rest.split()[:-1] for each in instructions if each.word == "COPY"]
    sources = [source for names in copied for source in names]
    missing = [f"not there: {source}" for source in sources if not (ROOT / source).exists()]
    return missing + [f"ignored: {source}" for source in sources if source not in kept]


@pytest.fixture(params=FILES)
def text(request: pytest.FixtureRequest, cluster: Path) -> str:
    return (cluster / request.param).read_text()


def test_it_is_sound(text: str) -> None:
    assert complaints(text) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (r":3\.11\.\d+-slim-bookworm", ":latest", "not pinned"),
        (r":3\.11\.\d+-slim-bookworm", "", "not pinned"),
        (r"\nUSER \w+", "", "it ends as root"),
        (r"\nUSER \w+", "\nUSER root", "it ends as root"),
        (r"COPY constraints.*\b", "COPY constraint.txt ./", "not there"),
        (r"COPY constraints.*\b", "COPY tests ./", "ignored"),
        (r"constraints.hashed.txt --only-binary :all:", "constraints.txt", "without hashes"),
        (r"--only-binary :all:", "", "without hashes"),
        (r"--require-hashes", "", "without hashes"),
    ],
)
def test_a_mistake_is_noticed(text: str, old: str, new: str, complaint: str) -> None:
    changed = re.sub(old, new, text)
    assert changed != text
    assert any(complaint in line for line in complaints(changed))


def test_a_word_that_docker_does_not_know_is_noticed(text: str) -> None:
    with pytest.raises(ValueError, match="not an instruction"):
        parse(text.replace("USER", "USR"))


def test_there_is_an_image_for_every_device(cluster: Path) -> None:
    stages = {
        each.rest.partition(" AS ")[2]
        for each in parse((cluster / "Dockerfile").read_text())
        if each.word == "FROM"
    }
    assert stages >= {"torch-cpu", "torch-cuda", "torch-tpu"}


def test_all_images_hold_one_python(cluster: Path) -> None:
    images = [
        each.rest.split()[0]
        for file in FILES
        for each in parse((cluster / file).read_text())
        if each.word == "FROM" and "python" in each.rest
    ]
    assert len(set(images)) == 1
