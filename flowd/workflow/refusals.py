"""Say what pydantic refused in flowd's words: the pieces that every place which asks it needs."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from flowd.workflow.suggestions import Suggestions

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails


def message_of(error: ErrorDetails) -> str:
    text = error["msg"].removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def names_of(model: type[BaseModel]) -> list[str]:
    """The fields of a model as they are written."""
    return [field.alias or name for name, field in model.model_fields.items()]


def hint_among(name: str, known: Collection[str]) -> str:
    """Which of the known names may have been meant, or else all of them; to stand behind a text."""
    return Suggestions(known).hint(name) or (f"; there is {', '.join(known)}" if known else "")
