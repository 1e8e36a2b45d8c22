"""What an agent is written with."""
