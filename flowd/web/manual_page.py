"""Render a page of the manual as HTML. It has no scripts and loads nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

from markdown_it import MarkdownIt
from markdown_it.token import Token

from flowd.web.reference_page import STYLE


def manual_page(topic: str, text: str, topics: Mapping[str, str]) -> str:
    """`text` is Markdown; `topics` are the titles of all pages, for the contents."""
    contents = "".join(
        f'<a href="{escape(name)}">{escape(title)}</a>' for name, title in topics.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>flowd: {escape(topics[topic])}</title><style>{STYLE}</style></head><body>"
        f'<nav><b>Manual</b>{contents}<b><a href="../docs">HTTP API, request by request</a></b>'
        f"</nav><main>{_html(text)}</main></body></html>"
    )


def _html(text: str) -> str:
    """The pages are flowd's own, yet HTML in them is shown as text all the same."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _anchor(tokens[index + 1].content))
        for child in token.children or ():
            _lead_to_page(child)
    html: str = markdown.renderer.render(tokens, markdown.options, {})
    return html


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _lead_to_page(token: Token) -> None:
    """Links between the files are links between the pages."""
    href = token.attrGet("href")
    if isinstance(href, str) and "://" not in href:
        token.attrSet("href", re.sub(r"\.md(?=#|$)", "", href))
