"""How fast flowd is: each workload on a real stack, beside the least the machine could need.

`__main__` reads the command line, `runner` repeats the workloads (`chains`, `crowds`, `wide`,
`rest`, `sleepers`, `http_load`), `figures` says what is measured and what the goals are, `report`
and `picture` show it. A workload drives flowd through `engine`, which also proves that every node
has run exactly once; `floors` holds the bare loops the figures are compared with.
"""
