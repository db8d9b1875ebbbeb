"""Trace modules as programs with named inputs, outputs and free sizes, and write them as ONNX."""
