"""From a trained module to what engines run: export (extra `train`), INT8, half precision, TensorRT plans."""
