"""What the API needs to judge a node's handler and config at submit, without knowing handlers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import orjson

from flowd import __version__
from flowd.config import Settings
from flowd.errors import Problem
from flowd.handlers.config import find_config_problems
from flowd.handlers.registry import Handler, Registry

# Called with the node's config and the node's path, `dag.nodes[2]`.
ConfigCheck = Callable[[dict[str, Any], str], list[Problem]]


def config_checks(registry: Registry, settings: Settings) -> Mapping[str, ConfigCheck | None]:
    """Of every handler how its config is checked; None takes any. Imports all of them."""
    return dict(ConfigChecks(registry, settings))


class ConfigChecks(Mapping[str, ConfigCheck | None]):
    """As config_checks, but each handler is imported when it is asked for: what no workflow names
    takes no time."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        self._names = dict.fromkeys(registry.names())

    def __getitem__(self, name: str) -> ConfigCheck | None:
        if name not in self._names:
            raise KeyError(name)
        return _check_of(self._registry.load(name), self._settings)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def handlers_digest(handlers: Mapping[str, Any]) -> str:
    """Names what a workflow was checked against: the handlers there are, and what their configs
    may be. Where it is another, an equal definition has to be checked again."""
    shapes = {name: _shape(check) for name, check in handlers.items()}
    written = orjson.dumps([__version__, shapes], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(written, digest_size=8).hexdigest()


def _shape(check: Any) -> Any:
    if not isinstance(check, partial):
        return None if check is None else getattr(check, "__name__", "")
    model = check.args[0].model
    try:
        return model.model_json_schema()
    except Exception:  # noqa: BLE001 - somebody else's model need not have one
        return f"{model.__module__}.{model.__qualname__}"


def find_schema_flaw(schema: dict[str, Any]) -> str | None:
    """As in json_schema, which takes its time to import, and most workflows have none."""
    from flowd.handlers.json_schema import find_schema_flaw

    return find_schema_flaw(schema)


def _check_of(handler: Handler, settings: Settings) -> ConfigCheck | None:
    if handler.name == "shell" and not settings.handlers.shell.enabled:
        return _refuse_shell
    return None if handler.model is None else partial(_check, handler)


def _refuse_shell(_config: dict[str, Any], path: str) -> list[Problem]:
    from flowd.handlers.limits import SHELL_IS_OFF

    return [Problem(f"{path}.handler", "handler_off", SHELL_IS_OFF)]


def _check(handler: Handler, config: dict[str, Any], path: str) -> list[Problem]:
    assert handler.model is not None
    return find_config_problems(handler.model, config, f"{path}.config")
