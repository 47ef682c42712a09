"""One soak: deal faults while clients submit, heal, and prove what has to hold."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis as redis_py

from flowd.store.attempt_records import parse_record
from flowd.store.redis import keys
from flowd.workflow.graph import nodes_of
from flowd.workflow.states import ExecutionState, NodeState
from scripts.soaking import checker, families
from scripts.soaking.applies import Applies
from scripts.soaking.cache_checks import hit_of
from scripts.soaking.clients import Clients
from scripts.soaking.faults import APPLY, FAILOVERS, UPGRADES, Fault, Hand, missing
from scripts.soaking.gates import check_answers
from scripts.soaking.hosts import (
    APIS,
    OTHER_VERSION,
    WORKERS,
    Host,
    Server,
    WatchedServer,
    unpack_other_version,
)
from scripts.soaking.ledger import START, Ledger, Note
from scripts.soaking.limit_checks import (
    QUEUES,
    check_changes,
    check_rates,
    check_readers,
)
from scripts.soaking.schedules import check_runs, check_times, pause_schedules, put_schedules
from scripts.soaking.shapes import expected_states, expected_status

HOSTS = ("one", "two")
CLIENTS = 3
ACTIVE_MAX = 40
# Long enough for a lease to run out and for the nodes behind it.
HEAL_LIMIT_S = 120.0
OVERTIME_S = 20.0
GIVEN_UP = "workers died while they ran this node"
GIVEN_UP_AFTER = 3


@dataclass
class Outcome:
    """What a soak has seen; `violations` are sentences, and none is what is hoped for."""

    seed: int
    minutes: float
    kinds: Sequence[str]
    faults: list[Fault] = field(default_factory=list)
    ledger: Sequence[Note] = ()
    definitions: Mapping[str, Any] = field(default_factory=dict)
    executions: int = 0
    children: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    given_up: int = 0
    refused: int = 0
    signals: int = 0
    cached: int = 0
    unanswered: int = 0
    healed_after_s: float = 0.0
    violations: list[str] = field(default_factory=list)
    folder: str = ""

    @property
    def missing(self) -> list[str]:
        """Kinds that were asked for and never happened: then the soak proves nothing."""
        return missing(self.kinds, self.faults)

    @property
    def exit_code(self) -> int:
        if self.violations:
            return 1
        return 2 if self.missing else 0


def soak(seed: int, minutes: float, kinds: Sequence[str]) -> Outcome:
    """Its files stay where they are, in the outcome's folder, when something does not hold."""
    folder = Path(tempfile.mkdtemp(prefix="flowd-soak-"))
    other_version = unpack_other_version(folder)
    if other_version is None and UPGRADES in kinds:
        # A clone without history; everything else can be shown all the same.
        print(f"NOT SHOWN: {UPGRADES}, as this clone has no commit {OTHER_VERSION}")
        kinds = [kind for kind in kinds if kind != UPGRADES]
    outcome = Outcome(seed, minutes, kinds, folder=str(folder))
    with ExitStack() as open_things:
        ledger = open_things.enter_context(Ledger(folder / "ledger.sock", folder / "ledger"))
        server = WatchedServer(folder) if FAILOVERS in kinds else Server(folder)
        open_things.callback(server.close)
        server.start()
        # Workers of the other version run a node that chooses as if it did not.
        may_choose = UPGRADES not in kinds
        queues = QUEUES if may_choose else ()
        hosts = [Host(folder, name, server, ledger.path, other_version, queues) for name in HOSTS]
        for host in hosts:
            host.start()
            open_things.callback(host.kill_supervisor)
        for host in hosts:
            host.wait_until_ready()
        clients = Clients(hosts, seed, count=CLIENTS, active_max=ACTIVE_MAX, may_choose=may_choose)
        with server.client() as client:
            firsts = put_schedules(clients, client)
        if may_choose:
            clients.save(families.SAVED)
            clients.put_limits()
        applies = Applies(folder / "applied", seed)
        hand = Hand(kinds, seed, hosts, server, clients, applies, seconds=minutes * 60)
        open_things.callback(hand.close)
        _run(outcome, minutes * 60, clients, hand, server)
        with server.client() as client:
            outcome.violations += check_times(client, firsts)
        pause_schedules(clients)
        if APPLY in kinds:
            outcome.violations += applies.settle(hosts)
        healed_at = time.monotonic()
        outcome.violations += _heal(hosts, server, clients)
        outcome.healed_after_s = time.monotonic() - healed_at
        with server.client() as client:
            outcome.violations += check_runs(client, firsts)
            if APPLY in kinds:
                outcome.violations += applies.check(client)
        _check(outcome, hosts, server, clients, ledger)
    return outcome


