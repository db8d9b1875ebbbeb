"""Run models through ONNX Runtime or OpenVINO instead of torch."""
