"""From a stream entry to a node that can be handled: its plan, its handler and its inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from typing import Any, Final

import orjson

from flowd.errors import (
    CorruptExecution,
    Fail,
    HandlerElsewhere,
    HandlerFailed,
    TemplateError,
    UnknownExecution,
    UnknownHandler,
)
from flowd.handlers.context import HandlerContext
from flowd.handlers.outcome import JsonText, error_text
from flowd.handlers.registry import Handler, Registry
from flowd.log import get_logger
from flowd.orchestrator.enrolment import enrolled, who_knows
from flowd.orchestrator.plans import Plans
from flowd.redaction import REDACTOR
from flowd.store import Store
from flowd.store.attempt_records import lost_record
from flowd.store.budgets import parse_payer
from flowd.store.endings import Completion
from flowd.store.entries import Entry, Garbage
from flowd.store.facts import Fact
from flowd.store.limits import Asking
from flowd.store.tasks import DEATHS_BEFORE_APART
from flowd.workers.decision import (
    decide,
    decision_fact,
    decision_in,
    execution_facts,
    facts_of_choice,
    facts_of_repeat,
    input_fact,
    scope_of,
)
from flowd.workers.large_inputs import SMALL_BYTES_MAX, may_read
from flowd.workers.node_run import PreparedNode
from flowd.workflow.caching import Cache, Keep
from flowd.workflow.graph import Asks
from flowd.workflow.ids import SPENDING, STEPS, split_item
from flowd.workflow.references import EXECUTION
from flowd.workflow.states import ExecutionState, NodeState
from flowd.workflow.templating import INDEX, INPUT, ITEM, NO_CONFIG

log = get_logger(__name__)

# Twice as many are kept at most; those of before go together.
_OUTPUTS_KEPT_MAX: Final = 2048
_OUTPUT_KEPT_BYTES_MAX: Final = 1024

_Value = str | bytes | None


class Intake:
    """Holds every entry from its arrival until its outcome is known, so that none starts twice."""

    def __init__(
        self, store: Store, plans: Plans, registry: Registry, consumer: str, queues: Sequence[str]
    ) -> None:
        self._store = store
        self._plans = plans
        self._registry = registry
        self._consumer = consumer
        self._queues = queues
        self._policy = store.nodes.default_policy
        # With the bytes of the large inputs that each of them was given.
        self._held: dict[str, int] = {}
        self._arrived: list[Entry | Garbage] = []
        self._outputs: dict[tuple[str, ...], bytes] = {}
        self._older_outputs = self._outputs
        # Handlers that nodes of the present batch have, and this worker does not.
        self._unknown: set[str] = set()
        # Entries queued up to then may be of executions that were paused or cancelled; None is any.
        self._halted_ms: int | None = None

    @property
    def arrived_count(self) -> int:
        return len(self._arrived)

    def receive(self, entries: Sequence[Entry | Garbage], halted_ms: int | None = None) -> None:
        """Take note of entries; those known already came by two ways after a lost reply. Those that
        were queued up to `halted_ms` have to be asked about before they start; None is all."""
        self._halted_ms = halted_ms
        for entry in entries:
            if entry.name not in self._held:
                self._held[entry.name] = 0
                self._arrived.append(entry)

    def release(self, name: str) -> None:
        """Forget an entry whose outcome is known."""
        self._held.pop(name, None)

    def keep_output(self, completion: Completion) -> None:
        """Keep a small output: whoever needs it next most often runs here."""
        if len(completion.output) <= _OUTPUT_KEPT_BYTES_MAX:
            if len(self._outputs) >= _OUTPUTS_KEPT_MAX:
                self._older_outputs, self._outputs = self._outputs, {}
            entry = completion.entry
            # As a Fact, which takes three times as long to make.
            self._outputs["output", entry.execution_id, entry.node_id] = completion.output

    async def prepare(self) -> list[PreparedNode]:
        """Everything that has arrived and can run. Entries that cannot are taken out of the stream.

        When the store fails on the way, what has arrived is as it was and can be prepared again.
        """
        arrived = list(self._arrived)
        if not arrived:
            return []
        planned: list[PreparedNode] = []
        for entry in arrived:
            prepared = self._plan_at_once(entry) or await self._plan(entry)
            if prepared is None:
                self._arrived.remove(entry)
            else:
                planned.append(prepared)
        if self._unknown:
            planned = await self._hand_on(planned)
        fetched, large = await self._fetch(self._wanted(planned))
        halted = _halted(fetched)
        if halted:
            planned = await self._hold_back(planned, halted)
        if large:
            return await self._take_while_there_is_room(planned, fetched, large)
        ready = [
            one if one.node.is_static and not one.entry.waits else _made_ready(one, fetched)
            for one in planned
        ]
        admitted = await self._admit(ready)
        # What came in while the store was asked stays for the next time.
        del self._arrived[: len(planned)]
        return admitted

    async def _take_while_there_is_room(
        self,
        planned: Sequence[PreparedNode],
        fetched: dict[Fact, _Value],
        large: Mapping[Fact, int],
    ) -> list[PreparedNode]:
        """All but those whose large inputs have to wait for those of others, in their order."""
        taken: list[PreparedNode] = []
        has_room = True
        for one in planned:
            read = sorted(_facts_of(one) & large.keys())
            if not read:
                taken.append(_made_ready(one, fetched))
                continue
            size = sum(large[fact] for fact in read)
            has_room = has_room and may_read(size, one.entry.name, self._held)
            if has_room:
                self._held[one.entry.name] = size
                own = {**fetched, **await self._store.tasks.facts.read_whole(read)}
                # Parsing takes as long as reading: others go on meanwhile.
                taken.append(await asyncio.to_thread(_made_ready, one, own))
        admitted = await self._admit(taken)
        names = {one.entry.name for one in taken}
        self._arrived = [one for one in self._arrived if one.name not in names]
        return admitted

    async def _admit(self, ready: list[PreparedNode]) -> list[PreparedNode]:
        """Those that need no place of a limit, or have one; the others wait outside of here."""
        if not [one for one in ready if one.node.asks is not None]:
            return ready
        ready = await self._answer_from_cache(ready)
        asking = [one for one in ready if one.place]
        if not asking:
            return ready
        outcomes = await self._store.tasks.limits.admit(
            [
                Asking(
                    one.entry,
                    one.place,
                    lost_record(one.entry, "-"),
                    self._queues.index(one.entry.queue),
                )
                for one in asking
            ]
        )
        held_back = set()
        for one, outcome in zip(asking, outcomes, strict=True):
            if outcome != "admitted":
                held_back.add(one.entry.name)
                self.release(one.entry.name)
        return [one for one in ready if one.entry.name not in held_back]

    async def _answer_from_cache(self, ready: list[PreparedNode]) -> list[PreparedNode]:
        """The same, but whose output is kept takes that, and no place."""
        asking = [one.keep for one in ready if one.keep is not None and one.keep.may_read]
        found = iter(await self._store.tasks.cache.find(asking) if asking else ())
        answered = []
        for one in ready:
            output = next(found) if one.keep is not None and one.keep.may_read else None
            answered.append(one if output is None else _taking(one, output))
        return answered

    def _plan_at_once(self, entry: Entry | Garbage) -> PreparedNode | None:
        """An entry's node with all but its inputs; None where there is more to it than to look its
        plan up.
        """
        if isinstance(entry, Garbage) or (plan := self._plans.cached(entry.plan_digest)) is None:
            return None
        node = plan.nodes.get(entry.node_id) or plan.find(entry.node_id)
        if node is None:
            return None
        handler = self._handler(node.handler, entry.deaths)
        return PreparedNode(entry, plan, node, handler, {}, self._policy)

    async def _plan(self, entry: Entry | Garbage) -> PreparedNode | None:
        """As `_plan_at_once`; None when there is no node to run."""
        if isinstance(entry, Garbage):
            await self._bury(entry.name, entry.reason)
            return None
        try:
            plan = await self._plans.load(entry.execution_id, entry.plan_digest)
        except (UnknownExecution, CorruptExecution) as error:
            await self._give_up(entry, str(error))
            return None
        prepared = self._plan_at_once(entry._replace(plan_digest=plan.digest))
        if prepared is None:
            await self._bury(entry.name, f"its execution has no node {entry.node_id!r}")
        return prepared

    async def _give_up(self, entry: Entry, reason: str) -> None:
        if await self._store.executions.fail_execution(entry.execution_id, reason):
            log.error("execution.corrupt", execution_id=entry.execution_id, reason=reason)
        await self._store.tasks.requeue_entry(entry.name, self._consumer)
        self.release(entry.name)

    async def _bury(self, name: str, reason: str) -> None:
        await self._store.tasks.bury_entry(name, reason)
        self.release(name)
        log.error("entry.buried", entry_id=name, reason=reason)

    async def _hand_on(self, planned: Sequence[PreparedNode]) -> list[PreparedNode]:
        """The same; whose handler only other workers know ends here so that one of them has it."""
        owners = await enrolled(self._store)
        unknown, self._unknown = self._unknown, set()
        handed_on = []
        for one in planned:
            name = one.node.handler
            if name in unknown and (other := who_knows(name, one.entry.queue, owners)):
                reason = HandlerElsewhere(
                    f"{self._consumer} does not know the handler {name!r}; "
                    f"{other} on {owners[other].host} does, and the node waits for that"
                )
                # Nothing is looked up for it, and no place asked for.
                bare = one.node._replace(config=NO_CONFIG, asks=None, repeat=None)
                one = one._replace(node=bare, handler=_refusing(name, reason))
            handed_on.append(one)
        return handed_on

    def _wanted(self, planned: Sequence[PreparedNode]) -> dict[Fact, None]:
        """What these nodes need to know: the outputs and the input that their templates read,
        whether their executions may start nodes, and for nodes that choose what they decide by.
        """
        wanted: dict[Fact, None] = {}
        is_calm = self._halted_ms == 0
        for one in planned:
            entry, node = one.entry, one.node
            # It may be one that was queued before somebody paused or cancelled an execution, or
            # again after that; but not when it was given a place.
            is_first = entry.attempt == 1 or entry.holds
            if not is_first or not (is_calm or self._is_calm(entry)):
                wanted[Fact("status", entry.execution_id)] = None
            if entry.waits:
                wanted[decision_fact(one)] = None
            if node.is_static:
                continue
            if node.is_item:
                wanted[Fact("state", entry.execution_id, entry.node_id)] = None
            if node.handler in SPENDING:
                wanted[Fact("payer", entry.execution_id)] = None
            for name in node.config.inputs:
                wanted[input_fact(one, name)] = None
            if node.asks is not None:
                wanted |= {input_fact(one, name): None for name in node.asks.inputs}
                if node.asks.cache is not None:
                    wanted[Fact("rerun", entry.execution_id)] = None
            if node.choice is not None:
                wanted |= dict.fromkeys(facts_of_choice(one))
            if node.repeat is not None:
                wanted |= dict.fromkeys(facts_of_repeat(one, node.repeat))
        return wanted

    def _is_calm(self, entry: Entry) -> bool:
        """Whether nobody has paused or cancelled anything since this was queued."""
        return self._halted_ms is not None and entry.queued_ms > self._halted_ms

    async def _fetch(
        self, wanted: Mapping[Fact, None]
    ) -> tuple[dict[Fact, _Value], Mapping[Fact, int]]:
        """These, from memory or in one call, and the sizes of the values that are too large to be
        read all at once.
        """
        found: dict[Fact, _Value] = {
            fact: kept[fact]
            for kept in (self._older_outputs, self._outputs)
            for fact in wanted
            if fact in kept
        }
        missing = [fact for fact in wanted if fact not in found]
        if not missing:
            return found, {}
        values, large = await self._store.tasks.facts.find(missing, SMALL_BYTES_MAX)
        found.update(values)
        return found, large

    async def _hold_back(
        self, planned: Sequence[PreparedNode], halted: Set[str]
    ) -> list[PreparedNode]:
        """Take entries of paused and ended executions out of the stream; the others."""
        going_on = []
        for one in planned:
            entry = one.entry
            if halted.isdisjoint((entry.execution_id, _node_key(entry))):
                going_on.append(one)
                continue
            if await self._store.lifecycle.park_node(entry) == "moved":
                await self._store.tasks.requeue_entry(entry.name, self._consumer)
            self._arrived = [each for each in self._arrived if each.name != entry.name]
            self.release(entry.name)
        return going_on

    def _handler(self, name: str, deaths: int) -> Handler:
        if deaths >= DEATHS_BEFORE_APART and name not in STEPS:
            return Handler(name, _in_a_process, "process")
        try:
            return self._registry.load(name)
        except Exception as error:  # noqa: BLE001 - importing a handler's module may do anything
            if isinstance(error, UnknownHandler):
                self._unknown.add(name)
            reason = f"handler {name!r} cannot be loaded: {error_text(error)}"
            return _refusing(name, Fail(reason))


def _facts_of(prepared: PreparedNode) -> set[Fact]:
    """What the node's templates and its condition read."""
    read = {input_fact(prepared, name) for name in prepared.node.config.inputs}
    if prepared.node.asks is not None:
        read |= {input_fact(prepared, name) for name in prepared.node.asks.inputs}
    if prepared.node.choice is not None:
        read |= set(facts_of_choice(prepared))
    if prepared.node.repeat is not None:
        read |= set(facts_of_repeat(prepared, prepared.node.repeat))
    return read


