"""config.pbtxt: read, held against what this server does, and completed from the model."""
