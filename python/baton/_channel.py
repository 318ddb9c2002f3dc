# SPDX-License-Identifier: Apache-2.0
"""Channel 0 of one epoch: bytes in and out, cut into frames. What the frames mean is not known here."""

import collections
import socket
from select import EPOLLIN, EPOLLOUT
from typing import Any, Callable, Deque, Optional, Tuple

from ._loop import Loop
from ._wire import ENVELOPE_MAX, HEADER, LENGTH, PeerFault
from .errors import Status

READ_SIZE = 256 * 1024
WRITE_PIECES = 64

END, NOTHING, MORE = range(3)


class Channel:
    """A connected socket, which it owns. `on_events` is called by the loop, with the events. With more than `max_unsent`
    bytes unsent, answers among them, nothing is read."""

    def __init__(self, loop: Loop, channel: socket.socket, on_events: Callable[[int], None], max_unsent: int) -> None:
        self._loop = loop
        self._socket = channel
        self._on_events = on_events
        self._max_unsent = max_unsent
        self._input = bytearray()
        self._at = 0  # in the input: what was taken
        self._output: Deque[memoryview] = collections.deque()
        self._written = self._accepted = 0  # bytes, since the beginning
        self._answer_ends: Deque[int] = collections.deque()
        self.paused = False  # too much is unsent: what came is not looked at
        self._watch()

    def _watch(self) -> None:
        events = (0 if self.paused else EPOLLIN) | (EPOLLOUT if self._output else 0)
        self._loop.watch(self._socket.fileno(), events, self._on_events)

    def close(self) -> None:
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()

    # --- out ---

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken."""
        return self._accepted - self._written

    @property
    def unsent_answers(self) -> int:
        """Answers among them: the other side counts those calls as open."""
        return len(self._answer_ends)

    def write(self, envelope: Any, payload: bytes, is_answer: bool) -> None:
        """Puts a frame behind what is to be written."""
        head = envelope.SerializeToString()
        for piece in (HEADER.pack(4 + len(head) + len(payload), len(head)) + head, payload):
            if piece:
                self._output.append(memoryview(piece))
                self._accepted += len(piece)
        if is_answer:
            self._answer_ends.append(self._accepted)

    def flush(self, may_pause: bool) -> bool:
        """Writes what the kernel takes. True: reading goes on, which was paused, and there is something to look at."""
        try:
            while self._output:
                pieces = [self._output[n] for n in range(min(len(self._output), WRITE_PIECES))]
                self._forget(self._socket.sendmsg(pieces, [], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT))
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._output.clear()  # the end is found by reading
            self._answer_ends.clear()
            self._written = self._accepted
        return self._pause(may_pause)

    def _forget(self, written: int) -> None:
        self._written += written
        while written:
            first = self._output[0]
            if written < len(first):
                self._output[0] = first[written:]
                break
            written -= len(first)
            self._output.popleft()
        while self._answer_ends and self._answer_ends[0] <= self._written:
            self._answer_ends.popleft()

    def _pause(self, may_pause: bool) -> bool:
        before = self.paused
        self.paused = (may_pause and len(self._answer_ends) > 0 and
                       self.unsent > (self._max_unsent // 2 if before else self._max_unsent))
        self._watch()
        return before and not self.paused and self.begun

    # --- in ---

    @property
    def begun(self) -> bool:
        """Whether there is a piece of a frame, or a whole one that was not taken."""
        return len(self._input) > self._at

    def receive(self) -> int:
        """Reads once: END, NOTHING for now, or MORE."""
        while True:
            try:
                data = self._socket.recv(READ_SIZE)
            except BlockingIOError:
                return NOTHING
            except (ConnectionResetError, BrokenPipeError):
                continue  # comes once, before what the peer had sent
            if not data:
                return END
            del self._input[:self._at]
            self._at = 0
            self._input += data
            return MORE

    def next_frame(self, limit: int) -> Optional[Tuple[bytes, bytes]]:
        """Envelope and payload of the next frame; None: it is not whole. PeerFault: it cannot be a frame, or is one of
        more than `limit' bytes."""
        data, at = self._input, self._at
        if len(data) - at < LENGTH.size:
            return None
        length, = LENGTH.unpack_from(data, at)
        if length > limit:
            raise PeerFault(Status.RESOURCE_EXHAUSTED, f"a frame of {length} bytes, accepted are {limit}")
        if length < LENGTH.size:
            raise PeerFault(Status.INVALID_ARGUMENT, f"a frame of {length} bytes, too short for an Envelope")
        end = at + LENGTH.size + length
        if len(data) < end:
            return None
        _, size = HEADER.unpack_from(data, at)
        if size > length - LENGTH.size:
            raise PeerFault(Status.INVALID_ARGUMENT, "an Envelope longer than its frame")
        if size > ENVELOPE_MAX:
            raise PeerFault(Status.RESOURCE_EXHAUSTED, f"an Envelope of {size} bytes")
        self._at = end
        middle = at + HEADER.size + size
        with memoryview(data) as view:
            return bytes(view[at + HEADER.size:middle]), bytes(view[middle:end])
