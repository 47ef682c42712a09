"""One connection on which many may ask: nobody waits with a question for another's reply.

The replies come in the order of the questions, so each question keeps its place until it is
answered, also when nobody waits for its reply any more.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import hiredis
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from flowd.store.redis.connecting import Driver, Parser

_NOTHING_YET: Final = object()
_CLOSED: Final = "Connection closed by server."


class _Question(NamedTuple):
    """`size` replies are its answer; `deadline` is the loop's time."""

    size: int
    deadline: float
    answer: asyncio.Future[list[Any]]
    replies: list[Any]


class Pipeline(asyncio.Protocol):
    """A connection that is logged in, taken over from its driver.

    A question whose time is up is an error for who asked it alone. No more are taken then, and the
    connection is closed when the others have their answers, or their time is up as well. So it is
    after the reply of a server that has become a replica.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._parser: Parser = driver._parser  # type: ignore[assignment]
        self._transport: Any = driver._writer.transport  # type: ignore[union-attr]
        self._reader = hiredis.Reader(
            protocolError=RedisConnectionError,
            replyError=self._parser.parse_error,
            encoding=driver.encoder.encoding,
            errors=driver.encoder.encoding_errors,
            notEnoughData=_NOTHING_YET,
        )
        self._questions: deque[_Question] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._check_at = math.inf
        self._transport.set_protocol(self)

    @property
    def peer(self) -> str:
        """Its server, as `host:port` or `unix:/path`."""
        driver = self._driver
        if isinstance(driver, UnixDomainSocketConnection):
            return f"unix:{driver.path}"
        return f"{driver.host}:{driver.port}"

    @property
    def is_usable(self) -> bool:
        return self._parser.is_settled and not self._transport.is_closing()

    def ask(self, packed: bytes, size: int, deadline: float) -> asyncio.Future[list[Any]]:
        """The replies to `size` commands; error replies stand in the list. Raises TimeoutError,
        and redis-py's ConnectionError: what was asked may have been done then."""
        if self._transport.is_closing():
            raise RedisConnectionError(_CLOSED)
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        self._questions.append(_Question(size, deadline, answer, []))
        if deadline < self._check_at:
            self._check_time_at(deadline)
        self._write(packed)
        return answer

    def _write(self, packed: bytes) -> None:
        self._transport.write(packed)

    def retire(self) -> None:
        """Take no more questions, and close when none is open."""
        self._parser.is_settled = False
        if all(one.answer.done() for one in self._questions):
            self._close()

    def close(self) -> None:
        """Who waits for a reply hears that there is no answer."""
        self._fail(RedisConnectionError(_CLOSED))

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            self._take_replies(self._reader.gets)
        except RedisConnectionError as error:
            self._fail(error)

    def _take_replies(self, read_reply: Callable[[], Any]) -> None:
        questions = self._questions
        while (reply := read_reply()) is not _NOTHING_YET:
            if not questions:
                raise RedisConnectionError("a reply came that nobody asked for")
            question = questions[0]
            question.replies.append(reply)
            if len(question.replies) == question.size:
                questions.popleft()
                self._answer(question)
        if not self._parser.is_settled:
            self.retire()

    def _answer(self, question: _Question) -> None:
        if question.answer.done():
            return
        if not self._parser.is_settled:
            for reply in question.replies:
                if isinstance(reply, RedisConnectionError):
                    question.answer.set_exception(reply)
                    return
        question.answer.set_result(question.replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or RedisConnectionError(_CLOSED))

    def _fail(self, error: Exception) -> None:
        for question in self._questions:
            if not question.answer.done():
                question.answer.set_exception(RedisConnectionError(str(error)))
        self._questions.clear()
        self._close()

    def _close(self) -> None:
        self._check_time_at(math.inf)
        self._parser.is_settled = False
        self._transport.abort()
        self._driver._close()  # type: ignore[no-untyped-call]

    def _check_time_at(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._check_at = deadline
        is_ever = deadline < math.inf
        self._timer = self._loop.call_at(deadline, self._check_time) if is_ever else None

    def _check_time(self) -> None:
        """One timer for all: the earliest deadline there was when it was set."""
        now, check_at = self._loop.time(), math.inf
        for question in self._questions:
            if question.deadline > now:
                check_at = min(check_at, question.deadline)
                continue
            self._parser.is_settled = False
            if not question.answer.done():
                question.answer.set_exception(TimeoutError())
        self._check_time_at(check_at)
        if not self._parser.is_settled:
            self.retire()


class SharedPipeline(Pipeline):
    """What is asked in one turn of the event loop goes out in one write, so that the replies come
    back in as few reads."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self._unsent: list[bytes] = []

    def _write(self, packed: bytes) -> None:
        if not self._unsent:
            # It runs after all that are ready now, and so finds what they ask.
            self._loop.call_soon(self._send)
        self._unsent.append(packed)

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if not self._transport.is_closing():
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))
