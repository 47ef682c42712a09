"""Tell those who asked for it that an execution has ended, or what a schedule missed: signed, and
repeated until it is heard.

A receiver may hear of one thing twice (a reply can be lost), always under the same key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowd.backoff import pause_after
from flowd.errors import (
    CorruptExecution,
    CorruptStore,
    Fail,
    HandlerFailed,
    StoreError,
    StoreUnavailable,
    UnknownExecution,
)
from flowd.log import get_logger
from flowd.redaction import REDACTOR
from flowd.scheduler.notices import Notice, read_notice
from flowd.scheduler.receivers import Receiver, Receivers
from flowd.store import Store
from flowd.store.callbacks import CallbackState, DueCallback, UntoldTimes

if TYPE_CHECKING:
    from flowd.outgoing.http_client import HttpClient

log = get_logger(__name__)

AT_ONCE_MAX: Final = 64
ATTEMPTS_MAX: Final = 12
PAUSE_S: Final = 1.0
PAUSE_S_MAX: Final = 600.0
DEADLINE_S: Final = 10.0
# An attempt nobody has written down the end of belongs to a scheduler that died.
REPEAT_AFTER_MS: Final = 30_000
LOOK_EVERY_S: Final = 1.0
ERROR_CHARS_MAX: Final = 300
SETTING: Final = "[callbacks] allow"

# What a definition has as its secret -> the text that signs. Raises Fail when there is none.
ResolveSecret = Callable[[Any], str]


def sign(secret: str, body: bytes, now_s: int) -> str:
    """`t=<time>,v1=<HMAC-SHA256 of "<time>.<body>">`: the time is signed against replays."""
    signed = b"%d." % now_s + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={now_s},v1={digest}"


def pause_s(attempt: int) -> float:
    """Between this failed attempt and the next: 1 s, and each time twice as long."""
    return pause_after(attempt, first_s=PAUSE_S, longest_s=PAUSE_S_MAX)


class _Outcome(NamedTuple):
    """What came of an attempt: no `error` where it was heard; one that `is_final` is the last."""

    status_code: int | None
    error: str
    is_final: bool
    told: UntoldTimes | None


def _tries(due: DueCallback, told: UntoldTimes | None) -> int:
    """The attempts at what is told now."""
    return due.attempt - (told.before if told else 0)


class Deliverer:
    """`start` beside the scheduler's ticks: a receiver that is slow must not delay them."""

    def __init__(self, store: Store, allow: tuple[str, ...], resolve_secret: ResolveSecret) -> None:
        self._store = store
        self._allow = allow
        self._resolve_secret = resolve_secret
        self._http: HttpClient | None = None
        self._receivers = Receivers()
        self._calls: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self, on_end: Callable[[], None]) -> None:
        """`on_end` is called when it cannot go on, which is a defect; `stop` raises what it was."""
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(lambda _: on_end())

    async def stop(self) -> None:
        """Break off what is under way: it is tried again, by any scheduler."""
        tasks = [*self._calls, *([self._running] if self._running else [])]
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _run(self) -> None:
        is_refused = False
        while True:
            self._wake.clear()
            rest_s = LOOK_EVERY_S
            try:
                rest_s = await self.deliver_due()
                is_refused = False
            except StoreError as error:
                # That Redis is away, the scheduler says in the log.
                if not is_refused and not isinstance(error, StoreUnavailable):
                    log.error("callback.failed", reason=str(error))
                    is_refused = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._wake.wait()

    async def deliver_due(self) -> float:
        """Begin what is due, as far as there is room; seconds to rest until there may be more."""
        room = AT_ONCE_MAX - len(self._calls)
        if room <= 0:
            return LOOK_EVERY_S
        due, next_in_s = await self._store.callbacks.claim(room, repeat_after_ms=REPEAT_AFTER_MS)
        for one in due:
            call = asyncio.create_task(self._deliver(one))
            self._calls.add(call)
            call.add_done_callback(self._note_end)
        if next_in_s is None:
            return LOOK_EVERY_S
        return min(LOOK_EVERY_S, max(0.01, next_in_s))

    def _note_end(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            log.error("callback.failed", error=error)
        self._wake.set()

    async def _deliver(self, due: DueCallback) -> None:
        receiver = self._receivers.known(due.subject)
        if receiver is not None and receiver.is_busy:
            await self._postpone(due, receiver)
            return
        # What signs is nobody else's, and forgotten with the call.
        with contextlib.ExitStack() as hidden:
            await self._attempt(due, hidden)

    async def _attempt(self, due: DueCallback, hidden: contextlib.ExitStack) -> None:
        status_code: int | None = None
        error, is_final, told = "", False, None
        try:
            notice = await read_notice(self._store, due)
            told = notice.told
            if _tries(due, told) > ATTEMPTS_MAX:
                raise Fail("every attempt was broken off")
            receiver = self._receivers.at(notice.place, due.subject)
            if receiver.is_busy:
                await self._postpone(due, receiver)
                return
            with receiver.calling():
                status_code = await self._call(notice, hidden)
            receiver.is_silent = False
            if not 200 <= status_code <= 299:
                error = f"answered {status_code}"
        except StoreUnavailable:
            # Nothing was sent. The claim runs out, and it is tried again.
            return
        except (Fail, CorruptExecution, CorruptStore, UnknownExecution) as refused:
            error, is_final = str(refused), True
        except HandlerFailed as failed:
            receiver.is_silent = True
            error = str(failed)
        except StoreError as failed:
            error = str(failed)
        outcome = _Outcome(status_code, error, is_final=is_final, told=told)
        await self._settle(due, outcome)

    async def _postpone(self, due: DueCallback, receiver: Receiver) -> None:
        with contextlib.suppress(StoreError):
            await self._store.callbacks.postpone(due, int(1000 * receiver.postpone_s()))

    async def _settle(self, due: DueCallback, outcome: _Outcome) -> None:
        state, pause_ms, tries = CallbackState.DELIVERED, None, _tries(due, outcome.told)
        if outcome.error and (outcome.is_final or tries >= ATTEMPTS_MAX):
            state = CallbackState.FAILED
        elif outcome.error:
            state, pause_ms = CallbackState.PENDING, int(pause_s(tries) * 1000)
        try:
            await self._store.callbacks.settle(
                due,
                state,
                pause_ms=pause_ms,
                status_code=outcome.status_code,
                error=outcome.error[:ERROR_CHARS_MAX],
                told=outcome.told,
            )
        except StoreError:
            return
        if state is not CallbackState.PENDING:
            self._receivers.settle(due.subject)
        if state is CallbackState.FAILED:
            subject = "execution_id" if due.schedule is None else "schedule"
            log.error(
                "callback.failed", **{subject: due.schedule or due.subject}, reason=outcome.error
            )

    async def _call(self, notice: Notice, hidden: contextlib.ExitStack) -> int:
        """The status code of the answer. Raises HandlerFailed for none, Fail for a call that is
        not allowed.
        """
        from flowd.outgoing.http_client import OutgoingCall

        headers = {
            "content-type": "application/json",
            "idempotency-key": notice.key,
            "x-flowd-delivery": notice.key,
        }
        if notice.secret is not None:
            secret = self._resolve_secret(notice.secret)
            hidden.enter_context(REDACTOR.hiding(secret))
            headers["x-flowd-signature"] = sign(secret, notice.body, int(time.time()))
        call = OutgoingCall(
            "POST",
            notice.url,
            headers,
            notice.body,
            DEADLINE_S,
            is_expected=lambda _: True,
            reads_body=False,
        )
        return (await self._client().send(call)).status_code

    def _client(self) -> HttpClient:
        if self._http is None:
            # Imported at the first callback: most schedulers never call anybody.
            from flowd.outgoing.guarded_transport import Gate
            from flowd.outgoing.http_client import HttpClient

            self._http = HttpClient(Gate(self._allow, setting=SETTING))
        return self._http
