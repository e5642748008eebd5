"""System metrics: MLflow's names and values, and never in the way of a training."""

import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import ray  # brings psutil
import torch

from hpsearch.execution import system_metrics
from hpsearch.execution.system_metrics import SystemMonitor, read_gpu_use

assert ray.__version__


class NoGpu(RuntimeError):
    pass


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Driver with one GPU, for torch and for MLflow."""
    fake = SimpleNamespace(
        NVMLError=NoGpu, NVMLError_DriverNotLoaded=NoGpu, nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1, nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=3e9, total=12e9),
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=37),
        nvmlDeviceGetPowerUsage=lambda handle: 250_000,
        nvmlDeviceGetEnforcedPowerLimit=lambda handle: 500_000,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "pynvml", fake, raising=False)
    monkeypatch.setattr(torch.cuda, "_HAS_PYNVML", True)
    monkeypatch.setattr(torch.cuda, "_get_nvml_device_index", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    properties = SimpleNamespace(total_memory=12e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return fake


def followed(read_gpu: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Metrics once a driver has been read until it fails."""
    failed = threading.Event()

    def read() -> dict[str, float]:
        try:
            return read_gpu()
        except Exception:
            failed.set()
            raise

    with SystemMonitor(read) as monitor:
        assert failed.wait(60)
        return monitor.metrics()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "GPU_SAMPLE_INTERVAL_S", 0.0)


def test_names_and_values_are_those_of_mlflow(
    nvml: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.system_metrics.metrics import cpu_monitor, gpu_monitor

    monkeypatch.setattr(gpu_monitor, "pynvml", nvml, raising=False)
    cpu, gpu = cpu_monitor.CPUMonitor(), gpu_monitor.GPUMonitor()
    cpu.collect_metrics()
    gpu.collect_metrics()
    expected = gpu.aggregate_metrics()
    assert expected.pop("gpu_0_power_usage_percentage") == 50, "the limit is not torch's to say"
    assert read_gpu_use() == expected
    with SystemMonitor(lambda: {}) as monitor:
        ours = monitor.metrics()
    assert ours.keys() == {f"system/{name}" for name in cpu.aggregate_metrics()}


def test_a_report_has_the_mean_since_the_one_before() -> None:
    values: Iterator[float] = iter([10.0, 20.0, 60.0])
    found = followed(lambda: {"gpu_0_utilization_percentage": next(values)})
    assert found["system/gpu_0_utilization_percentage"] == 30.0


def test_without_a_driver_the_rest_is_measured() -> None:
    found = followed(lambda: {"gpu_0_utilization_percentage": torch.cuda.utilization(0) + 0.0})
    assert not any("gpu" in name for name in found)
    assert 0 < found["system/system_memory_usage_percentage"] <= 100


def test_a_driver_that_does_not_answer_delays_no_report() -> None:
    asked, over = threading.Event(), threading.Event()

    def hang() -> dict[str, float]:
        asked.set()
        over.wait()
        return {}

    with SystemMonitor(hang) as monitor:
        assert asked.wait(60)
        assert "system/cpu_utilization_percentage" in monitor.metrics()
    over.set()


def test_they_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "psutil", None)
    with SystemMonitor(lambda: {}) as monitor:
        assert monitor.metrics() == {}
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    with SystemMonitor(lambda: pytest.fail("it is switched off")) as monitor:
        assert monitor.metrics() == {}
