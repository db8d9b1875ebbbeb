"""Discovery with the default model by ONNX Runtime, NumPy and Pillow, without torch."""
