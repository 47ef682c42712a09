"""A schedule as a user writes it: what runs, when, and what is done about times that clash."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from flowd.errors import WAIT_S_MAX
from flowd.workflow.definition import CallbackDefinition
from flowd.workflow.secret_places import SECRET_KEY, find_secret_problems
from flowd.workflow.timetable import EVERY_S_MAX, CatchUp, Timetable

Overlap = Literal["skip", "queue", "replace", "allow"]
LATEST: Final = "latest"
# What validates one that was put already.
STORED: Final = "stored"
# Other braces may be for whom it is sent to.
_TEMPLATE: Final = re.compile(r"\{\{\s*(?:execution|input)\b[^}]{0,100}\}{0,2}")


def _find_template(value: Any) -> str | None:
    """One that means what a workflow reads, as it is written."""
    found = _TEMPLATE.search(json.dumps(value, ensure_ascii=False))
    return found and found[0]


class ScheduleCallback(CallbackDefinition):
    """Who is told of times that were missed or skipped; `secret` signs what they are told."""

    @field_validator("secret")
    @classmethod
    def _is_secret(cls, secret: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        if isinstance(secret, dict):
            for problem in find_secret_problems({SECRET_KEY: None} | secret, ""):
                raise PydanticCustomError("secret", "{text}", {"text": problem.message})
        return secret


class ScheduleDefinition(BaseModel):
    """`overlap` says what is done about a time at which the execution before has not ended,
    `catch_up` which of the times run later at which no scheduler was there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    workflow: Annotated[str, Field(description="the name of a saved definition")]
    version: Annotated[int, Field(ge=1)] | Literal["latest"] = LATEST
    cron: str | None = Field(
        default=None, description="minute, hour, day of the month, month, day of the week"
    )
    every_s: Annotated[int, Field(ge=1, le=EVERY_S_MAX)] | None = None
    timezone: str = "UTC"
    input: dict[str, Any] = {}
    overlap: Overlap = "skip"
    catch_up: CatchUp = "last"
    catch_up_window_s: Annotated[int, Field(ge=0, le=int(WAIT_S_MAX))] = 3600
    paused: bool = False
    callback: ScheduleCallback | None = Field(
        default=None, strict=False, description="who is told of times that are missed or skipped"
    )

    @field_validator("version", mode="before")
    @classmethod
    def _is_version(cls, version: Any) -> Any:
        if version != LATEST and (type(version) is not int or version < 1):
            raise PydanticCustomError("version", "write the number of a version, or 'latest'")
        return version

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str | None) -> str | None:
        if cron is not None:
            Timetable(cron=cron)
        return cron

    @field_validator("input")
    @classmethod
    def _is_literal(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if info.context != STORED and (text := _find_template(given)):
            message = (
                "{text} is not rendered: an input is taken as it is written; write it into the "
                "workflow, whose templates read execution.scheduled_at and input"
            )
            raise PydanticCustomError("template", message, {"text": text})
        return given

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, timezone: str) -> str:
        Timetable(every_s=1, timezone=timezone)
        return timezone

    @model_validator(mode="after")
    def _says_when(self) -> ScheduleDefinition:
        if (self.cron is None) == (self.every_s is None):
            raise PydanticCustomError(
                "schedule",
                "say when it runs: by either cron, such as '30 6 * * 1-5', or every_s",
            )
        return self

    @cached_property
    def timetable(self) -> Timetable:
        return Timetable(cron=self.cron, every_s=self.every_s, timezone=self.timezone)

    def to_json(self) -> bytes:
        """What it says beyond the defaults: equal schedules give equal bytes."""
        return orjson.dumps(self.model_dump(exclude_defaults=True), option=orjson.OPT_SORT_KEYS)
