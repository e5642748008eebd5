"""What Ray prints of itself beside a search."""

import pytest
from ray._private import worker

from hpsearch.execution.ray_patches import suppress_worker_death_logs

DEATHS = [
    "A worker died or was killed while executing a task by an unexpected system error. To ...",
    "2 worker(s) were killed due to the node running low on memory. ...",
    "1 Workers (tasks / actors) killed due to memory pressure (OOM), 0 Workers crashed ...",
    "WARNING: 56 PYTHON worker processes have been started on node: 71f5 with address: ...",
]


def tell(*lines: str) -> None:
    message = {"lines": list(lines), "pid": "raylet", "is_err": False}
    worker.print_to_stdstream(message, ignore_prefix=False)  # pyright: ignore


@pytest.mark.parametrize("death", DEATHS, ids=["died", "low memory", "memory pressure", "many"])
def test_a_death_is_not_repeated_and_all_else_is(
    death: str, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = f"a disk is full, and not: {death}"  # Ray prints no line twice
    with suppress_worker_death_logs():
        tell(death)
        assert capsys.readouterr().out == ""
        tell(death, disk)
        shown = capsys.readouterr().out
        assert disk in shown
        assert shown.count(death) == 1
    tell(death)
    assert death in capsys.readouterr().out
