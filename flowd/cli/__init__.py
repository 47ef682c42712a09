"""The command line: a command for whoever runs flowd, and for whoever uses it.

`main` finds a command and imports only its file; `commands` has a file for each group of verbs.
What commands share is beside it: finding the daemon, reading workflow files, tables and live views,
exit codes. Commands that look at executions speak HTTP through `flowd.client`, as anybody could.

May use: everything below; a command imports what it needs when it runs. Called by people, and by
nothing else in flowd.
"""
