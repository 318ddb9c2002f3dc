# SPDX-License-Identifier: Apache-2.0
"""Calls: Call is one to us, Request is one of ours. Both may carry streams of items, in either direction.

All methods may be called in any thread, one thread at a time for each object. Those that wait say so; in the thread of
the loop (inline handlers, callbacks) they raise BlockingIOError where they would wait, with nothing done.
"""

import collections
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Deque, Iterable, Iterator, List, Optional, Tuple

from ._loop import LONGEST_WAIT
from .errors import CallError, Status
from .payload import Content, Metadata, Payload, as_metadata, as_payload

if TYPE_CHECKING:
    from ._connection import Connection
    from ._loop import Timer

COST_OF_ITEM = 64
COST_OF_DESCRIPTOR = 4096
NEVER = 1e10  # seconds


def cost(size: int, n_fds: int) -> int:
    """What an item with so many bytes in its frame costs of its stream's window."""
    return size + COST_OF_ITEM + COST_OF_DESCRIPTOR * n_fds


def deadline_after(timeout: Optional[float]) -> Optional[float]:
    """As time.monotonic() counts; None, or so far away that nobody will see it: none."""
    return None if timeout is None or timeout > NEVER else time.monotonic() + timeout


class Exchange:
    """What both kinds have in common: two streams and an end. The loop's thread and one other meet under `_lock`."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._lock = threading.Condition()
        self._items: Deque[Tuple[Payload, int]] = collections.deque()
        self._no_more_items = False
        self._over: Optional[CallError] = None  # nobody is there any more
        self._deadline: Optional[float] = None
        self._callbacks: List[Callable[[], None]] = []
        # What we may send: None until the other side's window is known.
        self._window: Optional[int] = None
        self._whole_window = 0
        self._sends = False
        # The loop's alone.
        self.id = 0
        self.opened = False
        self.timer: Optional["Timer"] = None
        self.received_cost = 0
        self.owed = 0

    # --- for whoever made or serves the call ---

    @property
    def connection(self) -> "Connection":
        """The connection that it belongs to; calls can be made over it the other way."""
        return self._connection

    def time_left(self) -> Optional[float]:
        """Seconds until the deadline, 0 when it has passed; None: there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def send(self, content: Content, type: str = "", fds: Iterable[Any] = (), timeout: Optional[float] = None) -> None:
        """Sends one item; waits until the receiver has room for it, at most `timeout' seconds.

        A Payload's descriptors are consumed, also when this raises. CallError: RESOURCE_EXHAUSTED for one that can
        never be sent; otherwise how the call has ended. ValueError: no items may be sent (any more). TimeoutError.
        """
        payload = as_payload(content, type, fds)
        try:
            self._wait_window(payload, deadline_after(timeout))
        except BaseException:
            payload.close()
            raise
        if not self._connection.loop.call_soon(self._connection.send_item, self, payload, False):
            payload.close()

    def receive(self, timeout: Optional[float] = None) -> Optional[Payload]:
        """The next item, waited for at most `timeout' seconds; None: there is no more.

        CallError: how the call has ended, if not well. TimeoutError.
        """
        until = deadline_after(timeout)
        with self._lock:
            while not self._items:
                if self._over:
                    raise self._over
                if self._no_more_items:
                    return None
                self._wait(until, "no item")
            payload, size = self._items.popleft()
        self._connection.loop.call_soon(self._connection.item_taken, self, size)
        return payload

    def __iter__(self) -> Iterator[Payload]:
        """The items, until there is no more; raises as receive()."""
        while True:
            payload = self.receive()
            if payload is None:
                return
            yield payload

    # --- waiting, under the lock ---

    def _wait(self, until: Optional[float], what: str) -> None:
        if self._connection.loop.is_here:
            raise BlockingIOError("this would wait in the thread of the loop")
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError(what)
        self._lock.wait(LONGEST_WAIT if left is None else min(left, LONGEST_WAIT))

    def _wait_window(self, payload: Payload, until: Optional[float]) -> None:
        size = cost(payload.size, payload.n_fds)
        with self._lock:
            while True:
                if self._over:
                    raise self._over
                if not self._sends:
                    raise self._cannot_send()
                if self._window is not None:
                    if size > self._whole_window and self._connection.outbox.takes_object(payload) and payload.seal():
                        size = cost(payload.size, payload.n_fds)
                        continue
                    if size > self._whole_window:
                        raise CallError(Status.RESOURCE_EXHAUSTED, f"an item that costs {size} bytes is more than the "
                                                                   f"other side's window, {self._whole_window}")
                    if self._window >= size:
                        self._window -= size
                        return
                self._wait(until, "the receiver takes no more")

    def _cannot_send(self) -> Exception:
        return ValueError("no items are sent here, or no more")

    # --- for the connection, in the loop's thread ---

    def forget_timer(self) -> None:
        if self.timer:
            self.timer.cancel()

    def window_is(self, size: int) -> None:
        with self._lock:
            self._window = self._whole_window = size
            self._lock.notify_all()

    def credit(self, size: int) -> bool:
        """False: more than was spent."""
        with self._lock:
            if self._window is None or self._window + size > self._whole_window:
                return False
            self._window += size
            self._lock.notify_all()
            return True

    def item_arrived(self, payload: Payload, size: int) -> None:
        """One that costs so much of our window, until it is taken."""
        with self._lock:
            self._items.append((payload, size))
            self._lock.notify_all()

    def no_more_items(self) -> None:
        with self._lock:
            self._no_more_items = True
            self._lock.notify_all()

    def abort(self, error: CallError, tell: bool = True) -> None:
        """Nobody is there any more; items that were not taken are dropped. The callbacks learn it if `tell'."""
        with self._lock:
            if self._over:
                return
            self._over = error
            dropped = [item for item, _ in self._items]
            self._items.clear()
            self._lock.notify_all()
            callbacks, self._callbacks = self._callbacks if tell else [], []
        for item in dropped:
            item.close()
        for callback in callbacks:
            self._connection.guarded(callback)


