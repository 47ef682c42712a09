"""The manual: a page of Markdown for each topic, in `docs/`, which comes with the package.

`flowd help` pages it on a terminal, the API serves it under `/docs`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from flowd.errors import UnknownTopic
from flowd.suggestions import did_you_mean

_DOCS = resources.files("flowd") / "docs"


@cache
def topics() -> dict[str, str]:
    """Every topic with the title of its page, in alphabetical order."""
    pages = sorted(one.name.removesuffix(".md") for one in _DOCS.iterdir())
    return {topic: _title_of(_text_of(topic)) for topic in pages}


def read_page(topic: str) -> str:
    """The page's Markdown. Raises UnknownTopic, with a suggestion where one is near."""
    if topic not in topics():
        hint = did_you_mean(topic, topics()) or "; `flowd help` lists them"
        raise UnknownTopic(f"there is no topic {topic!r}{hint}")
    return _text_of(topic)


def _text_of(topic: str) -> str:
    return (_DOCS / f"{topic}.md").read_text(encoding="utf-8")


def _title_of(text: str) -> str:
    heading = re.match(r"# (.+)", text)
    return heading[1] if heading else ""
