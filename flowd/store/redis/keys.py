"""Every key flowd keeps in Redis, and nothing else about them.

The Lua files spell the keys of one execution out by the same rules, because a name put together
in the script is cheaper than one more argument on the wire.

Keys of one execution begin with `workflow:` and its id. All others are shared, in two ways. What is
about a name (an Idempotency-Key, a saved definition, a schedule, a limit, the key of a workflow's
`concurrency`, a kept output) is found by that name alone, so that it could be at one server of
several, `home(name)`: idempotency, saved_definition, schedules_of, schedule, schedule_holders,
holders, waiters, kept_output, and each member of DEFINITIONS, SCHEDULES, SCHEDULES_DUE,
SCHEDULES_MISSED, LIMITS, LIMITS_DUE, PLACES, PLACE_HOLDERS, PLACE_WAITERS, CACHE, CACHE_SIZES and
SETS. The rest is about the executions and workers of one server, and would be on each.
"""

from __future__ import annotations

from typing import Final

from flowd.workflow.ids import DEFAULT_QUEUE
from flowd.workflow.states import ExecutionState

# Contract: clients and redis-cli rely on these.
ACTIVE: Final = "workflows:active"  # set: ids of executions that were triggered and have not ended

# flowd's own.
CONTINUATIONS: Final = "flowd:continuations"  # zset: work left for a later call, by its begin in ms
EXECUTIONS: Final = "flowd:executions"  # zset: all execution ids, with score 0: they sort by age
NAMES: Final = "flowd:names"  # zset: name, zero byte and execution id, with score 0: sorted so
INDEXED: Final = "flowd:indexed"  # string: the lists by name and state have all executions
ENDED: Final = "flowd:ended"  # hash: `hour state` -> how many had ended so when that hour began
FINISHED: Final = "flowd:finished"  # zset: ids of executions that have ended, by when, ms
RETRIES: Final = "flowd:retries"  # zset: `execution_id node_id` that waits, by when it is due, ms
QUEUES: Final = "flowd:queues"  # set: queues that are in use, but for the default
HALTED: Final = "flowd:halted"  # string: entries queued up to here, ms, may be of who is to wait
ALARMS: Final = "flowd:alarms"  # zset: `execution_id node_id` that waits until then, Unix ms
RETRIES_WAKEUP: Final = "flowd:retries:wakeup"  # list: the first of the dates has changed
LIMITS: Final = "flowd:limits"  # hash: name -> `max per_s burst`, `-` where it says nothing
LIMITS_DUE: Final = "flowd:limits:due"  # zset: places to be settled, by when, ms
PLACES: Final = "flowd:limits:places"  # zset: places that are held or waited for, with score 0
CACHE: Final = "flowd:cache"  # zset: names of outputs kept for equal calls, by until when, ms
CACHE_SIZES: Final = "flowd:cache:sizes"  # hash: name -> bytes it is counted as, and their `total`
SCHEDULES: Final = "flowd:schedules"  # zset: the names of all schedules, with score 0
SCHEDULES_DUE: Final = "flowd:schedules:due"  # zset: name, by when it is looked at, Unix ms
# zset: name of whose times were missed within a day, by when that was noted, Unix ms; expires
SCHEDULES_MISSED: Final = "flowd:schedules:missed"
LEASES: Final = "flowd:leases"  # hash: consumer -> heartbeat sequence
WORKERS: Final = "flowd:workers"  # hash: consumer -> owner (JSON)
EVENTS: Final = "flowd:events"  # stream, capped: what has happened, as pairs of type and text
CALLBACKS: Final = "flowd:callbacks"  # zset: who is called back about, by when, ms: see callback
METRICS: Final = "flowd:metrics"  # hash: what the workers have counted
SCHEDULER: Final = "flowd:scheduler"  # string that expires: a scheduler ticked, at this time in ms
CLOCK: Final = "flowd:clock"  # hash: the clock by which everything waits; last_ms, ahead_ms
TROUBLES: Final = "flowd:troubles"  # hash that expires: duties and continuations that fail -> why
TRACED: Final = "flowd:traced"  # string: `finished_ms execution_id` of the newest that was traced
TRACER: Final = "flowd:tracer"  # string that expires: the scheduler that exports traces
READY_PROBE: Final = "flowd:ready"  # string that expires: Redis takes writes
DEFINITIONS: Final = "flowd:definitions"  # zset: names of saved definitions, with score 0
PLACE_HOLDERS: Final = "flowd:concurrency:holders"  # zset: `digest execution_id`, with score 0
PLACE_WAITERS: Final = "flowd:concurrency:waiters"  # zset: `digest since_ms execution_id`, score 0
SETS: Final = "flowd:sets"  # hash: `kind name` of what was applied -> the set it belongs to
DEAD_LETTERS: Final = "flowd:dead_letters"  # stream: what no worker can run, with its raw fields


def definition(execution_id: str) -> str:
    """String: the workflow as submitted (JSON)."""
    return f"workflow:{execution_id}"


def status(execution_id: str) -> str:
    """String: the execution's state."""
    return f"workflow:{execution_id}:status"


