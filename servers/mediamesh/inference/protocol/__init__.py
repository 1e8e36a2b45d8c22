"""What Triton's protocol has beyond a request and its answer: streams, shared memory, classes, settings."""