def _halted(fetched: Mapping[Fact, _Value]) -> set[str]:
    """The executions that start no node now, and the items of maps that were stopped."""
    return {
        fact.execution_id if fact.kind == "status" else f"{fact.execution_id} {fact.node_id}"
        for fact, value in fetched.items()
        if (fact.kind == "status" and value != ExecutionState.RUNNING)
        or (fact.kind == "state" and "." in fact.node_id and value == NodeState.CANCELLED)
    }


def _node_key(entry: Entry) -> str:
    return f"{entry.execution_id} {entry.node_id}"


def _made_ready(prepared: PreparedNode, fetched: Mapping[Fact, _Value]) -> PreparedNode:
    """The node with what its templates read; one that is not to run ends by a stand-in for its
    handler, which raises why.
    """
    node = prepared.node
    if node.handler in SPENDING:
        payer = fetched.get(Fact("payer", prepared.entry.execution_id))
        prepared = prepared._replace(payer=parse_payer(str(payer)) if payer else None)
    has_place = prepared.entry.holds
    if node.asks is not None and node.asks.limit is not None and not has_place:
        prepared = prepared._replace(entry=prepared.entry._replace(holds=True))
    if prepared.entry.waits:
        prepared = prepared._replace(decision=decision_in(prepared, fetched))
    if node.repeat is not None:
        prepared = prepared._replace(scope=scope_of(prepared, node.repeat.reads, fetched))
    try:
        if node.choice is not None:
            decide(prepared, node.choice, fetched)
        if node.config.inputs:
            inputs, sizes = _read_inputs(prepared, fetched, node.config.inputs)
            node.config.check_size(inputs, sizes)
            prepared = prepared._replace(inputs=inputs)
        if node.asks is None:
            return prepared
        return _asking(prepared, node.asks, fetched, has_place=has_place)
    except (HandlerFailed, TemplateError) as error:
        reason = error if isinstance(error, HandlerFailed) else Fail(str(error))
        # Its config is not looked at: it could be one that cannot be rendered.
        bare = node._replace(config=NO_CONFIG)
        return prepared._replace(node=bare, handler=_refusing(node.handler, reason))


