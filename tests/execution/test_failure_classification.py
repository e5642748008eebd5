"""What a trial raised, in words that help."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from hpsearch.atomic_files import is_disk_full
from hpsearch.errors import UserError
from hpsearch.execution.retry_policy import (
    describe_fullest_disk,
    describe_worker_death,
    format_trial_error,
    is_out_of_memory,
    is_transient,
)


def test_reasons_are_one_line_that_names_the_remedy() -> None:
    with pytest.raises(MemoryError) as numpy_message:
        np.zeros(1 << 50)
    with pytest.raises(RuntimeError) as torch_message:
        torch.zeros(1 << 50)
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nAnd more")
    for error, remedy in (
        (numpy_message.value, "run fewer trials at once with --max-concurrent-trials"),
        (torch_message.value, "run fewer trials at once with --max-concurrent-trials"),
        (gpu, "out of GPU memory (CUDA out of memory. Tried to allocate 20.00 GiB.); lower the"),
        (gpu, "--gpus-per-trial"),
    ):
        assert is_out_of_memory(error)
        assert not is_transient(error)
        assert remedy in format_trial_error(error)
        assert "\n" not in format_trial_error(error)
    assert "ran out of memory, so Ray killed" in describe_worker_death(
        "killed due to the node running low on memory. More"
    )
    assert "its worker process died" in describe_worker_death("The actor died unexpectedly")
    assert (
        describe_worker_death("Failure # 1\nray::f\n  File x\nOSError: stale") == "OSError: stale"
    )
    assert format_trial_error(UserError("give it a name")) == "give it a name"


def test_a_full_disk_is_reported_from_other_errors(tmp_path: Path) -> None:
    wrapped = RuntimeError("could not go on")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_disk_full(wrapped)
    assert is_disk_full(RuntimeError("Traceback ... OSError: [Errno 28] No space left on device"))
    assert not is_disk_full(OSError(errno.EIO, "Input/output error"))
    assert is_transient(OSError(errno.EIO, "Input/output error"))
    assert str(tmp_path) in describe_fullest_disk([tmp_path, tmp_path / "absent"])
