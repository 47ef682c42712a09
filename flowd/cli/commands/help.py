"""`flowd help`: the pages of the manual, on a terminal by its pager."""

from __future__ import annotations

import sys

import click
from click.shell_completion import CompletionItem

from flowd.manual import read_page, topics


class _Topic(click.ParamType[str]):
    name = "topic"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        return [
            CompletionItem(topic, help=title)
            for topic, title in topics().items()
            if topic.startswith(incomplete)
        ]


@click.command("help")
@click.argument("topic", type=_Topic(), required=False)
def help(topic: str | None) -> None:
    """Show a page of the manual, or the list of its pages.

    On a terminal the page opens in the pager, in a pipe it is plain Markdown. For one command, see
    `flowd COMMAND --help`.
    """
    if topic is None:
        click.echo("The pages of the manual; `flowd help TOPIC` shows one:\n")
        width = max(map(len, topics()))
        for name, title in topics().items():
            click.echo(f"  {name:<{width}}  {title}")
        return
    text = read_page(topic)
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    with console.pager(styles=True):
        console.print(Markdown(text), width=min(console.width, 100))
