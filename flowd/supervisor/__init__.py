"""Keep the processes of one machine running: fork, watch, replace, and stop gracefully.

The supervisor starts the embedded server and forks the API, the scheduler and the workers. Signals
and orders of the control socket are queued, one loop acts on them. It imports no handler and opens
no connection to Redis: what it forks must inherit nothing it does not want.

May use: api, scheduler and workers as roles to fork, orchestrator.recovery in a process of its own,
config, log. Called by `flowd start`.
"""
