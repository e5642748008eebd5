"""Distributed hyperparameter search for learned image-patch descriptors."""

__version__ = "0.1.0"
