"""The workflow graph itself: pure, without Redis, clock, process or network."""
