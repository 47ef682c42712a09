"""Speak HTTP: the server, authorization, limits, bodies, responses and event streams.

Nothing here knows what a workflow is. The server is uvicorn with bounds of flowd's own: on heads,
bodies and connections. The gate looks at host, origin, token, scope and rate before a route does.

May use: the tree of errors, tokens, config, and contract for the shape of a refusal. Called by
`app`.
"""
