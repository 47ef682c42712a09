"""Wait for a signal: a decision of a person, or a call of another system.

Whatever judges a signal is literal, since it may come before the node has begun to wait.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from flowd.errors import Fail, WaitFor
from flowd.handlers.config import NodeConfig, PromptText, SchemaObject
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler
from flowd.workflow.signals import SIGNAL, answer_of, describe, signal_of

PROMPT_CHARS_MAX: Final = 2_000


class SignalConfig(NodeConfig):
    json_schema: SchemaObject | None = Field(
        default=None, alias="schema", description="a JSON Schema for what is sent"
    )
    on_timeout: Literal["fail", "complete"] = Field(
        default="fail", description="what becomes of the node when nobody answers in time"
    )
    default: Any = Field(default=None, description="what it completes with then")
    prompt: PromptText | None = Field(default=None, description="what people are asked")


@handler(SIGNAL, inline=True)
def signal(config: SignalConfig, context: HandlerContext) -> dict[str, Any]:
    """Waits for a signal, and completes with what was sent."""
    decision = context.decision
    if decision is None:
        prompt = config.prompt or ""
        is_whole = len(prompt) <= PROMPT_CHARS_MAX
        raise WaitFor(SIGNAL, text=prompt if is_whole else prompt[:PROMPT_CHARS_MAX] + "…")
    sent = signal_of(decision.payload) if decision.kind == SIGNAL else None
    answer = answer_of(sent, config.default, decision.at_ms)
    if answer.rejected:
        raise Fail(describe(answer))
    if answer.timed_out and config.on_timeout == "fail":
        raise Fail(f"timed out: {describe(answer)}", kinds=frozenset({"timeout"}))
    return answer.output()
