"""Denoisers, descriptors, and pipelines of both."""

from hpsearch.models.build import build_denoiser, build_descriptor
from hpsearch.models.pipeline import Pipeline, denoise, describe

__all__ = ["Pipeline", "build_denoiser", "build_descriptor", "denoise", "describe"]
