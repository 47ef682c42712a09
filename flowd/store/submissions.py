"""Executions come into being: whole, or not at all, however many nodes they have."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from flowd.config import Settings
from flowd.errors import CorruptExecution, StoreUnavailable, UnknownExecution
from flowd.store.child_starts import ChildStart, ChildStarts, ChildWorkflow
from flowd.store.definitions import map_ids_of, node_ids_of, reading_definition
from flowd.store.executions import (
    NODES_PER_CALL_MAX,
    Executions,
    begin_execution,
    now_ms,
    slices,
)
from flowd.store.idempotency import Idempotency
from flowd.store.making import Making, Reuse, Runs, flat, is_made, making_arguments, new_run
from flowd.store.map_copies import MapCopies
from flowd.store.maps import Maps
from flowd.store.origins import NOWHERE, Origin
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Argument, Command, RedisClient
from flowd.workflow.graph import Outline, Plan
from flowd.workflow.ids import new_execution_id
from flowd.workflow.states import NodeState


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
        self._child_starts = ChildStarts(client, settings)
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
            run = new_run(plan, fresh, reuse, key_digest, origin)
            values = flat(run)
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
        place: str = "",
    ) -> str:
        """Store a validated definition and start it in the same step; never only the one.

        Returns `triggered`, `continue` when the roots are left to `advance_node`, `exists`, or,
        with what it asks a `place` of, `waiting`, `replaced …` or `refused`. Is repeated, stages
        and raises as `submit_workflow`; what it takes is that of a trigger.
        """
        node_ids = list(plan.nodes)
        is_staged = len(node_ids) > NODES_PER_CALL_MAX
        runs = Runs(
            [(execution_id, given_input)],
            key_digest,
            claimant,
            traceparent,
            origin,
            places={execution_id: place} if place else {},
        )
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
            *(
                part
                for one, given in runs.inputs
                for part in (one, given, *((runs.places[one],) if runs.places else ()))
            ),
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
        place: str = "",
    ) -> Making:
        """What a script needs to make and start an execution; its first nodes are staged where they
        are too many for one call. Unless it is made then, `discard_staged` removes those."""
        node_ids = list(plan.nodes)
        staged, rest = node_ids[:-NODES_PER_CALL_MAX], node_ids[-NODES_PER_CALL_MAX:]
        if staged:
            outcome = await self._stage(execution_id, definition, staged, None)
            await self._expect_made(execution_id, outcome, is_staged=True)
        common = self._common(definition, plan, rest, key_digest, origin)
        places = plan.concurrency["max"] if plan.concurrency else 0
        return Making(execution_id, given_input, bool(staged), place, places, common)

    async def start_child(
        self, workflow: ChildWorkflow, child: ChildStart, reuse: Reuse | None = None
    ) -> str:
        """Make the execution that a node waits for, as `run_workflow`, in the state and the trace
        of its parent.

        Returns the outcome of start_children.lua but `closed`: `exists` also when it is said
        again, and `ended`, `taken`, `deep`, `large`, `own`, `refused` or `corrupt` when none is
        made, nor with `changed` and, unless the caller has looked for what to reuse, `rerun`.
        """
        settled = reuse.settled() if reuse else ()
        fresh = [one for one in workflow.plan.nodes if one not in settled]
        staged, rest = fresh[:-NODES_PER_CALL_MAX], fresh[-NODES_PER_CALL_MAX:]
        if not staged and reuse is None:
            outcome = await self._child_starts.start(workflow, child)
        else:
            execution_id = child.execution_id
            outcome = await self._stage(execution_id, workflow.definition, staged, reuse)
            if outcome == "staged":
                outcome = await self._child_starts.start_staged(workflow, child, reuse, rest)
            if not is_made(outcome):
                await self.discard_staged(execution_id)
        await self._expect_made(child.execution_id, outcome, is_staged=False)
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
        run = new_run(plan, list(plan.nodes), None, key_digest, origin)
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
        if outcome == "refused" and is_staged:
            await self.discard_staged(execution_id)

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
        # What an execution that was made before has been given since stays.
        await self._client.execute("COPY", *copied)
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
