"""Explain why something does not run, and check that what is stored is consistent.

`explain` gives reasons for one execution or node, `doctor` compares all keys with what must hold,
`observer` reads many at once, `readiness` says whether this flowd can work. All of it only reads,
and in bounded slices: it may be asked while everything is on fire.

May use: orchestrator, store, workflow. Called by the API and by `flowd doctor`.
"""
