"""A limit as a user writes it: how many nodes at once, and how many starts a second."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flowd.errors import FlowdError

MAX_MAX = 1_000_000
PER_S_MAX = 100_000.0


class UnknownLimit(FlowdError):
    """There is no limit of this name."""

    code = "unknown_limit"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"there is no limit {name!r}; GET /limits lists them")


_RATE: Final = "per_s"


class LimitRule(BaseModel):
    """Each may be left out, but not all. `burst` starts may follow each other at once."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "anyOf": [
                {"required": [_RATE], "properties": {_RATE: {"type": "number"}}},
                {
                    "required": ["max"],
                    "properties": {"max": {"type": "integer"}, "burst": {"type": "null"}},
                },
            ]
        },
    )

    max: Annotated[int, Field(ge=0, le=MAX_MAX)] | None = None
    per_s: Annotated[float, Field(gt=0, le=PER_S_MAX, allow_inf_nan=False)] | None = None
    burst: Annotated[int, Field(ge=1, le=MAX_MAX)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max is None and self.per_s is None:
            raise ValueError("a limit needs max, per_s or both")
        if self.burst is not None and self.per_s is None:
            raise ValueError("burst is how many starts of a rate may come together; add per_s")
        return self
