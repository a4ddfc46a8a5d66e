"""The page of ONNX files."""
