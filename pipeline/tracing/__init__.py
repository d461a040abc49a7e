"""Write a module as an ONNX graph with free axes, and compare it in onnxruntime."""
