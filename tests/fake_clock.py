"""A clock that a test sets, for processes of its own."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("clock.c")


@dataclass(frozen=True)
class Clock:
    """The time of day of processes that are started with these variables, and of their children."""

    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "HPSEARCH_TEST_CLOCK": str(self.folder / "off")}

    @property
    def library(self) -> Path:
        return self.folder / "clock.so"

    def set(self, seconds: int) -> None:
        """It is off by so many seconds from now on."""
        (self.folder / "off").write_text(str(seconds))


def make_clock(folder: Path) -> Clock:
    if shutil.which("cc") is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler: apt install gcc libc6-dev")
    clock = Clock(folder)
    words = ["cc", "-shared", "-fPIC", "-o", clock.library, SOURCE, "-ldl", "-lpthread"]
    subprocess.run(words, check=True)
    return clock
