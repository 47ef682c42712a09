"""What everything that the API takes and answers is described by."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Built when it is first used: there are dozens, of which a process needs a few, and building
    them took a tenth of a start."""

    model_config = ConfigDict(defer_build=True)