def _asking(
    prepared: PreparedNode, asks: Asks, fetched: Mapping[Fact, _Value], *, has_place: bool
) -> PreparedNode:
    """The node with what its output is kept under, and the place it needs. Raises Fail."""
    if asks.cache is not None:
        prepared = prepared._replace(keep=_keep(prepared, asks.cache, fetched))
    if asks.limit is not None and not has_place:
        read, _ = _read_inputs(prepared, fetched, asks.limit.inputs)
        prepared = prepared._replace(place=asks.limit.place(read))
    return prepared


def _keep(prepared: PreparedNode, cache: Cache, fetched: Mapping[Fact, _Value]) -> Keep | None:
    """What the output of the node is kept under; None where its key cannot be made, or would have a
    secret in it. A rerun is to do it again, and what has waited is amid its calls."""
    entry, inputs = prepared.entry, prepared.inputs
    if cache.key is not None:
        try:
            inputs, _ = _read_inputs(prepared, fetched, cache.inputs)
        except Fail:
            return None
    made = cache.name(prepared.node.handler, prepared.node.config, inputs)
    if made is None or REDACTOR.data(made[1]) != made[1]:
        return None
    is_rerun = fetched.get(Fact("rerun", entry.execution_id)) is not None
    return Keep(made[0], cache.ttl_ms, may_read=not is_rerun and not entry.waits)


