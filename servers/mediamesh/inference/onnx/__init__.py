"""The backend that runs ONNX files with onnxruntime."""