def _run(outcome: Outcome, seconds: float, clients: Clients, hand: Hand, server: Server) -> None:
    until = time.monotonic() + seconds
    clients.start()
    hand.start()
    # A kind that had no chance so far is given a little longer.
    while (now := time.monotonic()) < until or (hand.missing() and now < until + OVERTIME_S):
        try:
            with server.client() as client:
                clients.note_active(client.scard(keys.ACTIVE))
        except redis_py.RedisError:
            pass
        time.sleep(0.05)
    hand.stop()
    clients.stop()
    outcome.faults = hand.faults
    outcome.violations += [f"a fault could not be injected: {error!r}" for error in hand.errors]
    outcome.refused, outcome.unanswered = clients.refused, clients.unanswered
    outcome.signals = len(clients.answers)


def _heal(hosts: Sequence[Host], server: Server, clients: Clients) -> Iterator[str]:
    """Wait until all is quiet; what is not in time."""
    deadline = time.monotonic() + HEAL_LIMIT_S
    with server.client() as client:
        for host in hosts:
            while not host.is_ready():
                if host.has_ended:
                    yield f"the supervisor of {host.name} has ended; its log is in {host.folder}"
                    break
                if time.monotonic() > deadline:
                    yield f"{host.name} is not ready, {HEAL_LIMIT_S:g} s after the last fault"
                    break
                time.sleep(0.05)
        _let_go(client, hosts[0], clients.acknowledged)
        # Nobody is to wait for a limit that holds everybody.
        clients.lift_tide()
        while noise := _noise(client, hosts):
            if time.monotonic() > deadline:
                for one in noise:
                    yield f"{one}, {HEAL_LIMIT_S:g} s after the last fault"
                return
            time.sleep(0.1)


def _let_go(client: redis_py.Redis, host: Host, known: Collection[str]) -> None:
    """Resume what is still paused: an API that was frozen does what it was asked before when it
    thaws, and so a pause may come after the resumption that was meant to end it. So may a rerun
    that was asked for anew elsewhere: its signals went to the other one, and it is cancelled."""
    for execution_id in client.smembers(keys.ACTIVE):
        if client.get(keys.status(execution_id)) == "PAUSED":
            host.request("POST", f"/workflows/{execution_id}/resume")
        rerun_of, parent = client.hmget(keys.run(execution_id), "rerun_of", "parent")
        if rerun_of and not parent and execution_id not in known:
            host.request("POST", f"/workflows/{execution_id}/cancel")


def _noise(client: redis_py.Redis, hosts: Sequence[Host]) -> list[str]:
    """What is not as it is while nothing runs."""
    group = checker.GROUP
    readers, workers = len(hosts) * WORKERS, sum(host.workers for host in hosts)
    counts = {
        "executions that run": (client.scard(keys.ACTIVE), 0),
        "entries in the stream": (client.xlen(checker.STREAM), 0),
        "entries that are pending": (client.xpending(checker.STREAM, group)["pending"], 0),
        "consumers": (len(client.xinfo_consumers(checker.STREAM, group)), readers),
        "leases": (client.hlen(keys.LEASES), workers),
        "owners": (client.hlen(keys.WORKERS), workers),
        "continuations": (client.zcard(keys.CONTINUATIONS), 0),
        "retries": (client.zcard(keys.RETRIES), 0),
        "nodes held back": (len(list(client.scan_iter("workflow:*:parked", count=1000))), 0),
    }
    return [
        f"there are {count} {what} and not {wanted}"
        for what, (count, wanted) in counts.items()
        if count != wanted
    ]


def _check(
    outcome: Outcome, hosts: Sequence[Host], server: Server, clients: Clients, ledger: Ledger
) -> None:
    outcome.ledger = ledger.notes()
    outcome.definitions = clients.acknowledged
    outcome.executions = len(clients.acknowledged)
    times = [fault.began_at for fault in outcome.faults] + _deaths(outcome)
    with server.client() as client:
        outcome.violations += checker.find_violations(
            client,
            clients.acknowledged,
            outcome.ledger,
            faults=times,
            excused=clients.doomed,
            may_lack_lines=any(fault.kind == "fill_redis" for fault in outcome.faults),
        )
        outcome.violations += _check_deleted(client, clients)
        outcome.violations += _check_shapes(outcome, client, clients)
        kept = [one for one in clients.acknowledged if one not in clients.doomed]
        executions = {one.id: one for one in checker.read_executions(client, kept)}
        outcome.violations += check_answers(executions.values(), clients.answers, clients.settled)
        outcome.violations += _check_limits(outcome, executions, clients)
    for host in hosts:
        wanted = {"worker": host.workers, "api": APIS, "scheduler": 1}
        found = checker.check_processes(host.status(), wanted)
        outcome.violations += [f"{host.name}: {one}" for one in found]