def node(execution_id: str, node_id: str) -> str:
    """String: the node's state."""
    return f"workflow:{execution_id}:node:{node_id}"


def output(execution_id: str, node_id: str) -> str:
    """String: the node's output, or its error (a JSON object)."""
    return f"workflow:{execution_id}:node:{node_id}:output"


def given_input(execution_id: str) -> str:
    """String: the input given at the trigger (a JSON object); absent when there was none."""
    return f"workflow:{execution_id}:input"


def idempotency(key_digest: str) -> str:
    """String with a lifetime: digest of the request under an Idempotency-Key, and its execution;
    `deleted` in front of both once that is gone. Of a key that stands for many executions
    `:<execution id>` behind it says that this one was deleted."""
    return f"flowd:idempotency:{key_digest}"


def saved_definition(name: str) -> str:
    """Hash: latest (number of the newest version), and of each version `definition:<version>`
    (JSON), `digest:<version>` (of its plan) and `about:<version>` (JSON: saved_ms, nodes, labels,
    handlers: digest of those it was checked against, calls: names of what its nodes run)."""
    return f"flowd:definition:{name}"


def by_status(state: str) -> str:
    """Zset: ids of the executions in this state, with score 0: they sort by age. What runs is in
    none: the active are those, and what is PAUSED."""
    return f"flowd:status:{state}"


def label(line: str) -> str:
    """Zset: ids of the executions with this label, `name=value`, with score 0: they sort by age."""
    return f"flowd:label:{line}"


def schedules_of(name: str) -> str:
    """Set: the names of the schedules that run this saved definition; it stays while there are."""
    return f"flowd:definition:{name}:schedules"


def task_stream(stream: str, queue: str) -> str:
    """Stream: the entries of a queue; `stream` is that of the default one."""
    return stream if queue == DEFAULT_QUEUE else f"{stream}:{queue}"


def shared_types(stream: str) -> dict[str, str]:
    """The type of each key that all executions share. Strings are none of them."""
    return {
        stream: "stream",
        ACTIVE: "set",
        CONTINUATIONS: "zset",
        EXECUTIONS: "zset",
        DEFINITIONS: "zset",
        SETS: "hash",
        PLACE_HOLDERS: "zset",
        PLACE_WAITERS: "zset",
        FINISHED: "zset",
        NAMES: "zset",
        ENDED: "hash",
        **{by_status(state): "zset" for state in ExecutionState if state != "RUNNING"},
        RETRIES: "zset",
        ALARMS: "zset",
        RETRIES_WAKEUP: "list",
        LIMITS: "hash",
        LIMITS_DUE: "zset",
        PLACES: "zset",
        CACHE: "zset",
        CACHE_SIZES: "hash",
        SCHEDULES: "zset",
        SCHEDULES_DUE: "zset",
        SCHEDULES_MISSED: "zset",
        LEASES: "hash",
        WORKERS: "hash",
        QUEUES: "set",
        EVENTS: "stream",
        CALLBACKS: "zset",
        METRICS: "hash",
        DEAD_LETTERS: "stream",
        TROUBLES: "hash",
        CLOCK: "hash",
    }


def damaged(at_ms: int) -> str:
    """What the name of a key begins with that was of another type, and was set aside then."""
    return f"flowd:damaged:{at_ms}:"


def schedule(name: str) -> str:
    """Hash: a schedule, and how far it has come.

    said (JSON, as it was put), workflow (the saved definition it runs), revision (another one after
    each change), next_ms (the first time that was not met yet, Unix ms; empty where there is none),
    queued_ms (a time that is kept until the execution before has ended), waits (1 while a time
    waits for that), fired, missed, skipped (how many times), unmet and unmet_ms (how many were
    missed within a day of each other, and the first of them), last_ms and last_id (the newest time
    that has run, and its execution), error and failures (why the next one could not be made, and
    how often in a row), callback (1 where somebody is told what was missed or skipped).
    """
    return f"flowd:schedule:{name}"


def schedule_holders(name: str) -> str:
    """Set: the executions that a schedule has started and that have not ended."""
    return f"flowd:schedule:{name}:holders"


def holders(place: str) -> str:
    """Zset: `execution_id node_id` that holds a place of a limit, by since when, ms.

    A place is the name of the limit, or `name/key`. `<this>:rate` (string that expires) is when its
    next start is due on average, ms.
    """
    return f"flowd:limit:{place}"


def waiters(place: str) -> str:
    """Zset: `execution_id node_id` that waits for a place of a limit, by when it was queued, ms."""
    return f"flowd:limit:{place}:waiters"


def kept_output(name: str) -> str:
    """String that expires: `written_ms ttl_ms output`: what a call of a handler came to.

    The name is the handler and, behind a `/`, `=` and its key, or `~` and a digest of its config.
    """
    return f"flowd:cache:{name}"


def places(execution_id: str) -> str:
    """Hash: node -> the place of a limit it holds or waits for."""
    return f"workflow:{execution_id}:places"


def parked(execution_id: str) -> str:
    """Hash: the nodes kept back while the execution is paused -> deaths of their workers."""
    return f"workflow:{execution_id}:parked"


