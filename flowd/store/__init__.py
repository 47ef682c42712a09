"""Keep everything in Redis, of which no other room knows a key or an error.

A file for each thing that is stored; its methods are the verbs of that thing. Each transition of a
node or an execution is one script of `lua`, atomic and safe to send again after a lost reply: the
scripts answer with outcome words, and what they cannot do in one call they leave as a continuation.

`redis` has the client, the names of the keys and the scripts. May use: workflow, config, the tree
of errors. Called by every room above it, which never spells a key.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowd.config import Settings
from flowd.store.attention import Attention
from flowd.store.budgets import Budgets
from flowd.store.callbacks import Callbacks
from flowd.store.children import Children
from flowd.store.dead_letters import DeadLetters
from flowd.store.events import Events
from flowd.store.executions import Executions
from flowd.store.finished import FinishedExecutions
from flowd.store.inspection import Inspection
from flowd.store.lifecycle import Lifecycle
from flowd.store.metrics import Metrics
from flowd.store.nodes import Nodes
from flowd.store.redis.client import RedisClient
from flowd.store.redis.replicated import new_client
from flowd.store.results import StoredResults
from flowd.store.retries import Retries
from flowd.store.saved import SavedDefinitions
from flowd.store.schedules import Schedules
from flowd.store.standing import Standing
from flowd.store.submissions import Submissions
from flowd.store.tasks import Tasks
from flowd.store.troubles import Troubles

__all__ = ["Store", "open_store"]


class Health:
    """How flowd itself is: what is counted, what stands in the queue, what is wrong, and what it
    gave up."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self.attention = Attention(client)
        self.dead_letters = DeadLetters(client)
        self.inspection = Inspection(client, settings)
        self.metrics = Metrics(client, settings)
        self.standing = Standing(client, settings)
        self.troubles = Troubles(client)


class Store:
    """Everything flowd keeps, by what it is about."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self.callbacks = Callbacks(client)
        self.children = Children(client)
        self.events = Events(client)
        self.executions = Executions(client, settings)
        self.nodes = Nodes(client, settings)
        self.finished = FinishedExecutions(client, settings, self.nodes)
        self.budgets = Budgets(client)
        self.health = Health(client, settings)
        self.lifecycle = Lifecycle(client, settings)
        self.retries = Retries(client, settings)
        self.saved = SavedDefinitions(client)
        self.submissions = Submissions(client, settings, self.executions, self.nodes.maps)
        self.schedules = Schedules(client, settings)
        self.tasks = Tasks(client, settings)

    async def open_results(self, execution_id: str, node_ids: Sequence[str]) -> StoredResults:
        """The outputs of these nodes. Raises UnknownExecution, or ResultsTooLarge."""
        sizes = await self.nodes.output_sizes(execution_id, node_ids)
        await self.executions.execution_status(execution_id)
        return StoredResults(
            self._client, self.executions, execution_id, dict(zip(node_ids, sizes, strict=True))
        )

    async def ping(self) -> None:
        """Raises StoreUnavailable while Redis does not answer."""
        await self._client.execute("PING")

    async def close(self) -> None:
        await self.retries.close()
        await self._client.close()


def open_store(settings: Settings) -> Store:
    """A store on the Redis of these settings. Connections are made when they are needed."""
    return Store(new_client(settings), settings)
