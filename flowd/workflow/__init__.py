"""The language of workflows: what may be written, what it means, and nothing else.

`definition` is the form, `validator` finds everything that is wrong with one, `graph` compiles it
to the plan a worker runs from, `templating` fills configs in, `states` has every move that is
legal.

Pure: no Redis, no clock, no process, no network; what a function needs it is given. May use the
tree of errors only. Called by every other room.
"""
