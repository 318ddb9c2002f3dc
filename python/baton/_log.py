# SPDX-License-Identifier: Apache-2.0
"""Log records on their way to the supervisor: kept until they are acknowledged, sent again after a renewal."""

import collections
import threading
import time
from typing import Any, Deque, List

from . import baton_pb2 as pb
from ._connection import Connection
from ._wire import METHOD_MAX, clean_text
from .calls import Request

ERROR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7
MAX_LOG_CALLS = 4
MAX_LOG_BATCH = 256
LOG_TEXT_MAX = 8192
LOG_FILE_MAX = 4096


def make_record(level: int, text: str, target: str, file: str, line: int) -> Any:
    """A record that may be sent, whatever the arguments are."""
    return pb.LogRecord(time_us=time.time_ns() // 1000, level=level, text=clean_text(text, LOG_TEXT_MAX),
                        target=clean_text(target, METHOD_MAX), file=clean_text(file, LOG_FILE_MAX), line=max(0, line))


class LogQueue:
    """Records until they are acknowledged, at most `limit' of them: beyond it they are dropped, or, where it `parks',
    whoever may wait does, until half of the room is there. append() in any thread, everything else in the loop's."""

    def __init__(self, limit: int, parks: bool = False) -> None:
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._limit = limit
        self._parks = parks
        self._full = False  # whoever may wait does
        self._closed = False
        self._new: Deque[Any] = collections.deque()
        self._dropped = 0
        self._kept = 0
        self._next_seq = 1
        self._again: List[Any] = []  # LogWrites that ended without an answer, to be sent again
        self._open = 0

    def append(self, record: Any, may_wait: bool = False) -> None:
        with self._lock:
            while self._parks and may_wait and self._full and not self._closed:
                self._room.wait()
            if self._closed or self._kept >= self._limit:
                self._dropped += 1
                return
            self._kept += 1
            self._full = self._full or self._kept >= self._limit
            self._new.append(record)

    def close(self) -> None:
        """Nobody acknowledges any more: whoever waits goes on."""
        with self._lock:
            self._closed = True
            self._room.notify_all()

    @property
    def empty(self) -> bool:
        return self._kept == 0 and self._dropped == 0

    def pump(self, connection: Connection) -> None:
        """Sends what may be sent."""
        while self._open < MAX_LOG_CALLS and not connection.ended:
            batch = self._again.pop(0) if self._again else self._batch()
            if batch is None:
                return
            self._open += 1
            request = connection.request("baton.Log/Write", batch)
            request.on_done(lambda request=request, batch=batch: self._done(connection, request, batch))  # type: ignore

    def _batch(self) -> Any:
        with self._lock:
            records: List[Any] = []
            size = 0
            while self._new and len(records) < MAX_LOG_BATCH and size < 32768:
                record = self._new.popleft()
                size += record.ByteSize()
                records.append(record)
            if self._dropped and not self._new and len(records) < MAX_LOG_BATCH:
                records.append(make_record(WARNING, f"{self._dropped} log records dropped", "baton", "", 0))
                self._dropped = 0
                self._kept += 1
        if not records:
            return None
        batch = pb.LogWrite(first_seq=self._next_seq, records=records)
        self._next_seq += len(records)
        return batch

    def _done(self, connection: Connection, request: Request, batch: Any) -> None:
        self._open -= 1
        if request.answered:
            with self._lock:
                self._kept -= len(batch.records)
                if self._full and self._kept <= self._limit // 2:
                    self._full = False
                    self._room.notify_all()
        else:
            self._again.append(batch)
            self._again.sort(key=lambda one: one.first_seq)
        if request.answered or connection.ready:
            self.pump(connection)
