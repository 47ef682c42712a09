"""What a rerun would do, node by node."""

from __future__ import annotations

from typing import Any

from flowd.cli.remote import show_json, show_table

_FATES = {"runs": "runs", "reused": "is reused", "left_out": "stays failed"}


def show_preview(answer: dict[str, Any], output: str) -> None:
    if output == "json":
        show_json(answer)
        return
    rows = [
        (one["node_id"], fate, one["why"]) for name, fate in _FATES.items() for one in answer[name]
    ]
    show_table(("NODE", "", "WHY"), rows)
