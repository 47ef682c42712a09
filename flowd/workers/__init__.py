"""Run the nodes: the worker loop, the handlers and what they share."""
