"""bitfit-export: one hard-wired ONNX model, and a small bias row for each task."""

__version__ = "0.1.0"
