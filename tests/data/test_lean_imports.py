import subprocess
import sys

HEAVY = {"PIL", "scipy", "skimage", "matplotlib", "ray", "mlflow", "optuna"}
LEAN = "hpsearch.data.patch_store hpsearch.data.samplers hpsearch.data.augmentation"


def test_what_training_reads_needs_no_picture_library():
    code = f"""
import importlib, sys
for name in {LEAN.split()}:
    importlib.import_module(name)
print(*({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_actor_of_checkpoints_starts_without_torch() -> None:
    code = "import hpsearch.execution.checkpoint_store, sys; print(*({'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
