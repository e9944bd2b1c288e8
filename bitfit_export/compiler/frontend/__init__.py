"""A PyTorch model becomes an ONNX graph."""