class Later:
    """LATER, returned by a handler: somebody else ends the call."""

    def __repr__(self) -> str:
        return "baton.LATER"


LATER = Later()


class Call(Exchange):
    """A call to us. Its handler ends it by what it returns, or with answer() or fail(), once."""

    def __init__(self, connection: "Connection", method: str, request: Payload, metadata: Metadata,
                 deadline: Optional[float], takes_items: bool) -> None:
        super().__init__(connection)
        self.method = method
        self.request = request
        self.metadata: List[Tuple[str, bytes]] = list(metadata)
        self.caller_streams = takes_items
        self._deadline = deadline
        self._sends = True
        self._no_more_items = not takes_items
        self._answer_metadata: List[Tuple[str, bytes]] = []
        self._ended = False
        self.method_takes_items = False  # the connection's, as what follows
        self.half_closed = not takes_items
        self.held_fds = request.n_fds

    @property
    def data(self) -> bytes:
        """The request's bytes."""
        return self.request.data

    @property
    def cancelled(self) -> bool:
        """Nobody waits for the answer any more: cancelled, past the deadline, or the caller is gone."""
        return self._over is not None

    def message(self, message_type: Any) -> Any:
        """The request as a protobuf message; see Payload.message()."""
        return self.request.message(message_type)

    def get(self, key: str) -> Optional[bytes]:
        """The value of the first pair of metadata with that key."""
        return next((value for name, value in self.metadata if name == key), None)

    def on_cancel(self, function: Callable[[], None]) -> None:
        """Calls that once, in the loop's thread (now, if it is so already), when nobody waits any more."""
        with self._lock:
            if not self._over:
                self._callbacks.append(function)
                return
        function()

    def wait_cancelled(self, timeout: Optional[float] = None) -> bool:
        """Waits until nobody waits for the answer, at most so many seconds; whether that is so."""
        until = deadline_after(timeout)
        with self._lock:
            try:
                while not self._over:
                    self._wait(until, "")
            except TimeoutError:
                return False
        return True

    def add_metadata(self, key: str, value: bytes) -> None:
        """A pair for the answer."""
        self._answer_metadata.extend(as_metadata([(key, value)]))

    def answer(self, content: Content = b"", type: str = "", fds: Iterable[Any] = ()) -> None:
        """Ends the call with OK, behind the items sent before. A Payload's descriptors are consumed. One that is too
        large for the caller is answered RESOURCE_EXHAUSTED instead; if nobody waits any more it is dropped."""
        self._finish(Status.OK, "", [], as_payload(content, type, fds))

    def fail(self, status: int, message: str = "", details: Iterable[Any] = ()) -> None:
        """Ends the call with another status than OK (which counts as UNKNOWN), and one line for people."""
        error = CallError(status, message, details)
        self._finish(error.status, message, error.details, Payload())

    def _finish(self, status: Status, message: str, details: Any, payload: Payload) -> None:
        with self._lock:
            if self._ended:
                payload.close()
                raise ValueError("this call was ended before")
            self._ended = True
            self._sends = False
        if not self._connection.loop.call_soon(self._connection.send_answer, self, status, message, details, payload,
                                               self._answer_metadata):
            payload.close()

    @property
    def ended(self) -> bool:
        """Whether answer() or fail() has been called."""
        return self._ended


