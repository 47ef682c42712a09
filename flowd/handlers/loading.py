"""Load the user's handlers: from `[handlers] modules`, and from installed packages.

A package offers its handlers by an entry point of the group `flowd.handlers` that names a module.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from flowd.config import Settings
from flowd.errors import BadHandlers
from flowd.handlers import Mark
from flowd.handlers.registry import (
    Registry,
    bind,
    built_in_registry,
    marks_of,
    place_of,
)
from flowd.suggestions import did_you_mean

ENTRY_POINT_GROUP = "flowd.handlers"


def open_registry(settings: Settings) -> Registry:
    """Every handler there is. Imports the user's modules; raises BadHandlers when one is bad."""
    marks: dict[str, Mark] = {}
    built_in = built_in_registry().names()
    for module, source in _modules(settings):
        module_marks = list(marks_of(module))
        if not module_marks:
            # A folder without an __init__.py has no file.
            place = getattr(module, "__file__", None) or "a folder that holds no __init__.py"
            raise BadHandlers(
                f"{source} holds no handler (it was read from {place}); "
                'mark its functions with @handler("name")'
            )
        for mark in module_marks:
            _refuse_second(mark, marks.get(mark.name), built_in)
            marks[mark.name] = mark
    return built_in_registry([bind(mark) for mark in marks.values()])


def has_own_handlers(settings: Settings) -> bool:
    """Whether there is anything to import; nothing is imported to find out."""
    return bool(settings.handlers.modules or _entry_points())


def _modules(settings: Settings) -> Iterator[tuple[ModuleType, str]]:
    """Every module with what named it, for messages."""
    folder = settings.handlers.folder
    # Last, so that a file beside the settings never stands in for a library.
    if folder is not None and str(folder) not in sys.path:
        sys.path.append(str(folder))
    for name in settings.handlers.modules:
        origin = f"{settings.handlers.origin}: " if settings.handlers.origin else ""
        source = f"{origin}the module {name!r} of [handlers] modules"
        yield _import(name, source, folder), source
    for entry_point in _entry_points():
        package = f" of {entry_point.dist.name}" if entry_point.dist else ""
        source = f"the entry point {entry_point.name!r}{package} in {ENTRY_POINT_GROUP}"
        yield _import(entry_point.module, source), source


def _entry_points() -> list[EntryPoint]:
    # An editable install may be listed twice.
    return list(dict.fromkeys(entry_points(group=ENTRY_POINT_GROUP)))


def _refuse_second(mark: Mark, first: Mark | None, built_in: tuple[str, ...]) -> None:
    if mark.name in built_in:
        raise BadHandlers(
            f"handler {mark.name!r} is one of flowd's own, and {place_of(mark)} has the same "
            "name; give it another"
        )
    if first is not None and first is not mark:
        raise BadHandlers(
            f"handler {mark.name!r} is defined twice, by {place_of(first)} and by "
            f"{place_of(mark)}; give one of them another name"
        )


def _import(name: str, source: str, folder: Path | None = None) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if not _is_itself(name, error):
            raise BadHandlers(f"{source} cannot be imported:\n{_trace(error)}") from error
        raise BadHandlers(f"{source} is not there: {_searched(name, folder)}") from error
    except (Exception, SystemExit) as error:
        raise BadHandlers(f"{source} cannot be imported:\n{_trace(error)}") from error


def _is_itself(name: str, error: ModuleNotFoundError) -> bool:
    """Whether it, or the package it is in, is what is missing, and nothing that it imports."""
    return error.name is not None and f"{name}.".startswith(f"{error.name}.")


def _searched(name: str, folder: Path | None) -> str:
    """Where a module was looked for, and what is nearest to it there."""
    file = f"{name.replace('.', '/')}.py"
    if folder is None:
        return f"no installed package of {sys.executable} has it"
    near = did_you_mean(name, (one.stem for one in folder.glob("*.py")))
    return f"{folder} has no {file}, and no installed package of {sys.executable} has it{near}"


def _trace(error: BaseException) -> str:
    """The traceback from the first line of the user's on."""
    trace = error.__traceback__
    while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def _is_machinery(file: str) -> bool:
    return file == __file__ or file.startswith("<frozen importlib") or "/importlib/" in file
