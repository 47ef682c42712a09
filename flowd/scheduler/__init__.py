"""The healer and the clock: what no worker can do for itself."""