class Answer(Payload):
    """A result with the metadata that came with it."""

    __slots__ = ("metadata",)

    def __init__(self, payload: Payload, metadata: Metadata) -> None:
        super().__init__(b"", payload.type)
        self._data, self._view, payload._view = payload._data, payload._view, None
        self._fds = payload.take_fds()
        self.metadata: List[Tuple[str, bytes]] = list(metadata)

    def get(self, key: str) -> Optional[bytes]:
        """The value of the first pair of metadata with that key."""
        return next((value for name, value in self.metadata if name == key), None)


class Request(Exchange):
    """A call of ours. Iterating gives the items of the other side's stream; then result() the answer."""

    def __init__(self, connection: "Connection", method: str, payload: Payload, metadata: Metadata,
                 timeout: Optional[float], sends: bool, takes: bool) -> None:
        super().__init__(connection)
        self.method = method
        self.payload: Optional[Payload] = payload
        self.metadata = list(metadata)
        self._deadline = deadline_after(timeout)
        self._sends = sends
        self.sends_items = sends
        self.takes_items = takes
        self._answer: Optional[Answer] = None
        self._error: Optional[CallError] = None
        self._done = False
        self._answered = False

    def result(self, timeout: Optional[float] = None) -> Answer:
        """Waits for the answer, at most so many seconds. CallError: it is another than OK. TimeoutError: the call
        goes on. The answer's descriptors belong to it."""
        until = deadline_after(timeout)
        with self._lock:
            while not self._done:
                self._wait(until, "no answer")
            if self._error:
                raise self._error
            assert self._answer is not None
            return self._answer

    @property
    def answered(self) -> bool:
        """Whether the other side has answered, whatever the status: a call that ended otherwise may have run."""
        return self._answered

    @property
    def succeeded(self) -> bool:
        """Whether it is done, with OK."""
        return self._done and self._error is None

    @property
    def done(self) -> bool:
        """Whether the answer, or what became of the call instead, is there."""
        return self._done

    def on_done(self, function: Callable[[], None]) -> None:
        """Calls that once, in the loop's thread (now, if it is so already), when it is done."""
        with self._lock:
            if not self._done:
                self._callbacks.append(function)
                return
        function()

    def end(self) -> None:
        """The half-close: no item follows. Again: nothing."""
        with self._lock:
            if not self._sends:
                return
            self._sends = False
        self._connection.loop.call_soon(self._connection.send_item, self, Payload(), True)

    def cancel(self) -> None:
        """The answer is no longer wanted: result() raises CANCELLED, unless it is there already."""
        self._connection.loop.call_soon(self._connection.cancel, self, CallError(Status.CANCELLED, "cancelled"))

    def __enter__(self) -> "Request":
        return self

    def __exit__(self, *_: Any) -> None:
        if not self._done:
            self.cancel()

    def _cannot_send(self) -> Exception:
        if self._done:
            return CallError(Status.CANCELLED, "the call has been answered")
        return super()._cannot_send()

    # --- for the connection ---

    def abort(self, error: CallError, tell: bool = True) -> None:
        self.finish(None, error, drop=True)

    def finish(self, answer: Optional[Answer], error: Optional[CallError], drop: bool = False) -> None:
        """What became of it. With `drop' items not taken yet are dropped: it did not end by an answer."""
        dropped: List[Payload] = []
        with self._lock:
            if self._done:
                callbacks: List[Callable[[], None]] = []
            else:
                self._done = self._no_more_items = True
                self._answered = not drop
                self._sends = False
                self._answer, self._error, self._over = answer, error, error
                answer = None
                if drop:
                    dropped = [item for item, _ in self._items]
                    self._items.clear()
                callbacks, self._callbacks = self._callbacks, []
                self._lock.notify_all()
        for item in dropped:
            item.close()
        if answer:
            answer.close()
        for callback in callbacks:
            self._connection.guarded(callback)
