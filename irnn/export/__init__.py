"""Programs in other languages: C99 sources and ONNX models, by the text of ``irnn.arithmetic`` itself.  No PyTorch."""
