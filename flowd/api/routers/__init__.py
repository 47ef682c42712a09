"""The requests: a file for each group of them, with the routes at its end.

A router reads what was sent, calls one verb of the orchestrator or of diagnosis, and forms the
answer. It holds no state, spells no key and decides nothing about nodes.

May use: contract, http, diagnosis, orchestrator, store, workflow. Called by `app`, which lists
them.
"""
