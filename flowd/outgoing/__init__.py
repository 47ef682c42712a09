"""Calls to the world, under the destination policy."""
