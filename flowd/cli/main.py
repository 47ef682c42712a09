"""The `flowd` command: finds the subcommand and turns errors into a sentence and an exit code."""

from __future__ import annotations

import errno
import sys
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from flowd import __version__
from flowd.cli.exit_codes import FAILED, INTERRUPTED, exit_code_of
from flowd.errors import FlowdError, InvalidSettings
from flowd.suggestions import nearest

# As `flowd --help` shows them; repeated here, because importing every command for its text would
# take longer than most of them do.
_GROUPS = {
    "Run a daemon": {
        "start": "Run the API, the scheduler and the workers",
        "api": "Serve only the HTTP API",
        "scheduler": "Run only the scheduler",
        "worker": "Run only one worker",
        "demo": "Run the sample workflows on a private flowd",
        "install": "Install flowd as a service of this machine",
        "uninstall": "Take the installed flowd off this machine",
    },
    "Operate it": {
        "status": "Show the processes of the running flowd",
        "top": "Show the processes and their CPU and memory, live",
        "ui": "Print the address of the dashboard",
        "stop": "Stop the running flowd gracefully",
        "reload": "Read the settings again and replace every process",
        "restart": "Replace one process, such as worker-2, or all of them",
        "scale": "Change the number of workers",
        "logs": "Show what the nodes of an execution say",
        "doctor": "Check that everything flowd keeps in Redis is consistent",
        "backup": "Back up the data of flowd while it runs",
        "restore": "Put a backup back in its place",
        "redis-cli": "Run redis-cli on the Redis that flowd uses",
        "config": "Check, show or write the settings",
        "token": "Create, list and revoke the tokens of the API",
        "handlers": "List all handlers, or show one",
        "new": "Write NAME.py, a module with two example handlers",
    },
    "Workflows": {
        "validate": "Check workflows, and list everything that is wrong with them",
        "apply": "Save what files hold: definitions, schedules and limits",
        "schema": "Print the JSON Schema of workflow files, for editors",
        "submit": "Submit a workflow, and print the id of its execution",
        "trigger": "Start an execution that was submitted",
        "run": "Run a workflow, from a file or saved, and follow it",
        "definitions": "List, show, save and delete saved workflows",
    },
    "Schedules": {
        "schedules": "List, change, hold up and run schedules",
        "limits": "List, show, make and lift limits",
        "cache": "Show and clear the outputs that are kept for equal calls",
    },
    "Executions": {
        "now": "Show what needs you: what failed, waits or was given up",
        "ls": "List executions, the newest first",
        "get": "Show one execution and its nodes",
        "definition": "Print the workflow of an execution as it was submitted",
        "watch": "Follow an execution until it ends",
        "results": "Print the outputs of an execution, or of one node",
        "items": "List the items of a node with `map`",
        "explain": "Explain why an execution, or one of its nodes, does not run",
        "events": "Print the events of an execution, or of all",
        "diff": "Compare two executions",
        "signal": "Send data to a node that waits for a signal",
        "approve": "Approve a node that waits for a signal",
        "reject": "Reject a node that waits for a signal; it fails",
        "cancel": "Cancel an execution; running nodes are told to stop",
        "pause": "Pause an execution; running nodes finish",
        "resume": "Resume a paused execution",
        "rerun": "Run an ended execution again, as a new one",
        "act": "Cancel, pause, resume, rerun or delete many executions",
        "rm": "Delete an execution, with its outputs and events",
        "dlq": "List, show, redrive and delete dead letters",
    },
    "Help": {
        "help": "Show a page of the manual, or the list of its pages",
        "completion": "Print the completion script of a shell",
    },
}
_COMMANDS = {name: text for commands in _GROUPS.values() for name, text in commands.items()}
# What others call what a command does.
_MEANT = {
    **dict.fromkeys(("retry", "redo", "replay"), "rerun"),
    **dict.fromkeys(("list", "ps"), "ls"),
    **dict.fromkeys(("show", "describe", "inspect"), "get"),
    **dict.fromkeys(("delete", "remove"), "rm"),
    **dict.fromkeys(("kill", "abort", "terminate"), "cancel"),
    **dict.fromkeys(("serve", "up"), "start"),
    "down": "stop",
    "check": "validate",
    "save": "apply",
    "workflows": "definitions",
    "dead-letters": "dlq",
    "dashboard": "ui",
}
# Commands that share a module; any other lives in the module of its name.
_MODULES = {
    **dict.fromkeys(("api", "scheduler", "worker"), "roles"),
    **dict.fromkeys(("backup", "restore"), "backup"),
    **dict.fromkeys(("stop", "reload", "restart", "scale"), "control"),
    **dict.fromkeys(("install", "uninstall"), "install"),
    **dict.fromkeys(("submit", "trigger", "run"), "submit"),
    **dict.fromkeys(("ls", "get", "definition", "watch", "results", "explain"), "executions"),
    **dict.fromkeys(("signal", "approve", "reject"), "signals"),
    **dict.fromkeys(("cancel", "pause", "resume", "rerun", "rm"), "lifecycle"),
}


class _Commands(click.Group):
    """Imports a subcommand when it is used: `flowd status` should not load what `demo` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        module = import_module(f"flowd.cli.commands.{_MODULES.get(cmd_name, name)}")
        command: click.Command = getattr(module, name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = _MEANT.get(args[0]) or nearest(args[0], _COMMANDS)
            if near is None:
                raise
            message = f"{error.message} Did you mean {near!r}?"
            raise click.UsageError(message, ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, commands in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        return [
            CompletionItem(name, help=text)
            for name, text in _COMMANDS.items()
            if name.startswith(incomplete)
        ]

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except click.ClickException as error:
            _show(error)
            sys.exit(error.exit_code)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            _show(error)
            ctx.exit(error.exit_code)
        except FlowdError as error:
            click.echo(f"flowd: {_sentence(error)}", err=True)
            ctx.exit(exit_code_of(error))
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            click.echo(f"flowd: cannot write: {error.strerror}", err=True)
            ctx.exit(FAILED)


def _show(error: click.ClickException) -> None:
    """As click does, but every message of ours begins in one way."""
    if type(error).show not in (click.ClickException.show, click.UsageError.show):
        error.show()
        return
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"`{error.ctx.command_path} --help` says more\n", err=True)
    click.echo(f"flowd: {error.format_message()}", err=True)


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
