"""Refuse what an older process on the same Redis would run otherwise than it is meant."""

from __future__ import annotations

from flowd.errors import OlderProcess
from flowd.orchestrator.owner import Owner
from flowd.store import Store


async def expect_no_older_process(store: Store, language: int) -> None:
    """Raises OlderProcess while a worker is enrolled that knows no such language.

    One that says nothing of it, or nothing readable, is older. Costs nothing for language 0.
    """
    if not language:
        return
    for consumer, text in (await store.tasks.owners()).items():
        try:
            owner = Owner.from_json(text)
        except (ValueError, TypeError):
            raise OlderProcess(consumer) from None
        if owner.language < language:
            raise OlderProcess(consumer, owner.host)
