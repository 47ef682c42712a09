"""The healer and the clock: what no worker can do for itself.

A `Duty` is a thing done again and again (`every_s`, `run`), a file each: `retries` (what is due),
`repairs` (damaged keys, a server that has lost its past, executions nobody counts as active),
`lost_workers`, `continuations`, `reconciler`, `retention`, `sign_of_life`. `scheduler` runs them in
their order; `webhooks` calls back beside them. Any number of schedulers may run at once, on any
hosts.

May use `orchestrator` (recovery, plans, leases), `outgoing` and `store`; the supervisor starts it.
"""
