"""Run by `scripts/generate`."""

from __future__ import annotations

import re
from pathlib import Path

from flowd.config.reference import settings_file
from scripts.generating.tables import TABLES

ROOT = Path(__file__).parents[2]

(ROOT / "flowd.toml").write_text(settings_file())
for page, make in TABLES.items():
    file = ROOT / "flowd" / "docs" / f"{page}.md"
    table = make()
    before, head, after = file.read_text().partition(table.partition("\n")[0])
    file.write_text(before + table + re.sub(r"^\n(\|.*\n)*", "", after) if head else before)
