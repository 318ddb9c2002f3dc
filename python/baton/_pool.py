# SPDX-License-Identifier: Apache-2.0
"""Threads for handlers. They are daemons: one that hangs does not keep the process, which baton would have to kill."""

import queue
import threading
from typing import Any, Callable


class Pool:
    """At most so many threads, made when there is work that no idle one takes."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._work: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._n_threads = 0

    def submit(self, function: Callable[..., None], *arguments: Any) -> bool:
        """Has a thread call that, which raises nothing. False: there is none, and none can be made."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1  # for this piece of work
            elif self._n_threads < self._size:
                try:
                    threading.Thread(target=self._run, name=f"{self._name}-{self._n_threads}", daemon=True).start()
                    self._n_threads += 1
                except RuntimeError:  # the system's limit
                    if self._n_threads == 0:
                        return False
        self._work.put((function, arguments))
        return True

    def close(self) -> None:
        """The threads end when what was submitted is done; nobody waits for them."""
        with self._lock:
            n_threads = self._n_threads
        for _ in range(n_threads):
            self._work.put(None)

    def _run(self) -> None:
        while True:
            work = self._work.get()
            if work is None:
                return
            work[0](*work[1])
            del work  # nothing of it is kept while there is none
            with self._lock:
                if self._work.empty():
                    self._idle += 1
