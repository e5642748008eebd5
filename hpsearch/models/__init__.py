"""Denoisers, descriptors, and pipelines of both."""

from hpsearch.models.pipeline import Pipeline, build_denoiser, build_descriptor, denoise, describe

__all__ = ["Pipeline", "build_denoiser", "build_descriptor", "denoise", "describe"]
