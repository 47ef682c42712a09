"""The `flowd` command: finds the subcommand and turns errors into a sentence and an exit code."""

from __future__ import annotations

from importlib import import_module

import click

from flowd import __version__
from flowd.cli.exit_codes import exit_code_of
from flowd.errors import FlowdError, InvalidSettings

# As `flowd --help` shows them.
_GROUPS = {
    "Run a daemon": ("start", "api", "scheduler", "worker", "demo"),
    "Look after it": (
        *("status", "top", "stop", "reload", "restart", "scale", "logs", "doctor"),
        *("config", "token", "handlers", "new"),
    ),
    "Workflows": ("validate", "submit", "run"),
    "Executions": (
        *("ls", "get", "watch", "results", "explain", "events", "diff"),
        *("cancel", "pause", "resume", "rerun", "dlq"),
    ),
    "Shell": ("completion",),
}
_COMMANDS = tuple(name for names in _GROUPS.values() for name in names)
# Commands that share a module; any other lives in the module of its name.
_MODULES = {
    **dict.fromkeys(("api", "scheduler", "worker"), "role"),
    **dict.fromkeys(("stop", "reload", "restart", "scale"), "control"),
    **dict.fromkeys(("validate", "submit", "run"), "submit"),
    **dict.fromkeys(("ls", "get", "watch", "results", "explain"), "executions"),
    **dict.fromkeys(("cancel", "pause", "resume", "rerun"), "holds"),
}


class _Commands(click.Group):
    """Imports a subcommand when it is used: `flowd status` should not load what `demo` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"flowd.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in _GROUPS.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                rows.append((name, command.get_short_help_str(70) if command else ""))
            with formatter.section(title):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except FlowdError as error:
            click.echo(f"flowd: {_sentence(error)}", err=True)
            ctx.exit(exit_code_of(error))


def _sentence(error: FlowdError) -> str:
    if isinstance(error, InvalidSettings):
        lines = "".join(f"\n  {problem}" for problem in error.problems)
        return f"the settings cannot be used:{lines}"
    return str(error)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Run workflows that are submitted over HTTP, and lose none."""


if __name__ == "__main__":
    main(prog_name="flowd")
