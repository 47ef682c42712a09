"""The `flowd` command; the only place that chooses exit codes."""
