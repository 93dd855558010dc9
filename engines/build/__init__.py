"""From a trained module to files that engines run: export to ONNX, quantise. Needs the extra `train`."""
