"""Decisions about executions that several roles make: submit, trigger, recover, rerun.

What one script call can do is a method of the store; what takes several is here, so that whoever
begins it, another can carry it on: each step is idempotent and leaves a continuation in Redis.

May use: handlers, store, workflow. Has no process of its own: the API, the workers, the scheduler
and the supervisor's helpers all call it.
"""
