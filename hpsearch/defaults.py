"""Defaults that commands and the Python API share."""

from pathlib import Path

DEFAULT_HOME = Path("runs")
"""Folder for data, searches and MLflow's files."""
DEFAULT_MODEL_NAME = "patch-descriptor"
"""Name of the model in the MLflow registry."""
