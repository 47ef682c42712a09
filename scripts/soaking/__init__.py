"""A soak: executions by the thousand on two hosts' worth of flowd, faults all the time, the proof.

`__main__` reads the command line and `soak` runs it: `load` submits workflows of random shape to
two `hosts` on one server, `faults` injects what may go wrong, `ledger` and `handlers` record every
outside call, `checker` says what does not hold once all is healed, `report` shows it.
"""
