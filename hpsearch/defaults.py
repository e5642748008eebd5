"""Defaults that commands and the Python API share."""

from pathlib import Path

DEFAULT_HOME = Path("runs")
"""Folder for data, searches and MLflow's files."""
CLUSTER_HOME = "~/hpsearch"
"""Home of a search on a cluster, unless another is given."""
HOME_ENV = "HPSEARCH_HOME"
"""Environment variable that names the home where ``--home`` does not."""
DEFAULT_MODEL_NAME = "patch-descriptor"
"""Name of the model in the MLflow registry."""
SPEC_FILE = "pipeline.json"
"""Settings of the networks, in the folder of a saved pipeline."""
BUILT_IN_MODELS = {"hpsearch-base": Path(__file__).parent / "models" / "base"}
"""Folders of the pipelines that are part of the package, by name."""
ROOT_SIFT = "rootsift"
"""Name of the classical descriptor where a model may be given."""
