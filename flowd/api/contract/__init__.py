"""Describe what the API promises: routes, models of bodies, problems, the OpenAPI document.

A route says what it takes, answers and may refuse; the OpenAPI document and the reference page are
made from the routes, so that they cannot differ. `problems` has every public code with its status.

May use: workflow for the models of definitions, and the tree of errors. Called by the routers.
"""
