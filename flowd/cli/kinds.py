"""The kinds of documents a file may hold, a row each: how one is told, checked, found and put."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowd.cli.documents import Verdict
from flowd.errors import Problem
from flowd.workflow.ids import NAME_RULE, is_name
from flowd.workflow.refusals import problem_of
from flowd.workflow.report import quote

if TYPE_CHECKING:
    from pydantic import BaseModel

    from flowd.client import Client

CREATED, CHANGED, UNCHANGED = "created", "changed", "unchanged"
Content = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """`marks` are the fields of which a document of this kind has one. `put` says what became of
    it: it is given the content, and the document as it was written. `find` is what is there in
    the form of `said`, None for nothing; both leave out what is not to be compared. The model is
    loaded when it is asked for: who has a flowd check a document does without.
    """

    name: str
    marks: frozenset[str]
    load_model: Callable[[], type[BaseModel]]
    said: Callable[[Content], Content]
    find: Callable[[Client, str], Content | None]
    put: Callable[[Client, str, Content, bytes], str]
    delete: Callable[[Client, str], None]

    @property
    def model(self) -> type[BaseModel]:
        return self.load_model()

    def problems(self, content: Any) -> list[Problem]:
        """What the model refuses; not what only flowd can tell."""
        from pydantic import ValidationError

        try:
            self.model.model_validate(_nameless(self, content))
        except ValidationError as refused:
            return [problem_of(self.model, one) for one in refused.errors(include_url=False)]
        return []


def _nameless(kind: Kind, content: Any) -> Any:
    """Of what is not named inside, only the file says under which name it stands."""
    if "name" in kind.model.model_fields or not isinstance(content, dict):
        return content
    return {key: value for key, value in content.items() if key != "name"}


def kind_of(content: Any) -> Kind:
    """What a document is meant to be; a definition where nothing says otherwise."""
    keys = content.keys() if isinstance(content, dict) else set()
    return next((kind for kind in KINDS if keys & kind.marks), KINDS[0])


def name_problems(content: Any) -> list[Problem]:
    """What is wrong with the name under which a document is to stand."""
    name = content.get("name") if isinstance(content, dict) else None
    if name is None:
        return [Problem("name", "missing_field", "a document that is applied needs a name")]
    if not isinstance(name, str) or not is_name(name):
        shown = quote(name) if isinstance(name, str) else repr(name)
        return [Problem("name", "bad_name", f"bad name {shown}; use {NAME_RULE}")]
    return []


def verdict_by_itself(content: Any, hidden: Sequence[Problem]) -> Verdict | None:
    """What is wrong with a schedule or a limit, as far as it says so itself; None for a
    workflow."""
    kind = kind_of(content)
    if kind is KINDS[0]:
        return None
    # Without a name it is for `flowd schedules put NAME FILE`.
    names = name_problems(content) if "name" in content else []
    return Verdict([*names, *kind.problems(content), *hidden])


def _definition() -> type[BaseModel]:
    from flowd.workflow.definition import WorkflowDefinition

    return WorkflowDefinition


def _schedule() -> type[BaseModel]:
    from flowd.workflow.schedule import ScheduleDefinition

    return ScheduleDefinition


def _said_definition(content: Content) -> Content:
    from flowd.api.routers.listing import without_secrets
    from flowd.workflow.definition import WorkflowDefinition

    said = json.loads(WorkflowDefinition.model_validate(content).to_json())
    return without_secrets(said)


def _found(find: Callable[[], dict[str, Any]], unknown: str) -> dict[str, Any] | None:
    from flowd.client import ApiError

    try:
        return find()
    except ApiError as error:
        if error.code != unknown:
            raise
        return None


def _find_definition(client: Client, name: str) -> Content | None:
    found = _found(lambda: client.saved_definition(name), "unknown_definition")
    return None if found is None else dict(found["definition"])


def _put_definition(client: Client, name: str, _: Content, body: bytes) -> str:
    answer = client.put_definition(name, body)
    if answer["message"].endswith(UNCHANGED):
        return UNCHANGED
    version = answer["version"]
    return CREATED if version == 1 else f"{CHANGED} (version {version})"


def _said_schedule(content: Content) -> Content:
    from flowd.api.routers.listing import without_secrets

    said = {key: value for key, value in content.items() if key != "name"}
    return without_secrets(_schedule().model_validate(said).model_dump())


def _find_schedule(client: Client, name: str) -> Content | None:
    found = _found(lambda: client.schedule(name), "unknown_schedule")
    if found is None:
        return None
    return {one: found[one] for one in _schedule().model_fields}


def _put_schedule(client: Client, name: str, content: Content, _: bytes) -> str:
    said = {key: value for key, value in content.items() if key != "name"}
    if "paused" not in said and (found := _find_schedule(client, name)):
        # Whoever held it up by hand lets it go on by hand.
        said["paused"] = found["paused"]
    return str(client.put_schedule(name, said)["message"]).rpartition(" ")[2]


def _limit() -> type[BaseModel]:
    from flowd.workflow.limits import LimitRule

    return LimitRule


def _said_limit(content: Content) -> Content:
    said = {key: value for key, value in content.items() if key != "name"}
    return _limit().model_validate(said).model_dump()


def _find_limit(client: Client, name: str) -> Content | None:
    found = _found(lambda: client.limit(name), "unknown_limit")
    return None if found is None else {one: found[one] for one in _limit().model_fields}


def _put_limit(client: Client, name: str, content: Content, _: bytes) -> str:
    answer = client.put_limit(name, **_said_limit(content))
    return str(answer["message"]).rpartition(" ")[2]


# In the order in which they are made: each may refer to those before.
KINDS: Sequence[Kind] = (
    Kind(
        "definition",
        frozenset({"dag"}),
        _definition,
        _said_definition,
        _find_definition,
        _put_definition,
        lambda client, name: client.delete_definition(name),
    ),
    Kind(
        "schedule",
        frozenset({"cron", "every_s", "workflow"}),
        _schedule,
        _said_schedule,
        _find_schedule,
        _put_schedule,
        lambda client, name: client.delete_schedule(name),
    ),
    Kind(
        "limit",
        frozenset({"max", "per_s", "burst"}),
        _limit,
        _said_limit,
        _find_limit,
        _put_limit,
        lambda client, name: client.delete_limit(name),
    ),
)
