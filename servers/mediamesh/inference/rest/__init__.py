"""The REST twin of the inference protocol: Triton's HTTP addresses, in JSON and with tensors as bytes behind it."""
