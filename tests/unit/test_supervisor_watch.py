"""What is seen of a child by who looks at it every now and then."""

from __future__ import annotations

import os

from flowd.pulse import Vitals
from flowd.supervisor.watch import Watch


def test_a_look_that_was_held_up_itself_counts_two_of_its_time_at_most() -> None:
    """As behind a machine that was suspended: what has stood still stood still with it."""
    vitals = Vitals()
    watch = Watch(os.getpid(), vitals, 100.0)

    watch.look(101.0, every_s=1.0)
    assert watch.silent_s == 1.0
    watch.look(3701.0, every_s=1.0)
    assert watch.silent_s == 3.0
    watch.look(3702.0, every_s=1.0)
    assert watch.silent_s == 4.0

    vitals.beat()
    watch.look(3703.0, every_s=1.0)
    assert watch.silent_s == 0.0