def _taking(prepared: PreparedNode, output: bytes) -> PreparedNode:
    """The node ends by this output: a stand-in for its handler takes the way of all others."""
    name, keep = prepared.node.handler, prepared.keep
    return prepared._replace(
        node=prepared.node._replace(config=NO_CONFIG),
        handler=Handler(name, lambda _config, _context: JsonText(output), "inline"),
        place="",
        keep=keep and keep._replace(is_hit=True),
    )


def _read_inputs(
    prepared: PreparedNode, fetched: Mapping[Fact, _Value], names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, int]]:
    """By the names templates have for it, and how long each is as JSON. Raises Fail."""
    plan = prepared.plan
    inputs: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name in names:
        text = fetched[input_fact(prepared, name)]
        sizes[name] = len(text or "")
        if name in plan.nodes:
            if text is None and plan.has_choices:
                # It was skipped; the template has a default, or says that it is missing.
                continue
            inputs[name] = _json_object(text, f"the output of {name!r}")
        elif name == INPUT:
            given = {} if text is None else _json_object(text, "the input of the execution")
            # A copy to its depths: the plan is shared, and what a handler is given it may change.
            default = orjson.dumps(plan.default_input)
            sizes[name] += len(default)
            inputs[name] = {**orjson.loads(default), **given}
        elif name == EXECUTION:
            inputs[name] = execution_facts(prepared, text)
            sizes[name] = len(orjson.dumps(inputs[name]))
        elif name == INDEX:
            inputs[name] = int(split_item(prepared.entry.node_id)[1])
        elif name == ITEM:
            inputs[name] = _json_value(text, "the item")
    return inputs, sizes


def _json_value(text: _Value, what: str) -> Any:
    try:
        return orjson.loads(text or "")
    except ValueError:
        raise Fail(f"{what} is gone or is no JSON") from None


def _json_object(text: _Value, what: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text or "")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Fail(f"{what} is gone or is no JSON object")
    return value


def _in_a_process(_config: dict[str, object], _context: HandlerContext) -> None:
    """Stands for a function that the process of the call loads."""


def _refusing(name: str, reason: HandlerFailed) -> Handler:
    """A stand-in that ends its node by raising this: it takes the way of all others."""

    def refuse(_config: dict[str, object], _context: HandlerContext) -> dict[str, object]:
        raise reason

    return Handler(name, refuse, "inline")
