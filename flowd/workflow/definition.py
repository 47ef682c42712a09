"""The workflow as a user writes it: names, nodes, dependencies and configs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, FailFast, Field

from flowd.errors import WAIT_S_MAX
from flowd.workflow.ids import LABEL_VALUE_PATTERN, NAME_PATTERN

# No colon, because ids are parts of key names; no dot, because templates separate keys by it.
NODE_ID_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$"
NAME_CHARS_MAX = 256

ATTEMPTS_MAX = 1000
# A day: whoever waits longer for a node wants a schedule.
SECONDS_MAX = 86_400.0
CONDITION_CHARS_MAX = 4_000
MAP_CONCURRENCY_MAX = 1_000
PLACES_MAX = 10_000
LIMIT_KEY_CHARS_MAX = 1_000
# A year: what is kept longer belongs where data is kept.
CACHE_S_MAX = 366 * SECONDS_MAX
# What a retry may be limited to: a failure's kind, a status, or a class of them.
FAILURE_KIND_PATTERN = r"^(error|timeout|connection|status|[1-5]\d\d|[1-5]xx)$"

REPEATS_MAX = 100_000
LABELS_MAX = 20

Condition = Annotated[str, Field(min_length=1, max_length=CONDITION_CHARS_MAX)]
FailureKind = Annotated[str, Field(pattern=FAILURE_KIND_PATTERN)]
NodeId = Annotated[str, Field(pattern=NODE_ID_PATTERN)]
QueueName = Annotated[str, Field(pattern=NAME_PATTERN)]
LabelName = Annotated[str, Field(pattern=NAME_PATTERN)]
LimitName = Annotated[str, Field(pattern=NAME_PATTERN)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE_PATTERN)]
Labels = Annotated[dict[LabelName, LabelValue], Field(max_length=LABELS_MAX)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX)]


class _Definition(BaseModel):
    # A field we do not know is most often a typo, and a typo must not be ignored in silence.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RetryDefinition(_Definition):
    """How often and when a failed node runs again; what is left out comes from `[defaults]`."""

    max_attempts: Annotated[int, Field(ge=1, le=ATTEMPTS_MAX)] | None = None
    delay_s: Annotated[float, Field(ge=0, le=SECONDS_MAX, allow_inf_nan=False)] | None = None
    backoff: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] | None = None
    max_delay_s: Annotated[float, Field(ge=0, le=SECONDS_MAX, allow_inf_nan=False)] | None = None
    jitter: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    on: Annotated[list[FailureKind], Field(min_length=1, max_length=100)] | None = None


class RepeatDefinition(_Definition):
    """Until what a node that ended well is called again, how often, and after which pauses."""

    until: Condition
    delay_s: Annotated[float, Field(ge=0, le=WAIT_S_MAX, allow_inf_nan=False)] | None = None
    backoff: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] | None = None
    max_delay_s: Annotated[float, Field(ge=0, le=WAIT_S_MAX, allow_inf_nan=False)] | None = None
    max_times: Annotated[int, Field(ge=1, le=REPEATS_MAX)] | None = None


class MapDefinition(_Definition):
    """A node that runs once for each item of a list.

    `concurrency` items are under way at a time; more than `max_failed` failures fail the node,
    after the rest has ended or, with `fail_fast`, at once. Without `results` the outputs stay with
    the items.
    """

    over: Annotated[str, Field(min_length=1, max_length=CONDITION_CHARS_MAX)]
    concurrency: Annotated[int, Field(ge=1, le=MAP_CONCURRENCY_MAX)] = 50
    max_failed: Annotated[int, Field(ge=0, le=10**6)] = 0
    fail_fast: bool = False
    results: bool = True


class LimitDefinition(_Definition):
    """Which limit a node takes a place of; each `key`, a template, has places of its own."""

    name: LimitName
    key: Annotated[str, Field(min_length=1, max_length=LIMIT_KEY_CHARS_MAX)] | None = None


class CacheDefinition(_Definition):
    """For how long the output of a node stands for equal calls; `key`, a template, says which are
    equal, without it the config does."""

    ttl_s: Annotated[float, Field(ge=1, le=CACHE_S_MAX, allow_inf_nan=False)]
    key: Annotated[str, Field(min_length=1, max_length=CONDITION_CHARS_MAX)] | None = None


class NodeDefinition(_Definition):
    """`after` and `when` say when it runs at all; None is after its dependencies have completed.
    `queue` says which workers run it; None is that of the definition.
    """

    id: NodeId
    handler: str
    # Lists stop at their first bad item: a body of a million bad items must not cost a million
    # error objects. Whoever explains a refusal looks at the items one by one.
    dependencies: Annotated[list[str], FailFast()] = []
    config: dict[str, Any] = {}
    retry: RetryDefinition | None = None
    # More than a day is for nodes that wait for a signal; the validator says so to the others.
    timeout_s: Annotated[float, Field(gt=0, le=WAIT_S_MAX, allow_inf_nan=False)] | None = None
    after: Literal["completed", "failed", "ended"] | None = None
    when: Condition | None = None
    allow_failure: bool = False
    repeat: RepeatDefinition | None = None
    map: MapDefinition | None = None
    limit: LimitName | LimitDefinition | None = None
    queue: QueueName | None = None
    cache: CacheDefinition | None = None


class DagDefinition(_Definition):
    """`finally_` are the nodes that run when all others have ended, however they have."""

    nodes: Annotated[list[NodeDefinition], FailFast(), Field(min_length=1)]
    finally_: Annotated[list[NodeDefinition], FailFast()] = Field(default=[], alias="finally")


class ConcurrencyDefinition(_Definition):
    """How many executions with the same key run at a time, and what a further one does."""

    key: Annotated[str, Field(min_length=1, max_length=CONDITION_CHARS_MAX)] | None = None
    max: Annotated[int, Field(ge=1, le=PLACES_MAX)] = 1
    when_full: Literal["queue", "refuse", "replace"] = "queue"


class BudgetDefinition(_Definition):
    """What an execution may spend: on the prompts and answers of its llm nodes together."""

    tokens: Annotated[int, Field(ge=1, le=10**12)]


class CallbackDefinition(_Definition):
    """Who is told when the execution has ended, or of a schedule, that times of it were missed or
    skipped; `secret` signs what they are told."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s/?#]+", max_length=2048)]
    secret: Annotated[str, Field(min_length=1, max_length=1024)] | dict[str, Any] | None = None


