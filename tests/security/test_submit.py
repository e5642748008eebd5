"""What a job's words and metadata may do: run nothing on the head's shell, steer no terminal."""

import os
import subprocess
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from hpsearch.cli import jobs as commands
from hpsearch.execution.job_client import JobClient, SearchJob, quote_command

HOSTILE = (
    "$(touch written)", "`touch written`", "; touch written", "a\ntouch written\n",
    "' ; touch written '", '" ; touch written "', "| touch written", "&& touch written",
    "> written", "~/$(touch written)", "~/; touch written", "*", "\\", "!", "-rf",
    "\x1b]0;owned\x07",
)  # fmt: skip


@pytest.mark.parametrize("word", HOSTILE)
def test_the_head_s_shell_hands_on_each_word_as_it_was_given(word: str, tmp_path: Path) -> None:
    line = quote_command(["search", word, "--home", word])
    script = f"set -- {line}; printf '%s\\0' \"$@\""
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"HOME": "/home/user", "PATH": os.environ["PATH"]},
    )  # fmt: skip
    seen = word.replace("~/", "/home/user/", 1) if word.startswith("~/") else word
    assert done.stdout.split("\0")[:-1] == ["search", seen, "--home", seen]
    assert list(tmp_path.iterdir()) == []


def job(name: str, message: str, status: JobStatus = JobStatus.FAILED) -> SearchJob:
    details = JobDetails(  # pyright: ignore[reportCallIssue]
        type=JobType.SUBMISSION, submission_id="x", entrypoint="x", status=status,
        message=message, metadata={"hpsearch": name, "home": "~/hpsearch"},
    )  # fmt: skip
    return SearchJob.from_details(details)


def test_a_job_s_name_and_words_steer_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, words = "mine\x1b[2J\nother   completed", "lost\x1b]0;owned\x07\x9b2J"
    found = job(name, words)
    monkeypatch.setattr(JobClient, "jobs", lambda self: [found])
    monkeypatch.setattr(JobClient, "logs", lambda self, job: f"error: {words}\n")
    commands.list_("http://head:8265")
    commands.status(found.search, "http://head:8265")
    printed = capsys.readouterr().out
    assert "mine" in printed
    assert "lost" in printed
    assert all(letter.isprintable() for letter in printed.replace("\n", ""))
    assert len(printed.splitlines()) == 3, "one line in the list, two of the status"
