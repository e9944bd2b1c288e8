"""Runs a bundle: numpy, onnxruntime and tokenizers; never torch, onnx or transformers."""

from bitfit_export.runtime.session import BiasSession

__all__ = ["BiasSession"]
