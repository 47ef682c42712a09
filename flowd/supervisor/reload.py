"""Take up new settings while everything runs: what a reload may change, and the reload itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from flowd.config import Settings
from flowd.errors import FlowdError
from flowd.log import get_logger
from flowd.supervisor.crew import Crew
from flowd.supervisor.lineup import Lineup
from flowd.supervisor.process_slot import ProcessSlot
from flowd.supervisor.staffing import Staffing
from flowd.supervisor.trial import Trial

log = get_logger(__name__)

# Everybody has to agree on these, and the children change one after the other; what the address and
# the data directory name was taken at the start.
_FIXED_KEYS = ("api.host", "api.port", "api.socket")
_FIXED_SECTIONS = ("redis", "tasks")


class Reload:
    """`read` makes of the settings what is to run; `on_refused` is called when they are no good.

    `is_rolling` says that children are being replaced because of the last one, `refused` what was
    wrong with its settings: None where nothing was.
    """

    def __init__(
        self,
        read: Callable[[], Lineup],
        crew: Crew,
        staffing: Staffing,
        on_refused: Callable[[], None],
    ) -> None:
        self._read = read
        self._staffing = staffing
        self._on_refused = on_refused
        self._trial = Trial(crew, take_up=self._take_up, refuse=self._refuse)
        self.is_rolling = False
        self.refused: str | None = None

    @property
    def is_under_way(self) -> bool:
        return self.is_rolling or self._trial.is_under_way

    def begin(self, now: float) -> Lineup:
        """Take up new settings, at once or after their trial.

        Raises FlowdError, and changes nothing, when they are no good.
        """
        self.refused = None
        try:
            lineup = self._read()
        except FlowdError as error:
            self._refuse(str(error))
            raise
        if lineup.trial:
            self._trial.begin(lineup, now)
        else:
            self._take_up(lineup)
        return lineup

    def note_trial_end(self, slot: ProcessSlot) -> None:
        """The child of a trial has ended."""
        self._trial.note_end(slot)

    def _take_up(self, lineup: Lineup) -> None:
        self.is_rolling = True
        self._staffing.take_up(lineup)

    def _refuse(self, problems: str) -> None:
        log.error("settings.refused", problems=problems)
        self.refused = problems
        self._on_refused()


def keep_fixed(new: Settings, running: Settings) -> tuple[Settings, list[str]]:
    """The new settings with the fixed ones as they are; the names of those that would change."""
    names = list(_FIXED_KEYS)
    for section in _FIXED_SECTIONS:
        keys = fields(getattr(new, section))
        names += [f"{section}.{one.name}" for one in keys if one.metadata]
    kept = [name for name in names if _value(new, name) != _value(running, name)]
    api = {name.partition(".")[2]: _value(running, name) for name in _FIXED_KEYS}
    sections = {name: getattr(running, name) for name in _FIXED_SECTIONS}
    return replace(new, api=replace(new.api, **api), **sections), kept


def _value(settings: Settings, name: str) -> Any:
    section, _, key = name.partition(".")
    return getattr(getattr(settings, section), key)
