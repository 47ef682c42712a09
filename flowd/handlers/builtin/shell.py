"""Run a program on this machine. Off until the operator turns it on.

The program is started without a shell, in a process group of its own, and with little of flowd's
environment: that may hold keys. Whatever is left of the group at the end is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, NamedTuple

import orjson
from pydantic import BeforeValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from flowd.errors import Fail, HandlerFailed
from flowd.handlers.config import NodeConfig
from flowd.handlers.context import HandlerContext
from flowd.handlers.limits import SHELL_IS_OFF
from flowd.handlers.registry import handler
from flowd.node_log import BytesFeed
from flowd.redaction import REDACTOR
from flowd.workflow.retrying import UNFORESEEN

_PASSED_ON: Final = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_ALL")
_ERROR_CHARS_MAX: Final = 500
# Of each stream of a program that failed.
_KEPT_CHARS_MAX: Final = 8_000
_REAP_LIMIT_S: Final = 5.0


def _number_to_text(value: Any) -> Any:
    # An argument that is exactly one template keeps its JSON type.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


Argument = Annotated[str, BeforeValidator(_number_to_text)]


class ShellConfig(NodeConfig):
    command: list[Argument] = Field(
        min_length=1, description='give the program and its arguments, such as ["ls", "-l"]'
    )
    stdin: str | None = None
    env: dict[str, Argument] = Field(default_factory=dict)
    cwd: str | None = None
    expected_exit_codes: list[int] = Field(default=[0], min_length=1)
    timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    output: Literal["whole", "end"] = "whole"

    @field_validator("command", "env", "cwd")
    @classmethod
    def _holds_no_nul(cls, value: Any) -> Any:
        texts = [*value, *value.values()] if isinstance(value, dict) else value or ()
        if any("\0" in text for text in texts):
            raise PydanticCustomError("nul", "a NUL character cannot be passed to a program")
        return value


@handler("shell")
async def shell(config: ShellConfig, context: HandlerContext) -> dict[str, Any]:
    """Runs a program and returns its exit code and what it wrote."""
    settings = context.settings.handlers.shell
    if not settings.enabled:
        raise Fail(SHELL_IS_OFF)
    process = await _start(config)
    timeout_s = config.timeout_s or settings.timeout_s
    keep = _keep_end if config.output == "end" else _Whole(settings.output_max_mb)
    written = _Written(bytearray(), bytearray())
    feeds = [BytesFeed(context.feed, name) for name in written._fields]
    try:
        async with asyncio.timeout(timeout_s):
            _, _, code, _ = await asyncio.gather(
                _read(process.stdout, "stdout", written.stdout, keep, feeds[0]),
                _read(process.stderr, "stderr", written.stderr, keep, feeds[1]),
                _end(process),
                _feed(process.stdin, config.stdin),
            )
    except TimeoutError:
        text = f"{config.command[0]!r} did not end within {timeout_s:g} s and was killed"
        raise _failure(text, None, written, kinds=frozenset({"timeout"})) from None
    except HandlerFailed as error:
        raise _failure(str(error), None, written) from None
    finally:
        _kill_group(process)
        for feed in feeds:
            feed.close()
        # A pipe that was not read to its end would stay open, and asyncio offers no other way. It
        # comes first: to some loops a process has not ended while its pipes are open.
        process._transport.close()  # type: ignore[attr-defined]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REAP_LIMIT_S):
                await process.wait()
    if code not in config.expected_exit_codes:
        raise _failure(_refusal(config.command[0], code, written), code, written)
    texts = {name: _text(output) for name, output in written._asdict().items()}
    if config.output == "end":
        texts = {name: text[-_KEPT_CHARS_MAX:] for name, text in texts.items()}
    return {"exit_code": code, **texts}


class _Written(NamedTuple):
    """What a program has written so far."""

    stdout: bytearray
    stderr: bytearray


def _failure(
    text: str, code: int | None, written: _Written, kinds: frozenset[str] = UNFORESEEN
) -> HandlerFailed:
    """With the end of what the program wrote, for whoever looks at the node."""
    failure = HandlerFailed(text, kinds=kinds)
    ends = {name: _end_of(output) for name, output in written._asdict().items()}
    failure.report = orjson.dumps({"output": {"exit_code": code, **ends}})
    return failure


def _end_of(output: bytearray) -> str:
    # Redacted before it is cut: half a secret would not be found any more.
    text = REDACTOR.text(_text(output))
    return text if len(text) <= _KEPT_CHARS_MAX else f"…{text[-_KEPT_CHARS_MAX:]}"


async def _start(config: ShellConfig) -> asyncio.subprocess.Process:
    environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    pipe = asyncio.subprocess.PIPE
    try:
        return await asyncio.create_subprocess_exec(
            *config.command,
            stdin=asyncio.subprocess.DEVNULL if config.stdin is None else pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=config.cwd,
            env=environ | config.env,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise HandlerFailed(f"{config.command[0]!r} cannot be started: {reason}") from None


async def _read(
    stream: asyncio.StreamReader | None,
    name: str,
    output: bytearray,
    keep: Callable[[bytearray, str], None],
    feed: BytesFeed,
) -> None:
    assert stream is not None
    while chunk := await stream.read(65536):
        feed.write(chunk)
        output += chunk
        keep(output, name)


class _Whole:
    """Keeps all that a program writes, up to a limit."""

    def __init__(self, max_mb: float) -> None:
        self._bytes_max = int(max_mb * 1024 * 1024)

    def __call__(self, output: bytearray, name: str) -> None:
        if len(output) > self._bytes_max:
            raise HandlerFailed(
                f"the program wrote more than {self._bytes_max} bytes to {name}; raise "
                'handlers.shell.output_max_mb, or write "output": "end" to keep only the end'
            )


def _keep_end(output: bytearray, _name: str) -> None:
    """As much as the last characters may have."""
    del output[: -4 * _KEPT_CHARS_MAX]


async def _end(process: asyncio.subprocess.Process) -> int:
    code = await process.wait()
    # What it left running may hold its pipes open for ever.
    _kill_group(process)
    return code


async def _feed(stream: asyncio.StreamWriter | None, text: str | None) -> None:
    if stream is None or text is None:
        return
    # A program need not read what it is given. uvloop says RuntimeError for a pipe that is closed.
    with contextlib.suppress(ConnectionError, RuntimeError):
        stream.write(text.encode())
        await stream.drain()
    stream.close()


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _refusal(program: str, code: int, written: _Written) -> str:
    ending = f"exited with {code}" if code >= 0 else f"was killed by {_signal_name(-code)}"
    said = REDACTOR.text(" ".join(_text(written.stderr or written.stdout).split()))[
        :_ERROR_CHARS_MAX
    ]
    return f"{program!r} {ending}: {said}" if said else f"{program!r} {ending}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _text(output: bytes | bytearray) -> str:
    return output.decode("utf-8", "replace")
