"""Nodes of the handler `workflow`: which saved definition each of them runs, as a child.

The name and the version are literal: the version is settled when the parent is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from flowd.errors import Problem
from flowd.workflow.graph import nodes_of
from flowd.workflow.ids import WORKFLOW
from flowd.workflow.references import ReadingNode
from flowd.workflow.secret_places import find_secrets
from flowd.workflow.strict_json import join_path
from flowd.workflow.templating import OPENING

# What a node that waits for its child says it waits for.
CHILD: Final = "child"
# The root is 1 deep.
DEPTH_MAX: Final = 16
# Counted at the root, which is one of them.
TREE_MAX: Final = 10_000


class Parent(NamedTuple):
    """The wait of a node that a child is made for; its number is one more than the attempts of the
    node that have failed.
    """

    execution_id: str
    node_id: str
    number: int


def called_by(document: Mapping[str, Any]) -> list[str]:
    """The names of the saved workflows that its nodes run."""
    return sorted(
        {node["config"]["name"] for node in nodes_of(document) if node["handler"] == WORKFLOW}
    )


def find_child_problems(node: ReadingNode) -> Iterator[Problem]:
    """What is wrong with its name, and with secrets in what it is given."""
    if node.handler != WORKFLOW:
        return
    for name in ("name", "version"):
        value = node.config.get(name)
        if isinstance(value, str) and OPENING in value:
            message = f"{name} is literal, and no template: which workflow runs is known at submit"
            yield Problem(f"{node.path}.config.{name}", "literal_config", message)
    for steps, secret in find_secrets(node.config):
        path = f"{node.path}.config"
        for step in steps:
            path = f"{path}[{step}]" if isinstance(step, int) else join_path(path, step)
        message = (
            f"the input of a child is stored, and secrets are not: read {secret!r} in the workflow "
            "that uses it"
        )
        yield Problem(path, "stored_secret", message)
