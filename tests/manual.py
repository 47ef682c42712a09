"""The manual as tests read it: README and the pages of flowd/docs, by section."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "flowd" / "docs").glob("*.md"))}
MANUAL = "\n".join((README, *PAGES.values()))


def _sections() -> dict[str, str]:
    """What stands under each heading, up to the next one of any level."""
    found: dict[str, list[str]] = {}
    title, is_code = "", False
    for line in MANUAL.splitlines():
        is_code ^= line.startswith("```")
        heading = re.match(r"#+ (.+)", line)
        if heading and not is_code:
            title = heading[1]
            assert title not in found, f"two sections are called {title!r}"
        else:
            found.setdefault(title, []).append(line)
    return {title: "\n".join(lines) + "\n" for title, lines in found.items()}


SECTIONS = _sections()


def blocks(title: str, language: str) -> list[str]:
    """The examples of one language in a section."""
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[title], re.DOTALL)
