"""Executions come into being: whole, or not at all, however many nodes they have."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from flowd.config import Settings
from flowd.errors import CorruptExecution, StoreUnavailable, UnknownExecution
from flowd.store.budgets import Payer
from flowd.store.definitions import map_ids_of, node_ids_of, reading_definition
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.executions import (
    NODES_PER_CALL_MAX,
    Executions,
    begin_execution,
    now_ms,
    slices,
)
from flowd.store.idempotency import Idempotency
from flowd.store.map_copies import Again, MapCopies
from flowd.store.maps import Maps
from flowd.store.origins import NOWHERE, Origin
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Argument, Command, RedisClient
from flowd.store.redis.joined import Joined
from flowd.workflow.children import DEPTH_MAX, TREE_MAX, Parent
from flowd.workflow.graph import Outline, Plan
from flowd.workflow.ids import new_execution_id
from flowd.workflow.states import ExecutionState, NodeState


class Reuse(NamedTuple):
    """What a new execution takes over from one that has ended.

    `roots` are the nodes it begins with, none where only its `finally` runs; `arrived` says of
    every join that waits for others too what has arrived at it from nodes that do not run again.
    `skipped` are SKIPPED again, for the same reason; `allowed` are FAILED again, as they may be.
    `maps` says of nodes with `map` which items run again, where they have the list they had.
    `left_out` are FAILED from the beginning: with the error they failed of, or with this output
    where they never ran. `is_of_failed` says that what failed runs again, and no node was named.
    """

    rerun_of: str
    node_ids: frozenset[str]
    left_out: Mapping[str, bytes]
    roots: tuple[str, ...]
    arrived: Mapping[str, int]
    skipped: Mapping[str, str] = MappingProxyType({})
    allowed: frozenset[str] = frozenset()
    maps: Mapping[str, Again] = MappingProxyType({})
    is_of_failed: bool = False

    def settled(self) -> set[str]:
        """The nodes that do not run again."""
        return {*self.node_ids, *self.left_out, *self.skipped, *self.allowed}


class Making(NamedTuple):
    """An execution that one call makes and starts: `common` is what read_making in
    begin_execution.lua reads."""

    execution_id: str
    given_input: bytes
    is_staged: bool
    common: Sequence[Argument]


class Pin(NamedTuple):
    """The version of a saved definition that is run; nothing is made where it is not saved any
    more, or `is_latest` and is not the latest any more."""

    name: str
    version: int
    is_latest: bool
    digest: str


class Runs(NamedTuple):
    """New executions of one workflow: the id of each, and its input (JSON), or empty.

    `key_digest` is that of the Idempotency-Key that stands for the `claimant`, of whom they are
    some; empty where it stands for the execution itself.
    """

    inputs: Sequence[tuple[str, bytes]]
    key_digest: str = ""
    claimant: str = ""
    traceparent: str = ""
    origin: Origin = NOWHERE
    pin: Pin | None = None


def _new_run(
    plan: Plan | Outline,
    fresh: Sequence[str],
    reuse: Reuse | None,
    key_digest: str,
    origin: Origin = NOWHERE,
) -> dict[str, Argument]:
    """The run hash of a new execution; `fresh` are the nodes to run."""
    roots = plan.roots if reuse is None else reuse.roots
    nodes_to_run = len(fresh) - len(plan.finally_nodes)
    # A rerun of its `finally` alone begins where the others have ended.
    is_begun = not nodes_to_run
    if is_begun:
        roots, nodes_to_run = plan.finally_roots, len(fresh)
    # Too many to open in one call are opened slice by slice.
    is_wide = len(roots) > DEPENDENTS_PER_CALL_MAX
    run: dict[str, Argument] = {
        "name": plan.name,
        "nodes": len(plan.nodes),
        "plan": plan.digest,
        "roots": "" if is_wide else ",".join(roots),
        "remaining": nodes_to_run,
        "submitted_ms": now_ms(),
    }
    if plan.has_callback:
        run["callback"] = 1
    if is_begun:
        is_failed = reuse is not None and reuse.left_out
        run["ends_as"] = ExecutionState.FAILED if is_failed else ExecutionState.COMPLETED
    elif plan.finally_nodes:
        run["finally"] = f"{len(plan.finally_nodes)} {','.join(plan.finally_roots)}"
    if plan.has_input_schema:
        run["input_schema"] = 1
    if key_digest:
        run["idempotency"] = key_digest
    if reuse is not None:
        run["rerun_of"] = reuse.rerun_of
        if reuse.is_of_failed:
            run["rerun_failed"] = 1
        if reuse.left_out:
            run["failed"] = 1
        if is_wide:
            run["rerun_roots"] = ",".join(roots)
        run.update({f"arrived:{join}": count for join, count in reuse.arrived.items()})
        run.update({f"skipped:{one}": reason for one, reason in reuse.skipped.items()})
        run.update({f"allowed:{one}": 1 for one in reuse.allowed})
    return run | origin._replace(labels={**plan.labels, **origin.labels}).fields()


def _flat(run: Mapping[str, Argument]) -> list[Argument]:
    return [part for pair in run.items() for part in pair]


def making_arguments(
    plan: Plan | Outline,
    definition: bytes,
    *,
    group: str,
    run: Mapping[str, Argument],
    node_ids: Sequence[str],
    status: ExecutionState = ExecutionState.RUNNING,
) -> list[Argument]:
    """What read_making in begin_execution.lua reads: what new executions have in common."""
    values = _flat(run)
    head = (group, run["triggered_ms"], definition, status, plan.digest, run["roots"])
    return [*head, run.get("labels", ""), len(values), *values, len(node_ids), *node_ids]


def _copies(source: str, execution_id: str, node_ids: Sequence[str]) -> list[Command]:
    return [
        ("COPY", keys.output(source, one), keys.output(execution_id, one), "REPLACE")
        for one in node_ids
    ]


class Submissions:
    """Every method raises StoreUnavailable while Redis does not answer; each may be repeated."""

    def __init__(
        self, client: RedisClient, settings: Settings, executions: Executions, maps: Maps
    ) -> None:
        self._client = client
        self._joined = Joined(client)
        self._stream = settings.tasks.stream
        self._group = settings.tasks.group
        self._executions = executions
        self._maps = maps
        self._copies = MapCopies(client, maps)
        self.idempotency = Idempotency(client)

    async def submit_workflow(
        self,
        definition: bytes,
        plan: Plan | Outline,
        *,
        execution_id: str = "",
        key_digest: str = "",
        claimant: str = "",
        reuse: Reuse | None = None,
        origin: Origin = NOWHERE,
    ) -> str:
        """Store a validated definition with its nodes PENDING; the new execution's id.

        Whoever names the `execution_id` may submit twice, and has submitted once;
        `key_digest` is that of the Idempotency-Key that stands for it, or for the
        `claimant`, of whom it is one. Nodes beyond one call's worth are staged first. The
        last call makes the execution exist; if it never comes, `discard_staged` removes
        what was staged. Raises StoreUnavailable when that has happened before the last call
        came, and UnknownExecution when this one was deleted since, or the one it reuses.
        """
        execution_id = execution_id or new_execution_id(now_ms())
        settled = reuse.settled() if reuse else ()
        fresh = [one for one in plan.nodes if one not in settled]
        staged, rest = fresh[:-NODES_PER_CALL_MAX], fresh[-NODES_PER_CALL_MAX:]
        is_staged = bool(staged or reuse)
        outcome = await self._stage(execution_id, definition, staged, reuse) if is_staged else ""
        if outcome in ("", "staged"):
            run = _new_run(plan, fresh, reuse, key_digest, origin)
            values = _flat(run)
            outcome = await begin_execution(
                self._client,
                scripts.SUBMIT_WORKFLOW,
                (
                    *(keys.CONTINUATIONS, keys.EXECUTIONS),
                    *((keys.idempotency(key_digest),) if key_digest else ()),
                ),
                execution_id,
                claimant or execution_id,
                definition,
                "1" if is_staged else "0",
                run.get("labels", ""),
                len(values),
                *values,
                *rest,
            )
        await self._expect_made(execution_id, outcome, is_staged=is_staged)
        return execution_id

    async def run_workflow(
        self,
        definition: bytes,
        plan: Plan | Outline,
        *,
        execution_id: str,
        given_input: bytes = b"",
        key_digest: str = "",
        claimant: str = "",
        traceparent: str = "",
        origin: Origin = NOWHERE,
    ) -> str:
        """Store a validated definition and start it in the same step; never only the one.

        Returns `triggered`, `continue` when the roots are left to `advance_node`, or `exists`. Is
        repeated, stages and raises as `submit_workflow`; what it takes is that of a trigger.
        """
        node_ids = list(plan.nodes)
        is_staged = len(node_ids) > NODES_PER_CALL_MAX
        runs = Runs([(execution_id, given_input)], key_digest, claimant, traceparent, origin)
        (outcome,) = await self.run_slice(definition, plan, runs)
        await self._expect_made(execution_id, outcome, is_staged=is_staged)
        return outcome

    async def run_slice(self, definition: bytes, plan: Plan | Outline, runs: Runs) -> list[str]:
        """The outcome of each run, all made and started in one call; see run_workflow.lua.

        One with more nodes than a call stores is staged first, and has to be alone.
        """
        node_ids = list(plan.nodes)
        staged, rest = node_ids[:-NODES_PER_CALL_MAX], node_ids[-NODES_PER_CALL_MAX:]
        if staged:
            ((execution_id, _),) = runs.inputs
            outcome = await self._stage(execution_id, definition, staged, None)
            if outcome != "staged":
                return [outcome]
        pin = runs.pin
        common = self._common(
            definition, plan, rest, runs.key_digest, runs.origin, runs.traceparent
        )
        outcomes: list[str] = await begin_execution(
            self._client,
            scripts.RUN_WORKFLOW,
            (
                *(keys.ACTIVE, self._stream, keys.CONTINUATIONS, keys.EXECUTIONS),
                *((keys.saved_definition(pin.name),) if pin else ()),
            ),
            *("1" if staged else "0", runs.key_digest, runs.claimant),
            *((pin.version, "1" if pin.is_latest else "0", pin.digest) if pin else ("", "", "")),
            *common,
            *(part for pair in runs.inputs for part in pair),
        )
        return outcomes

    async def prepare(
        self,
        definition: bytes,
        plan: Plan | Outline,
        *,
        execution_id: str,
        given_input: bytes = b"",
        key_digest: str = "",
        origin: Origin = NOWHERE,
    ) -> Making:
        """What a script needs to make and start an execution; its first nodes are staged where they
        are too many for one call. Unless it is made then, `discard_staged` removes those."""
        node_ids = list(plan.nodes)
        staged, rest = node_ids[:-NODES_PER_CALL_MAX], node_ids[-NODES_PER_CALL_MAX:]
        if staged:
            outcome = await self._stage(execution_id, definition, staged, None)
            await self._expect_made(execution_id, outcome, is_staged=True)
        common = self._common(definition, plan, rest, key_digest, origin)
        return Making(execution_id, given_input, bool(staged), common)

    async def start_child(
        self,
        definition: bytes,
        plan: Plan,
        *,
        parent: Parent,
        execution_id: str,
        pin: Pin,
        given_input: bytes = b"",
        payer: Payer | None = None,
        reuse: Reuse | None = None,
        has_looked: bool = False,
    ) -> str:
        """Make the execution that a node waits for, as `run_workflow`, in the state and the trace
        of its parent. Its calls spend the budget of the `payer`, where there is one.

        Returns the outcome of start_child.lua but `closed`: `exists` also when it is said again,
        and `ended`, `taken`, `deep`, `large` or `corrupt` when none is made, nor with `changed`
        and, unless the caller `has_looked` for what to reuse, `rerun`.
        """
        settled = reuse.settled() if reuse else ()
        fresh = [one for one in plan.nodes if one not in settled]
        staged, rest = fresh[:-NODES_PER_CALL_MAX], fresh[-NODES_PER_CALL_MAX:]
        is_staged = bool(staged or reuse)
        outcome = await self._stage(execution_id, definition, staged, reuse) if is_staged else ""
        if outcome in ("", "staged"):
            run = _new_run(plan, fresh, reuse, "", Origin(f"{pin.name}@{pin.version}"))
            run["triggered_ms"] = run["submitted_ms"]
            if payer is not None:
                run["payer"] = f"{payer.execution_id} {payer.tokens}"
            outcome = await begin_execution(
                self._joined,
                scripts.START_CHILD,
                (
                    *(keys.ACTIVE, self._stream, keys.CONTINUATIONS, keys.EXECUTIONS),
                    keys.saved_definition(pin.name),
                ),
                "1" if is_staged else "0",
                *parent,
                *(DEPTH_MAX, TREE_MAX, execution_id, given_input),
                *(pin.version, pin.digest, "1" if has_looked else "0"),
                *making_arguments(plan, definition, group=self._group, run=run, node_ids=rest),
            )
        if is_staged and outcome not in ("triggered", "continue", "exists"):
            await self.discard_staged(execution_id)
        await self._expect_made(execution_id, outcome, is_staged=False)
        return outcome

    def _common(
        self,
        definition: bytes,
        plan: Plan | Outline,
        node_ids: Sequence[str],
        key_digest: str,
        origin: Origin,
        traceparent: str = "",
    ) -> Sequence[Argument]:
        """What read_making reads; `node_ids` are those not yet staged."""
        run = _new_run(plan, list(plan.nodes), None, key_digest, origin)
        run["triggered_ms"] = run["submitted_ms"]
        if traceparent:
            run["traceparent"] = traceparent
        return making_arguments(plan, definition, group=self._group, run=run, node_ids=node_ids)

    async def _expect_made(self, execution_id: str, outcome: str, *, is_staged: bool) -> None:
        """Raises what the outcome of the last call says against it."""
        if outcome == "closed":
            raise StoreUnavailable("storing the workflow took too long; submit it again")
        if outcome == "deleted":
            if is_staged:
                await self.discard_staged(execution_id)
            raise UnknownExecution(execution_id)

    async def _stage(
        self, execution_id: str, definition: bytes, staged: Sequence[str], reuse: Reuse | None
    ) -> str:
        """`staged`, or what stage_nodes.lua says against it."""
        await self._client.converse(
            [
                ("ZADD", keys.CONTINUATIONS, now_ms(), f"submit {execution_id}"),
                # Whoever names an id that is taken changes nothing.
                ("SET", keys.definition(execution_id), definition, "NX"),
            ]
        )
        for some in slices(staged, NODES_PER_CALL_MAX):
            outcome = await self._stage_nodes(execution_id, some, NodeState.PENDING)
            if outcome != "staged":
                return outcome
        return await self._stage_reused(execution_id, reuse) if reuse else "staged"

    async def _stage_nodes(
        self, execution_id: str, node_ids: Sequence[str], state: NodeState
    ) -> str:
        outcome: str = await self._client.run(
            scripts.STAGE_NODES,
            (keys.status(execution_id), keys.CONTINUATIONS),
            execution_id,
            state,
            *node_ids,
        )
        return outcome

    async def _stage_reused(self, execution_id: str, reuse: Reuse) -> str:
        """Copy what is reused within the server: outputs may be large.

        Raises UnknownExecution when the source was deleted meanwhile. Its status goes first, so as
        long as that stands nothing of it has gone.
        """
        source = reuse.rerun_of
        copied = (keys.given_input(source), keys.given_input(execution_id))
        await self._client.execute("COPY", *copied, "REPLACE")
        lost: list[str] = []
        with_output = {NodeState.COMPLETED: reuse.node_ids, NodeState.FAILED: reuse.allowed}
        for state, node_ids in with_output.items():
            for some in slices(list(node_ids), NODES_PER_CALL_MAX):
                outcome = await self._stage_nodes(execution_id, some, state)
                if outcome != "staged":
                    return outcome
                counts = await self._client.converse(_copies(source, execution_id, some))
                lost += [one for one, count in zip(some, counts, strict=True) if not count]
        for some in slices(list(reuse.skipped), NODES_PER_CALL_MAX):
            outcome = await self._stage_nodes(execution_id, some, NodeState.SKIPPED)
            if outcome != "staged":
                return outcome
        for some in slices(list(reuse.left_out), NODES_PER_CALL_MAX):
            outcome = await self._stage_nodes(execution_id, some, NodeState.FAILED)
            if outcome != "staged":
                return outcome
            never_ran = [
                ("SET", keys.output(execution_id, one), reuse.left_out[one]) for one in some
            ]
            await self._client.converse([*never_ran, *_copies(source, execution_id, some)])
        try:
            for one, again in reuse.maps.items():
                outcome = await self._copies.copy(
                    source, execution_id, one, again, self._stage_nodes
                )
                if outcome != "staged":
                    return outcome
            await self._executions.expect_known(source)
            if lost:
                raise CorruptExecution(source, f"the output of node {lost[0]!r} is gone")
        except (UnknownExecution, CorruptExecution):
            await self.discard_staged(execution_id)
            raise
        return "staged"

    async def discard_staged(self, execution_id: str) -> None:
        """Remove what a submission that broke off has left; one that went through stays."""
        outcome = await self._client.run(
            scripts.CLOSE_SUBMISSION, (keys.status(execution_id), keys.CONTINUATIONS), execution_id
        )
        if outcome == "closed":
            # Without a definition nothing was staged.
            node_ids: Sequence[str] = ()
            map_ids: Sequence[str] = ()
            with contextlib.suppress(UnknownExecution), reading_definition(execution_id):
                definition = await self._executions.definition(execution_id)
                node_ids, map_ids = node_ids_of(definition), map_ids_of(definition)
            staged = [
                key(execution_id, one) for one in node_ids for key in (keys.node, keys.output)
            ]
            for some in slices(staged, NODES_PER_CALL_MAX):
                await self._client.execute("DEL", *some)
            for one in map_ids:
                await self._maps.remove(execution_id, one)
            await self._client.execute(
                "DEL", keys.given_input(execution_id), keys.definition(execution_id)
            )
        await self._executions.drop_continuation(f"discard {execution_id}")
