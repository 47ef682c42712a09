"""The decisions between states. This room holds none: what it knows it has read or was told."""
