"""What the workers of one flowd hear of those of another on their Redis."""

from __future__ import annotations

from dataclasses import replace

from flowd.handlers.registry import built_in_registry
from flowd.orchestrator.enrolment import differing, who_knows
from flowd.orchestrator.owner import Owner

BUILT_IN = built_in_registry().names()
OWN = replace(Owner.of_this_process(), handlers=(*BUILT_IN, "greet"), parent_pid=10, since_ms=1_000)
OTHER = replace(OWN, parent_pid=20, pid=OWN.pid, handlers=(*BUILT_IN, "sum"))


def told(*others: Owner) -> list[str]:
    named = {f"worker-{number}": one for number, one in enumerate((OWN, *others))}
    return list(differing(OWN, named))


def test_another_flowd_with_other_handlers_is_told_once_however_many_workers_it_has():
    (reason,) = told(OTHER, replace(OTHER, since_ms=500))

    assert reason == (
        f"another flowd (process 20 on {OWN.host}, since 1970-01-01 00:00:00Z, 2 workers) takes "
        "nodes from the same Redis and does not know 'greet' and knows 'sum', which this one does "
        "not; give one of the two a redis.port or redis.url of its own, or both the same handlers"
    )


def test_what_is_normal_on_one_redis_is_not_told():
    far = replace(OTHER, host="far")
    same = tuple(reversed(OWN.handlers))
    assert told(replace(far, handlers=same)) == []
    assert told(replace(far, handlers=None)) == []
    assert told(replace(far, queues=("gpu",))) == []
    assert told(replace(OTHER, started_ticks=1)) == []
    # A reload that adds a handler replaces the workers one by one.
    assert told(replace(OTHER, parent_pid=OWN.parent_pid)) == []
    assert len(told(far)) == 1


def test_the_first_worker_of_a_flowd_hears_it_for_all():
    first = replace(OWN, pid=OWN.pid - 1)
    assert told(OTHER, first) == []
    assert len(told(OTHER, replace(first, handlers=BUILT_IN))) == 1


def test_a_handler_is_known_to_who_says_so_and_reads_the_queue():
    owners = {"w1": replace(OTHER, handlers=None), "w2": OWN, "w3": replace(OTHER, queues=("gpu",))}

    assert who_knows("greet", "default", owners) == "w2"
    assert who_knows("sum", "default", owners) is None
    assert who_knows("sum", "gpu", owners) == "w3"
