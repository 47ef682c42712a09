"""What is saved, what holds executions and nodes back, and what spares nodes their calls."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowd.diagnosis.cache_check import CacheView, look_at_cache
from flowd.diagnosis.place_check import PlacesView, look_at_places
from flowd.diagnosis.schedule_check import ScheduleStanding, schedules_of
from flowd.diagnosis.set_check import SetsView, look_at_sets
from flowd.store import Store


@dataclass(slots=True)
class Held:
    schedules: list[ScheduleStanding] = field(default_factory=list)
    places: PlacesView = field(default_factory=PlacesView)
    cache: CacheView = field(default_factory=CacheView)
    sets: SetsView = field(default_factory=SetsView)

    @classmethod
    async def look(cls, store: Store) -> Held:
        return cls(
            await schedules_of(store),
            await look_at_places(store),
            await look_at_cache(store),
            await look_at_sets(store),
        )
