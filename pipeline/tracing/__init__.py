"""A module as an ONNX graph with free axes, held against onnxruntime."""