def waits(execution_id: str) -> str:
    """Hash: the nodes that are WAITING -> `number waker since_ms due_ms text`."""
    return f"workflow:{execution_id}:waits"


def decisions(execution_id: str) -> str:
    """Hash: node -> `number kind at_ms payload`: what ended its newest wait, or will."""
    return f"workflow:{execution_id}:decisions"


def run(execution_id: str) -> str:
    """Hash: what the engine counts while the execution runs.

    name, nodes, plan, roots, remaining, failed, callback, idempotency (digest of the key it was
    submitted with), rerun_of, rerun_as (the newest execution that reruns it), rerun_roots,
    input_schema (there is one), concurrency (`max when_full`), place (the digest of its key and the
    key, once it has asked for one), waiting (since when it waits for that by steady_ms, and the
    consumer group), definition (`name@version`), labels (a line `name=value` each), parent (its id,
    the node there, which wait of that it is for, the root of the tree, how deep it is), children
    (how many have not ended), tree (at the root, how many executions it has), payer (the execution
    whose budget it spends, and how many tokens that is), queues (those its nodes are in, but for
    the default), queue (that of its nodes) and `queue:<node>` (of those that have another; of all
    three none where all are in the default one), rerun_failed (what failed of rerun_of), schedule,
    scheduled_at (ISO 8601), submitted_ms, triggered_ms, traceparent (of the trigger), finished_ms,
    finally (how many nodes that has, and its roots; until it begins), ends_as (what the others came
    to; from then on), `allowed:<node>` (failed as it may), `skipped:<node>` (why),
    `arrived:<join>`, `opened:<node>` (progress of a wide fan-out), `failures:<node>` and
    `error:<node>` (of attempts that were retried), `waits:<node>` (how often it has waited),
    failure (the node that failed first, and why), `report:<node>` (JSON: the `traceback` of its
    newest failure, or as `output` what a program wrote), `tokens:…` (what language models have
    cost: calls, prompt, completion, total, spent, reserved, `reserved:<node>`, `settled:<node>`),
    log_bytes (of its logs), log_dropped (lines that were too many for it), error (why the whole
    execution failed).
    """
    return f"workflow:{execution_id}:run"


def attempts(execution_id: str) -> str:
    """Hash: node id -> `attempt queued_ms waited_ms ran_ms consumer` of its newest attempt."""
    return f"workflow:{execution_id}:attempts"


def history(execution_id: str) -> str:
    """Hash: `node attempt` -> the record of an attempt before the newest, and its error, a line
    each. The first of a node and its last 20, the newest counted."""
    return f"workflow:{execution_id}:history"


def logs(execution_id: str) -> str:
    """Zset: `node attempt` of each attempt that has a log, by when that has grown, ms."""
    return f"workflow:{execution_id}:logs"


def log(execution_id: str, node_id: str, attempt: int | str) -> str:
    """Stream: what an attempt of a node said, in entries `<number>-0` with `lines` (`at_ms stream
    text`, a line each) and `dropped` (how many are gone so far)."""
    return f"workflow:{execution_id}:log:{node_id}:{attempt}"


def map_of(execution_id: str, node_id: str) -> str:
    """Hash: how far the items of a node with `map` are; there once its list is stored whole.

    n, window, max_failed, fail_fast, bytes_max (of its output; 0 is no limit), ended, failed, bytes
    (what the outputs of its items have), failure (the first that failed, and why), stopped (why no
    further item starts: failed, bytes).
    """
    return f"workflow:{execution_id}:map:{node_id}"


def map_items(execution_id: str, node_id: str) -> str:
    """Hash: index -> item (JSON) of a node with `map`."""
    return f"workflow:{execution_id}:map:{node_id}:items"


def map_todo(execution_id: str, node_id: str) -> str:
    """List: the indexes that wait for a place, the next first; `17+` has had an attempt."""
    return f"workflow:{execution_id}:map:{node_id}:todo"


def map_open(execution_id: str, node_id: str) -> str:
    """Set: the indexes that have a place: QUEUED, RUNNING, WAITING or parked."""
    return f"workflow:{execution_id}:map:{node_id}:open"


def children(execution_id: str) -> str:
    """Hash: execution id of a child -> `node number`: the wait of the node that it is for."""
    return f"workflow:{execution_id}:children"


def callback(subject: str) -> str:
    """Hash: state, attempts, last_status, last_error, delivered_ms of the callback about an
    execution, named by its id, or about a schedule, `schedule <name>`. Of that also missed and
    skipped (how many times were, and nobody was told yet), last_ms (the last of them), and before
    (the attempts at what was told before)."""
    name = schedule_in(subject)
    return f"workflow:{subject}:callback" if name is None else f"{schedule(name)}:callback"


def about_schedule(name: str) -> str:
    """What stands for a schedule among those that are called back about."""
    return f"{_ABOUT_SCHEDULE}{name}"


def schedule_in(subject: str) -> str | None:
    """The name of the schedule it is; None for an execution."""
    return subject.removeprefix(_ABOUT_SCHEDULE) if subject.startswith(_ABOUT_SCHEDULE) else None


_ABOUT_SCHEDULE: Final = "schedule "
