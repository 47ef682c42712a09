"""A soak: thousands of executions on two hosts' worth of flowd, faults all the time, then the proof."""
