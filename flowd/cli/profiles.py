"""Profiles: the flowds on other machines, with a name, an address and a token for each.

They are in the user's own `config.toml`, which nobody else may read.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from flowd.errors import InvalidSettings, Problem
from flowd.suggestions import did_you_mean

VARIABLE: Final = "FLOWD_PROFILE"
_KEYS: Final = ("url", "token")
_EXAMPLE: Final = '[profiles.NAME] with url = "https://…" and token = "flowd_…"'
_PROFILE: Final = "flowd.profile"


class Destination(NamedTuple):
    """A flowd, and the token for it; without one it is FLOWD_TOKEN's turn."""

    url: str
    token: str | None = None


def _take(ctx: click.Context, _option: click.Parameter, name: str | None) -> None:
    if name is not None:
        ctx.meta[_PROFILE] = name


def _complete(
    _ctx: click.Context, _option: click.Parameter, incomplete: str
) -> Iterator[CompletionItem]:
    try:
        names = sorted(_read_profiles(profiles_file()))
    except (InvalidSettings, OSError):
        names = []
    return (CompletionItem(name) for name in names if name.startswith(incomplete))


profile_option: Final[Callable[[Callable[..., None]], Callable[..., None]]] = click.option(
    "--profile",
    metavar="NAME",
    expose_value=False,
    callback=_take,
    shell_complete=lambda *asked: list(_complete(*asked)),
    help="Profile of config.toml that says where flowd is, with its token. Also FLOWD_PROFILE.",
)


def names_profile(ctx: click.Context) -> bool:
    """Whether the command line does."""
    return _PROFILE in ctx.meta


def locate(ctx: click.Context, url: str | None, *, has_token: bool) -> Destination:
    """The flowd a command is about: the command line decides before the environment, and this
    before the folder and the machine.

    `has_token`: what the folder says is sent a token, and so comes from somebody who may have it.
    """
    if name := ctx.meta.get(_PROFILE):
        if url and ctx.get_parameter_source("url") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--url and --profile each name a flowd; give one of them")
        return find_profile(name)
    if url:
        return Destination(url)
    if name := os.environ.get(VARIABLE):
        return find_profile(name)
    from flowd.cli.at_home import ask_at_home

    if address := ask_at_home(has_token=has_token):
        return Destination(address)
    from flowd.cli.running import find_api

    return Destination(find_api(has_token=has_token))


def profiles_file() -> Path:
    """As the XDG Base Directory Specification has it."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(folder if os.path.isabs(folder) else "~/.config").expanduser() / "flowd/config.toml"  # noqa: PTH117


def find_profile(name: str) -> Destination:
    """Raises InvalidSettings where there is none of this name, or others may read its token."""
    file = profiles_file()
    profiles = _read_profiles(file)
    if name not in profiles:
        hint = did_you_mean(name, profiles) or f"; write {_EXAMPLE.replace('NAME', name)}"
        raise _refused(file, f"there is no profile {name!r}{hint}")
    return Destination(**profiles[name])


def _read_profiles(file: Path) -> dict[str, dict[str, str]]:
    try:
        with file.open("rb") as opened:
            _check_owner(file, os.fstat(opened.fileno()))
            document = tomllib.loads(opened.read().decode("utf-8-sig"))
    except FileNotFoundError:
        raise _refused(file, f"there is no such file; write one, {_EXAMPLE}") from None
    except OSError as error:
        raise _refused(file, f"it cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _refused(file, f"it is not TOML: {error}") from None
    profiles = document.pop("profiles", {})
    if document or not isinstance(profiles, dict):
        raise _refused(file, f"it holds profiles and nothing else: {_EXAMPLE}")
    for name, profile in profiles.items():
        _check_profile(file, name, profile)
    return profiles


def _check_owner(file: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise _refused(file, "it belongs to another user, who would learn what you send")
    if found.st_mode & 0o077:
        mode = f"{stat.S_IMODE(found.st_mode):03o}"
        raise _refused(file, f"others may read its tokens (mode {mode}); run `chmod 600 {file}`")


def _check_profile(file: Path, name: str, profile: Any) -> None:
    """The text of a token is in no message."""
    table = profile if isinstance(profile, dict) else {}
    for key in table:
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or "; a profile has url and token"
            raise _refused(file, f"profiles.{name}: unknown key {key!r}{hint}")
    if not (table.get("url") and all(isinstance(value, str) for value in table.values())):
        raise _refused(file, f"profiles.{name} has no url, or what is no text; {_EXAMPLE}")


def _refused(file: Path, message: str) -> InvalidSettings:
    return InvalidSettings([Problem(str(file), "bad_value", message)])
