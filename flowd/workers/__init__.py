"""Run nodes: a worker takes entries from the stream, calls handlers, and commits what came out.

The main street: `intake` receives an entry and gathers what its node needs, `slots` calls the
handler, `node_run` says how it ended, and `shift` commits that and takes the next entries in one
call to Redis; `settlement` does what follows from it. `worker` is the process around a shift: its
lease, its heartbeat, its drain.

May use: orchestrator, handlers, store, workflow, pulse. Knows no other worker: what two of them
would have to agree on, a script decides. Called by the supervisor and by `flowd worker`.
"""
