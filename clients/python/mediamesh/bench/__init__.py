"""Load on inference servers, and what came of it as tables and plots."""
