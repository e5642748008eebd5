"""What a trial raised, in words that help."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from hpsearch.atomic_files import is_full_disk
from hpsearch.errors import UserError
from hpsearch.execution.retry_policy import death, full_disk, lacks_memory, may_pass, words


def test_reasons_are_one_line_that_names_the_remedy() -> None:
    with pytest.raises(MemoryError) as numpy_says:
        np.zeros(1 << 50)
    with pytest.raises(RuntimeError) as torch_says:
        torch.zeros(1 << 50)
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nAnd more")
    for error, remedy in (
        (numpy_says.value, "run fewer trials at once with --concurrent"),
        (torch_says.value, "run fewer trials at once with --concurrent"),
        (gpu, "out of GPU memory (CUDA out of memory. Tried to allocate 20.00 GiB.); lower the"),
        (gpu, "--gpus-per-trial"),
    ):
        assert lacks_memory(error)
        assert not may_pass(error)
        assert remedy in words(error)
        assert "\n" not in words(error)
    assert "ran out of memory, so Ray killed" in death(
        "killed due to the node running low on memory. More"
    )
    assert "its worker process died" in death("The actor died unexpectedly")
    assert death("Failure # 1\nray::f\n  File x\nOSError: stale") == "OSError: stale"
    assert words(UserError("give it a name")) == "give it a name"


def test_a_full_disk_is_told_from_other_errors(tmp_path: Path) -> None:
    wrapped = RuntimeError("could not go on")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_full_disk(wrapped)
    assert is_full_disk(RuntimeError("Traceback ... OSError: [Errno 28] No space left on device"))
    assert not is_full_disk(OSError(errno.EIO, "Input/output error"))
    assert may_pass(OSError(errno.EIO, "Input/output error"))
    assert str(tmp_path) in full_disk([tmp_path, tmp_path / "absent"])
