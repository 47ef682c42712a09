"""Import the user's handlers once in a process that ends at once: does it work, what is wrong?

The supervisor itself never imports them: what they start, a thread or a connection, would be shared
by every child it forks.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

from flowd.config import Settings
from flowd.errors import BadHandlers
from flowd.handlers.limits import IMPORT_LIMIT_S
from flowd.handlers.loading import has_own_handlers, open_registry

_fork = multiprocessing.get_context("fork")


def try_handlers(settings: Settings) -> None:
    """Raises BadHandlers when they cannot be used. From the main thread, before there are others.

    Costs nothing where the user has none.
    """
    if not has_own_handlers(settings):
        return
    answer, answer_end = _fork.Pipe(duplex=False)
    process = _fork.Process(target=_try, args=(settings, answer_end), daemon=True)
    process.start()
    answer_end.close()
    try:
        problem = _await_answer(answer)
    finally:
        process.kill()
        process.join()
        answer.close()
    if problem:
        raise BadHandlers(problem)


def _await_answer(answer: Connection) -> str:
    """What is wrong; empty when nothing is."""
    if not answer.poll(IMPORT_LIMIT_S):
        return f"the modules of [handlers] were not imported within {IMPORT_LIMIT_S:g} s"
    try:
        return str(answer.recv())
    except EOFError:
        return "a module of [handlers] ended the process that imported it"


def import_handlers(settings: Settings) -> None:
    """Everything that can be wrong with them is found. Raises BadHandlers."""
    from flowd.handlers.config_checks import config_checks

    config_checks(open_registry(settings), settings)


def _try(settings: Settings, answer: Connection) -> None:
    problem = ""
    try:
        import_handlers(settings)
    except BadHandlers as error:
        problem = str(error)
    answer.send(problem)
