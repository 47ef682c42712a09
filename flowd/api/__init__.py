"""Answer HTTP: take workflows in, and show what became of them.

`app` puts the application together; `routers` has a file for each group of requests, `contract`
what is promised of them, `http` what has nothing to do with workflows. A request is checked by its
route and its token, read within bounds, and handed to the orchestrator or to diagnosis; whatever
goes wrong becomes a problem document in one place.

May use: diagnosis, orchestrator, handlers (to check configs), store, workflow. Knows no worker and
no scheduler: what it changes, it changes in Redis. Any number of API processes may run; they share
nothing. Called by the supervisor, which forks it, and by `flowd api`.
"""
