"""Defaults that commands and the Python API share."""

from pathlib import Path

HOME = Path("runs")
"""Folder for data, searches and MLflow's files."""
MODEL = "patch-descriptor"
"""Name of the model in the MLflow registry."""
