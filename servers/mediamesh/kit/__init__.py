"""What every server is made of: settings, logs, telemetry, the boundary, and serving."""
