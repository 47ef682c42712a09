"""How much of each workload is run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """As the workloads are defined, by default; `rounds` alternate within one repetition."""

    chain: int = 100
    chain_rounds: int = 10
    fan: int = 1000
    fan_rounds: int = 5
    diamonds: int = 1000
    diamond_rounds: int = 3
    rest_s: float = 10.0
    singles: int = 200
    sleepers: int = 10_000
    pairs_of_one: int = 1000
    clients: int = 32
    pairs_of_many: int = 6000
    wide_fan: int = 10_000
    long_chain: int = 10_000
    diamonds_at_once: int = 15_000
    chains_at_once: int = 400
    schedules: int = 10_000
    due_at_once: int = 500
    children: int = 1000
    naps: int = 1000
    starts: int = 1000
    held: int = 100_000


TINY = Sizes(
    chain=5,
    chain_rounds=1,
    fan=20,
    fan_rounds=1,
    diamonds=5,
    diamond_rounds=1,
    rest_s=0.1,
    singles=3,
    sleepers=10,
    pairs_of_one=3,
    clients=2,
    pairs_of_many=6,
    # More than one call opens, so that the continuation runs too.
    wide_fan=600,
    long_chain=20,
    diamonds_at_once=10,
    chains_at_once=4,
    schedules=10,
    due_at_once=5,
    children=4,
    naps=20,
    starts=10,
    held=20,
)
