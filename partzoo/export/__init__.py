"""Export models and whole part pipelines as programs that run without partzoo: ONNX, ``torch.export``, OpenVINO."""
