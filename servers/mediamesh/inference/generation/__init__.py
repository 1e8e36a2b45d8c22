"""Generative models: a decoder with a KV cache, whose requests join and leave the running batch at every step."""
