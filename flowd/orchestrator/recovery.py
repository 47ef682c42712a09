"""Give the work of the dead to the living, and carry on with what they had begun."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Any, Final

import uvloop

from flowd.config import Settings
from flowd.errors import CorruptExecution, HandlerFailed, StoreUnavailable, UnknownExecution
from flowd.log import get_logger
from flowd.orchestrator.attempts import fail_attempt
from flowd.orchestrator.executor import (
    ROOTS,
    advance_node,
    cancel_nodes,
    fail_downstream,
    follow,
    node_failure,
    steps_left,
    tell_failure,
)
from flowd.orchestrator.owner import Owner, this_machine
from flowd.orchestrator.plans import Plans
from flowd.store import Store, open_store
from flowd.store.attempt_records import lost_record
from flowd.store.endings import Ending, RetryLater
from flowd.store.entries import Entry, Garbage
from flowd.store.executions import Continuation
from flowd.store.tasks import DEATHS_MAX
from flowd.workflow.graph import Plan

log = get_logger(__name__)

RELEASE_TIMEOUT_S: Final = 10.0


def release_dead_worker(
    settings: Settings,
    pid: int,
    cause: str,
    *,
    is_blamed: bool = True,
    suspects: Collection[str] = (),
    hung_s: float = 0.0,
) -> None:
    """Requeue at once what a dead process of this machine was running.

    Runs in a short-lived process of its own. `cause` says how it died, for logs and errors;
    `is_blamed` is False when what it ran had no part in that (it was killed while draining), and
    `suspects` are the entries that may have had, where that is known: the others are innocent.
    `hung_s` is how long it had stood still when it was killed for that. Gives up silently when
    Redis does not answer: the scheduler sees the lease expire.
    """
    facts = {"is_blamed": is_blamed, "suspects": suspects, "hung_s": hung_s}
    uvloop.run(_release(settings, pid, cause, **facts))


async def _release(settings: Settings, pid: int, cause: str, **facts: Any) -> None:
    store = open_store(settings)
    deadline_s = time.monotonic() + RELEASE_TIMEOUT_S
    try:
        while True:
            try:
                await _release_process(store, pid, cause, **facts)
                return
            except StoreUnavailable:
                if time.monotonic() > deadline_s:
                    return
                await asyncio.sleep(0.1)
    finally:
        await store.close()


async def _release_process(store: Store, pid: int, cause: str, **facts: Any) -> None:
    for consumer, owner in await local_owners(store):
        if owner.pid == pid and owner.is_gone():
            await recover_worker(store, Plans(store), consumer, cause, **facts)


async def local_owners(store: Store) -> list[tuple[str, Owner]]:
    """The consumers whose processes are, or were, on this machine since it was booted."""
    here = this_machine()
    found = []
    for consumer, text in (await store.tasks.owners()).items():
        try:
            owner = Owner.from_json(text)
        except (ValueError, TypeError):
            continue
        if owner.machine == here:
            found.append((consumer, owner))
    return found


async def recover_worker(
    store: Store,
    plans: Plans,
    consumer: str,
    cause: str,
    *,
    is_blamed: bool,
    suspects: Collection[str] = (),
    hung_s: float = 0.0,
) -> int:
    """Requeue every entry a consumer holds, then forget the consumer; how many were requeued.

    Its lease goes first: a worker that is not as dead as it seemed hears so when it next renews.
    The list of what it holds is read to its end before anything is requeued, because such a worker
    may well take the very entries this makes.
    """
    await store.tasks.revoke_lease(consumer)
    requeued = 0
    for name in await store.tasks.pending(consumer):
        is_suspect = is_blamed and (not suspects or name in suspects)
        is_alone = is_suspect and len(suspects) == 1
        if is_alone and await _fail_overdue(store, plans, name, consumer, cause, hung_s):
            continue
        requeued += await recover_entry(store, plans, name, consumer, cause, is_blamed=is_suspect)
    await store.tasks.retire_worker(consumer)
    if requeued or is_blamed:
        log.warning("worker.recovered", consumer=consumer, cause=cause, nodes=requeued)
    return requeued


async def recover_entry(
    store: Store,
    plans: Plans,
    name: str,
    consumer: str,
    cause: str,
    *,
    is_blamed: bool,
) -> bool:
    """Requeue one entry; True when its node runs again. A node that kills its workers is failed."""
    outcome, entry = await store.tasks.requeue_entry(name, consumer, is_death=is_blamed)
    if outcome == "garbage":
        reason = entry.reason if isinstance(entry, Garbage) else "flowd wrote no such entry"
        await store.tasks.bury_entry(name, reason)
        log.error("entry.buried", entry_id=name, reason=reason)
    elif outcome == "poison" and isinstance(entry, Entry):
        await _fail_poison(store, plans, entry, consumer, cause)
    elif outcome == "requeued" and isinstance(entry, Entry):
        log.info(
            "node.requeued",
            execution_id=entry.execution_id,
            node_id=entry.node_id,
            attempt=entry.attempt + 1,
            cause=cause,
        )
        return True
    return False


async def _fail_poison(store: Store, plans: Plans, entry: Entry, consumer: str, cause: str) -> None:
    error = f"given up: {DEATHS_MAX} workers died while they ran this node; the last: {cause}"
    try:
        plan = await plans.load(entry.execution_id, entry.plan_digest)
    except (UnknownExecution, CorruptExecution) as unreadable:
        await store.executions.fail_execution(entry.execution_id, str(unreadable))
        return
    record = lost_record(entry, consumer)
    ending = node_failure(plan, entry, record=record, error=error, dead_letter=error)
    if not await _end_attempt(store, plan, ending):
        # Somebody else was quicker, and may have given the node another try.
        return
    log.error(
        "node.poisoned",
        execution_id=entry.execution_id,
        node_id=entry.node_id,
        attempt=entry.attempt,
        cause=cause,
    )


async def _fail_overdue(
    store: Store, plans: Plans, name: str, consumer: str, cause: str, hung_s: float
) -> bool:
    """End the attempt that made its worker stand still beyond the node's time-out as timed out.

    The worker could not see that the time was over: its own clock stood still too. False when it
    was not over, or somebody else has the entry.
    """
    entry = await store.tasks.find_entry(name) if hung_s else None
    if not isinstance(entry, Entry):
        return False
    try:
        plan = await plans.load(entry.execution_id, entry.plan_digest)
    except (UnknownExecution, CorruptExecution):
        return False
    timeout_s = plan.node(entry.node_id).call_limit_s(store.nodes.default_timeout_s)
    if hung_s < timeout_s:
        return False
    text = f"timed out: it took longer than {timeout_s:g} s and let nothing else run; {cause}"
    ending = fail_attempt(
        plan,
        entry,
        HandlerFailed(text, kinds=frozenset({"timeout"})),
        record=lost_record(entry, consumer),
        default_policy=store.nodes.default_policy,
    )
    if not await _end_attempt(store, plan, ending):
        return False
    event = "node.retrying" if isinstance(ending, RetryLater) else "node.failed"
    log.warning(
        event,
        execution_id=entry.execution_id,
        node_id=entry.node_id,
        attempt=entry.attempt,
        error=text,
    )
    return True


async def _end_attempt(store: Store, plan: Plan, ending: Ending) -> bool:
    """Commit an ending and all that follows from it; False when the attempt was not there."""
    outcome = await store.tasks.end_attempt(ending)
    if outcome not in ("retrying", "completed", "failed", "finished", "cancelled"):
        return False
    for step, node_id in steps_left(ending, outcome):
        await step(store, plan, ending.entry.execution_id, node_id)
    return True


async def ensure_groups(
    store: Store, plans: Plans, queues: Sequence[str] = (), *, was_there: bool = False
) -> None:
    """Make the group of each queue, and of these, where it is missing; requeue what a destroyed one
    had handed out."""
    made = await store.tasks.queues.ensure_groups(queues)
    for queue in made if was_there else ():
        log.error("group.recreated", queue=queue)
    if made:
        await recover_orphans(store, plans)


async def recover_orphans(store: Store, plans: Plans) -> None:
    """Requeue the entries that were delivered to somebody and are pending for nobody.

    Only a group that was destroyed leaves such entries. They are read before the pending list is,
    and the script looks again, so an entry that ends meanwhile is not mistaken for one.
    """
    delivered: list[str] = []
    async for page in store.tasks.outstanding():
        delivered += [one.entry.name for one in page if one.is_delivered]
    await recover_unheld(store, plans, delivered)


async def recover_unheld(store: Store, plans: Plans, delivered: Sequence[str]) -> None:
    """Requeue those of these entries, which were delivered, that are pending for nobody."""
    pending = set(await store.tasks.pending(None)) if delivered else set()
    for name in delivered:
        if name not in pending:
            cause = "its consumer group was destroyed"
            await recover_entry(store, plans, name, "", cause, is_blamed=False)


async def finish_continuation(store: Store, plans: Plans, one: Continuation) -> None:
    """Carry on with what a process began and did not live to end; safe while it lives.

    An execution that cannot be carried on, because its keys make no sense, is failed.
    """
    try:
        await _finish(store, plans, one)
    except (UnknownExecution, CorruptExecution) as error:
        await store.executions.fail_execution(one.execution_id, str(error))
    else:
        if one.verb == "follow":
            # It is settled, or was left anew since.
            return
    await store.executions.drop_continuation(one.member)


async def _finish(store: Store, plans: Plans, one: Continuation) -> None:
    if one.verb in ("submit", "discard"):
        await store.submissions.discard_staged(one.execution_id)
        return
    if one.verb == "delete":
        await store.finished.remove([one.execution_id])
        return
    if one.verb == "resume":
        await store.lifecycle.resume_execution(one.execution_id, is_begun=True)
        return
    if one.verb == "follow":
        await follow(store, one.execution_id, one.node_id)
        return
    plan = await plans.load(one.execution_id, "")
    if one.verb == "cancel":
        await cancel_nodes(store, plan, one.execution_id)
        return
    if one.node_id != ROOTS and one.node_id not in plan.nodes:
        raise CorruptExecution(one.execution_id, f"it has no node {one.node_id!r}")
    step = {"fail": fail_downstream, "look": tell_failure}.get(one.verb, advance_node)
    await step(store, plan, one.execution_id, one.node_id)
