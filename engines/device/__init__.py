"""The ways to memory on a device, one module each; `engines.device_memory` knows which there are."""
