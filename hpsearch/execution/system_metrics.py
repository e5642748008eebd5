"""Use of the machine during a trial, under the names of MLflow's system metrics.

MLflow's own monitor writes from the worker to the server. Here the values travel in the reports, so
they are in the event log, and reach MLflow when everything else does.
"""

import os
import threading
from collections.abc import Callable, Mapping
from statistics import fmean

import torch

try:
    import psutil  # pyright: ignore[reportMissingModuleSource] -- Ray brings it
except ImportError:
    psutil = None

PREFIX = "system/"
"""Beginning of the names of MLflow's system metrics."""
SWITCH = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
"""Environment variable of MLflow; ``false`` leaves the metrics out of the reports of a worker."""
GPU_SAMPLE_INTERVAL_S = 2.0
"""Seconds between two samples of the GPU; a driver states its use of the second before."""
MEGABYTE = 1e6

Sample = Mapping[str, float]


class SystemMonitor:
    """Use of CPU, memory and GPU by everything that runs on the machine, between two reports.

    Use of the CPU is the mean since the last report, memory is that at the report, and what
    concerns the GPU is the mean of samples that a thread takes, so that a driver that does not
    answer delays no training. ``gpu_0`` is the first GPU that this process sees, which is the
    trial's, and not the first of the machine. What cannot be measured is left out: without
    ``nvidia-ml-py`` that is the GPU.

    Args:
        read_gpu: returns the use of the GPU now; raises where that cannot be known.

    Example:
        >>> with SystemMonitor() as monitor:
        ...     names = monitor.metrics().keys()
        >>> all(name.startswith("system/") for name in names)
        True
    """

    def __init__(self, read_gpu: "Callable[[], Sample] | None" = None) -> None:
        self._read_gpu = read_gpu or read_gpu_use
        self._enabled = os.environ.get(SWITCH, "").lower() not in ("false", "0")
        self._samples: list[Sample] = []
        self._lock, self._over = threading.Lock(), threading.Event()

    def __enter__(self) -> "SystemMonitor":
        if self._enabled:
            _read_machine_use()  # the first use of the CPU is that since now
            threading.Thread(target=self._follow_gpu, name="system-metrics", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def metrics(self) -> dict[str, float]:
        """Use since the last call, by MLflow's names; percentages, megabytes (1e6) and watts."""
        if not self._enabled:
            return {}
        with self._lock:
            samples, self._samples = self._samples, []
        names = dict.fromkeys(name for sample in samples for name in sample)
        gpu = {name: fmean(s[name] for s in samples if name in s) for name in names}
        return {f"{PREFIX}{k}": round(v, 1) for k, v in (_read_machine_use() | gpu).items()}

    def _follow_gpu(self) -> None:
        while not self._over.wait(GPU_SAMPLE_INTERVAL_S):
            try:
                sample = self._read_gpu()
            except Exception:  # no driver, no nvidia-ml-py, or a GPU without such counters
                return
            with self._lock:
                self._samples.append(sample)


def _read_machine_use() -> dict[str, float]:
    """Use of the CPU since the last call, and of the memory now; empty without psutil."""
    if psutil is None:
        return {}
    memory = psutil.virtual_memory()
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / MEGABYTE,
        "system_memory_usage_percentage": 100 * memory.used / memory.total,
    }


def read_gpu_use() -> dict[str, float]:
    """Use of the first visible GPU, as its driver states it; empty until this process uses a GPU.

    Raises:
        Exception: of the driver's library, if it is not installed or does not answer.
    """
    if not torch.cuda.is_initialized():
        return {}
    used, total = torch.cuda.device_memory_used(0), torch.cuda.get_device_properties(0).total_memory
    return {
        "gpu_0_utilization_percentage": float(torch.cuda.utilization(0)),
        "gpu_0_memory_usage_megabytes": used / MEGABYTE,
        "gpu_0_memory_usage_percentage": 100 * used / total,
        "gpu_0_power_usage_watts": torch.cuda.power_draw(0) / 1000,
    }
