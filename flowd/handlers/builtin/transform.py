"""Reshape JSON by a JMESPath expression: pick, filter, sort and sum up, without any code."""

from __future__ import annotations

from typing import Any, Final

from jmespath.exceptions import JMESPathError
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from flowd.errors import Fail
from flowd.handlers.bounded_jmespath import parse_expression, search
from flowd.handlers.config import NodeConfig
from flowd.handlers.context import HandlerContext
from flowd.handlers.outcome import OUTPUT_BYTES_MAX
from flowd.handlers.registry import handler

EXPRESSION_CHARS_MAX: Final = 16_384


class TransformConfig(NodeConfig):
    input: Any = Field(description='give the JSON to work on, such as "{{ A }}"')
    # The parser's time grows with the square of a text in it.
    expression: str = Field(
        min_length=1, max_length=EXPRESSION_CHARS_MAX, description="give a JMESPath expression"
    )

    @field_validator("expression")
    @classmethod
    def _can_be_parsed(cls, expression: str) -> str:
        try:
            parse_expression(expression)
        except JMESPathError as error:
            message = "this is not a valid JMESPath expression: {reason}"
            raise PydanticCustomError("jmespath", message, {"reason": _line(error)}) from None
        except RecursionError:
            raise PydanticCustomError("jmespath", "this goes too deep") from None
        return expression


# In a thread: an expression over megabytes takes its time.
@handler("transform")
def transform(config: TransformConfig, _context: HandlerContext) -> dict[str, Any]:
    """Reshapes JSON by a JMESPath expression."""
    try:
        return {"result": search(config.expression, config.input, OUTPUT_BYTES_MAX)}
    except JMESPathError as error:
        raise Fail(f"config.expression cannot be applied: {_line(error)}") from None


def _line(error: JMESPathError) -> str:
    """A parser's text draws an arrow below the expression; here it is one line."""
    return " ".join(str(error).split())
