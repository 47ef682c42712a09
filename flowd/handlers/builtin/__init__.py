"""The handlers that come with flowd: a file for each.

A worker imports a handler's file when the first node needs it, so its libraries cost nobody else.

May use: outgoing, store.budgets, and what `flowd.handlers` gives. Called through the registry.
"""