class WorkflowDefinition(_Definition):
    """`input_schema` is a JSON Schema for the input; `output`, with templates, what an execution
    that completed is worth to a caller, its results where there is none.
    """

    name: Name
    dag: DagDefinition
    input: dict[str, Any] | None = None
    budget: BudgetDefinition | None = None
    concurrency: ConcurrencyDefinition | None = None
    callback: CallbackDefinition | None = None
    input_schema: dict[str, Any] | None = None
    output: Any = None
    labels: Labels = {}
    queue: QueueName | None = None

    def to_json(self) -> bytes:
        """The normalised definition: fields in one order, those nobody gave left out.

        Equal definitions give equal bytes, however they were written. Built by hand because
        `model_dump_json` takes four times as long.
        """
        nodes = [_node_document(node) for node in self.dag.nodes]
        dag = {"nodes": nodes}
        if self.dag.finally_:
            dag["finally"] = [_node_document(node) for node in self.dag.finally_]
        document: dict[str, Any] = {"name": self.name, "dag": dag}
        if self.input is not None:
            document["input"] = self.input
        for name in ("budget", "callback"):
            part: BaseModel | None = getattr(self, name)
            if part is not None:
                document[name] = part.model_dump(exclude_none=True)
        if self.concurrency is not None:
            document["concurrency"] = self.concurrency.model_dump(exclude_none=True)
        for name in ("input_schema", "output", "queue"):
            value = getattr(self, name)
            if value is not None:
                document[name] = value
        if self.labels:
            document["labels"] = dict(sorted(self.labels.items()))
        return orjson.dumps(document)


def _node_document(node: NodeDefinition) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": node.id,
        "handler": node.handler,
        "dependencies": node.dependencies,
        "config": node.config,
    }
    for name in ("retry", "repeat", "cache"):
        part: BaseModel | None = getattr(node, name)
        if part is not None:
            document[name] = part.model_dump(exclude_none=True)
    for name in ("timeout_s", "after", "when", "queue"):
        value = getattr(node, name)
        if value is not None:
            document[name] = value
    if node.allow_failure:
        document["allow_failure"] = True
    if node.map is not None:
        document["map"] = node.map.model_dump(exclude_defaults=True)
    if isinstance(node.limit, LimitDefinition):
        document["limit"] = node.limit.model_dump(exclude_none=True)
    elif node.limit is not None:
        document["limit"] = node.limit
    return document
