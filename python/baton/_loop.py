# SPDX-License-Identifier: Apache-2.0
"""One thread's event loop: descriptors, timers, and functions that other threads hand over.

Everything in it runs in the thread that runs the loop, but call_soon(), which any thread may call.
"""

import collections
import heapq
import itertools
import os
import select
import threading
import time
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

LONGEST_WAIT = 3600.0  # seconds: what the system can be told is bounded, what a deadline may be is not


class Timer:
    """One that has not run; cancel() makes that so for ever."""

    __slots__ = ("when", "function")

    def __init__(self, when: float, function: Callable[[], None]) -> None:
        self.when = when
        self.function: Optional[Callable[[], None]] = function

    def cancel(self) -> None:
        self.function = None


class Loop:
    """run_once() waits, calls what is due, and returns."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._watches: Dict[int, Tuple[int, Callable[[int], None]]] = {}
        self._timers: List[Tuple[float, int, Timer]] = []
        self._counter = itertools.count()
        self._lock = threading.RLock()  # a signal handler may come while it is held
        self._queue: Deque[Tuple[Callable[..., None], Tuple[Any, ...]]] = collections.deque()
        self._signalled = False
        self._closed = False
        self.thread: Optional[int] = None  # the identifier of the thread that runs it

    @property
    def is_here(self) -> bool:
        """Whether this is the loop's thread."""
        return self.thread == threading.get_ident()

    def close(self) -> None:
        """What was handed over and has not run is forgotten, and so is what comes later."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.clear()
            os.close(self._wake_write)
        os.close(self._wake_read)
        self._epoll.close()

    def call_soon(self, function: Callable[..., None], *arguments: Any) -> bool:
        """Has the loop call that, in order. Any thread. False: the loop is closed, nobody will."""
        with self._lock:
            if self._closed:
                return False
            self._queue.append((function, arguments))
            if not self._signalled and not self.is_here:
                self._signalled = True
                os.write(self._wake_write, b"\0")
        return True

    def call_at(self, when: float, function: Callable[[], None]) -> Timer:
        """`when' as time.monotonic() counts."""
        timer = Timer(when, function)
        heapq.heappush(self._timers, (when, next(self._counter), timer))
        return timer

    def watch(self, fd: int, events: int, function: Callable[[int], None]) -> None:
        """Calls that with the events that came. Again for the same descriptor: changes it."""
        before = self._watches.get(fd)
        if before is None:
            self._epoll.register(fd, events)
        elif before[0] != events:
            self._epoll.modify(fd, events)
        self._watches[fd] = events, function

    def unwatch(self, fd: int) -> None:
        """Before the descriptor is closed. One that is not watched is no fault."""
        if self._watches.pop(fd, None):
            self._epoll.unregister(fd)

    def run_once(self, timeout: Optional[float] = None) -> None:
        """Waits at most so many seconds; None: until something happens, or an hour has passed."""
        while self._timers and self._timers[0][2].function is None:
            heapq.heappop(self._timers)
        if self._timers:
            left = max(0.0, self._timers[0][0] - time.monotonic())
            timeout = left if timeout is None else min(left, timeout)
        if self._queue:
            timeout = 0
        for fd, events in self._epoll.poll(-1 if timeout is None else min(timeout, LONGEST_WAIT)):
            if fd == self._wake_read:
                os.read(self._wake_read, 64)
            elif fd in self._watches:
                self._watches[fd][1](events)
        self._run_queue()
        now = time.monotonic()
        while self._timers and (self._timers[0][0] <= now or self._timers[0][2].function is None):
            function = heapq.heappop(self._timers)[2].function
            if function:
                function()

    def _run_queue(self) -> None:
        with self._lock:
            self._signalled = False
            queue, self._queue = self._queue, collections.deque()
        for function, arguments in queue:
            function(*arguments)