def _check_limits(
    outcome: Outcome, executions: Mapping[str, checker.Execution], clients: Clients
) -> Iterator[str]:
    frozen = {
        pid
        for fault in outcome.faults
        if fault.kind in ("freeze_worker", "freeze_host")
        for pid in fault.pids
    }
    yield from check_changes(executions, outcome.ledger, clients.tides, frozen)
    yield from check_rates(executions, outcome.ledger, frozen)
    yield from check_readers(executions)


def _deaths(outcome: Outcome) -> list[float]:
    """When nodes killed their workers."""
    poisonous = {
        (execution_id, node["id"])
        for execution_id, definition in outcome.definitions.items()
        for node in nodes_of(definition)
        if node["handler"] == "ledger_poison"
    }
    return [note.at_s for note in outcome.ledger if note.phase == START and note.node in poisonous]


def _check_deleted(client: redis_py.Redis, clients: Clients) -> Iterator[str]:
    """That nothing is left of what was deleted, nor of its children."""
    yield from families.check_deleted(families.kins_of(client), clients.deleted)
    for execution_id in clients.deleted:
        if left := list(client.scan_iter(f"workflow:{execution_id}*", count=10_000)):
            yield f"{execution_id}: it was deleted, and {left[0]} is left"


def _attempt_of(execution: checker.Execution, node_id: str) -> int:
    """As recorded: no ledger knows an attempt whose worker died before it called the handler."""
    record = parse_record(execution.attempts.get(node_id))
    return (record and record.attempt) or 0


def _given_up(execution: checker.Execution) -> list[str]:
    """Nodes whose workers died again and again, or those of what they run."""
    return [
        one
        for one, output in execution.outputs.items()
        if GIVEN_UP in (output or "")
        and (
            _attempt_of(execution, one) >= GIVEN_UP_AFTER
            or execution.written[one]["handler"] == families.HANDLER
        )
    ]


# What a node of a cancelled execution may have come to.
_ENDED = tuple(state for state in NodeState if state.is_terminal)


def _check_shapes(outcome: Outcome, client: redis_py.Redis, clients: Clients) -> Iterator[str]:
    """That each execution ended as its shape demands, and so did its children."""
    kept = [one for one in clients.acknowledged if one not in clients.doomed]
    roots = {one: kin.root_id for one, kin in families.kins_of(client).items()}
    kept += [one for one, root_id in roots.items() if root_id in set(kept)]
    for execution in checker.read_executions(client, kept):
        status = execution.status or "gone"
        outcome.statuses[status] = outcome.statuses.get(status, 0) + 1
        is_child = execution.id in roots
        outcome.children += is_child
        definition = clients.acknowledged.get(execution.id, execution.definition) or {}
        given_up = _given_up(execution)
        outcome.given_up += len(given_up)
        outcome.cached += sum(hit_of(execution, one) is not None for one in execution.nodes)
        settled = clients.settled.get(execution.id, {})
        wanted = expected_states(definition, given_up, settled)
        may_cancel = roots.get(execution.id, execution.id) in clients.cancelled
        if is_child and families.is_awaited_in_vain(definition):
            may_cancel = True
        if may_cancel and status == ExecutionState.CANCELLED:
            allowed = _ENDED
            wrong = [one for one, state in execution.nodes.items() if state not in allowed]
            # Whatever the others came to; `given_up` is what its workers died with.
            last = set() if execution.never_began else execution.finally_nodes - set(given_up)
            wrong += [one for one in last & {"Tidy"} if execution.nodes[one] != wanted[one]]
        else:
            if status != (wanted_status := expected_status(definition, wanted)):
                yield f"{execution.id}: it is {status} and should be {wanted_status}"
            wrong = [one for one, state in execution.nodes.items() if state != wanted[one]]
        for one in wrong:
            yield (
                f"{execution.id} {one}: it is {execution.nodes[one]} and should be {wanted[one]}: "
                f"{execution.outputs[one]}"
            )


def default_seed() -> int:
    return random.SystemRandom().randrange(10**6)
