# SPDX-License-Identifier: Apache-2.0
"""Frames of calls on their way out. Each waits here until it may be written: for the other side's limits, for room on
the lane and credit for its descriptors. Only then it gets its id, its lane ids, the time left, and its payload, if it is
large, a place in shared memory. Frames of one call never pass each other; others may.
"""

import collections
from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Any, Deque, Iterable, List, Optional

from . import _lane, baton_pb2 as pb
from ._wire import HEAD_ROOM, LANE_ID_SIZE, RESERVED, PeerFault
from .calls import Exchange, Request
from .errors import CallError, Status
from .payload import Payload

if TYPE_CHECKING:
    from ._link import Link

LANE_RETRY_SECONDS = 0.005
OBJECT_FROM = 1 << 20  # bytes, where there is no shared memory: below it copies cost less


class Parcel:
    """A frame on its way out."""

    __slots__ = ("envelope", "payload", "exchange", "size", "begun", "sent")

    def __init__(self, envelope: Any, payload: Payload, exchange: Optional[Exchange]) -> None:
        self.envelope = envelope
        self.payload = payload
        self.exchange = exchange
        self.size = payload.size  # now: it may become an object
        self.begun = False  # its credit is taken: it must be written
        self.sent = 0  # descriptors that are on the lane


class Outbox:
    """Of one Link, whose lane and limits it keeps to."""

    def __init__(self, link: "Link") -> None:
        self._link = link
        self._parcels: Deque[Parcel] = collections.deque()
        self.waiting_bytes = 0  # of calls
        self.lane_blocked = False
        self.held_back = False  # something waits for what is unsent to become less
        self.new_epoch()

    def new_epoch(self) -> None:
        """Numbers start anew."""
        self.credit = 0
        self._next_id = 2 + self._link.side
        self._next_n = _lane.FIRST_N
        self.lane_blocked = False

    def __len__(self) -> int:
        return len(self._parcels)

    @property
    def answers(self) -> int:
        """Answers that wait: the other side counts those calls as open."""
        return sum(parcel.envelope.kind == pb.ANSWER for parcel in self._parcels)

    def add(self, envelope: Any, payload: Payload, exchange: Optional[Exchange]) -> None:
        """One more, behind the others."""
        parcel = Parcel(envelope, payload, exchange)
        if envelope.kind == pb.CALL:
            self.waiting_bytes += parcel.size
        self._parcels.append(parcel)
        self._link.pump_soon()

    def has_begun(self, exchange: Exchange) -> bool:
        """Whether a frame of that call has descriptors on the lane, and so must be written."""
        return any(parcel.exchange is exchange and parcel.begun for parcel in self._parcels)

    def forget(self, request: Request) -> None:
        """Drops what waits of a call that was never begun."""
        waiting = [parcel for parcel in self._parcels if parcel.exchange is request and not parcel.begun]
        for parcel in waiting:
            self._parcels.remove(parcel)
            if parcel.envelope.kind == pb.CALL:
                self.waiting_bytes -= parcel.size
        drop(waiting)

    def take_all(self) -> List[Parcel]:
        """Everything that waits, which is the caller's from now on."""
        parcels, self._parcels = list(self._parcels), collections.deque()
        self.waiting_bytes = 0
        return parcels

    def prepare(self, envelope: Any, payload: Payload) -> bool:
        """Whether the other side would take such a frame, with the payload as it is, or as an object."""
        may_seal = (not payload.sealed and self.takes_object(payload) and
                    not (envelope.kind == pb.CALL and envelope.method.startswith(RESERVED)))
        fits = self._fits(envelope, payload)
        if may_seal and (not fits or payload.size >= OBJECT_FROM and not self._link.share):
            return payload.seal() or fits
        return fits

    def _fits(self, envelope: Any, payload: Payload) -> bool:
        remote = self._link.remote
        size = 4 + envelope.ByteSize() + HEAD_ROOM + LANE_ID_SIZE * payload.n_fds + payload.size
        return size <= remote.max_frame and payload.n_fds <= remote.fd_credit

    def takes_object(self, payload: Payload) -> bool:
        """Whether the other side takes that payload as one."""
        remote = self._link.remote
        return 0 < payload.size <= remote.max_object and payload.n_fds < remote.fd_credit

    def too_large(self, payload: Payload) -> CallError:
        remote = self._link.remote
        return CallError(Status.RESOURCE_EXHAUSTED,
                         f"{payload.size} bytes and {payload.n_fds} descriptors: the other side accepts frames of "
                         f"{remote.max_frame} bytes with {remote.fd_credit}, and objects of {remote.max_object}")

    # --- what can go, goes ---

    def pump(self) -> None:
        """Writes what may be written, in order."""
        parcels, self._parcels = self._parcels, collections.deque()
        behind: set = set()
        keep: List[Parcel] = []
        blocked = self.lane_blocked
        for parcel in parcels:
            key = id(parcel.exchange) if parcel.exchange else None
            if key in behind:
                keep.append(parcel)
            elif self._is_stale(parcel):
                drop([parcel])
            elif self._is_refused(parcel):
                self.waiting_bytes -= parcel.size
                assert parcel.exchange
                parcel.exchange.abort(self.too_large(parcel.payload))
                drop([parcel])
            elif self._is_too_many(parcel) or self._is_held_back(parcel):
                keep.append(parcel)
                behind.add(key)
            elif parcel.sent < parcel.payload.n_fds and (blocked or not self._send_fds(parcel)):
                blocked = True
                keep.append(parcel)
                behind.add(key)
            else:
                self._write(parcel)
        keep.extend(self._parcels)  # what callbacks have added meanwhile
        self._parcels = collections.deque(keep)

    @staticmethod
    def _is_stale(parcel: Parcel) -> bool:
        """Whether what it belongs to has ended meanwhile. What was begun must be written, always."""
        exchange = parcel.exchange
        if parcel.begun or parcel.envelope.kind != pb.ITEM:
            return False
        return exchange.done if isinstance(exchange, Request) else not (exchange and exchange.opened)

    def _is_refused(self, parcel: Parcel) -> bool:
        """A call that was made before the other side's limits were known."""
        return parcel.envelope.kind == pb.CALL and not parcel.begun and not self.prepare(parcel.envelope, parcel.payload)

    def _is_too_many(self, parcel: Parcel) -> bool:
        """A call above what the other side takes at once."""
        return (parcel.envelope.kind == pb.CALL and not parcel.begun and
                len(self._link.requests) >= self._link.remote.max_calls)

    def _is_held_back(self, parcel: Parcel) -> bool:
        """What does not answer anybody waits while much is unsent."""
        if parcel.begun or parcel.envelope.kind == pb.ANSWER or self._link.unsent <= self._link.limits.max_unsent:
            return False
        self.held_back = True
        return True

    def _send_fds(self, parcel: Parcel) -> bool:
        """True when the kernel has all of them: the frame may be written."""
        link, fds = self._link, parcel.payload._fds
        if not parcel.begun:
            if self.credit < len(fds):
                return False
            self.credit -= len(fds)
            parcel.begun = True
        while parcel.sent < len(fds):
            if self._next_n > _lane.LAST_N:
                raise PeerFault(Status.RESOURCE_EXHAUSTED, "all descriptor ids of this epoch are used up")
            lane_id = link.epoch << 32 | self._next_n << 1 | link.side
            try:
                if not _lane.send(link.lane, lane_id, fds[parcel.sent]):
                    link.arm("lane", LANE_RETRY_SECONDS, link.pump_soon)
                    return False
            except BlockingIOError:
                self.lane_blocked = True
                link.watch_lane(EPOLLIN | EPOLLOUT)
                return False
            except BrokenPipeError:
                return False  # the lane's end is found by reading
            self._next_n += 1
            parcel.sent += 1
            parcel.envelope.fds.append(lane_id)
        return True

    def _write(self, parcel: Parcel) -> None:
        envelope, exchange, payload = parcel.envelope, parcel.exchange, parcel.payload
        if envelope.kind == pb.CALL:
            assert isinstance(exchange, Request)
            self._open(envelope, exchange, parcel.size)
        elif exchange is not None:
            envelope.id = exchange.id
            if envelope.kind == pb.ANSWER:
                exchange.opened = False
        self._link.write(envelope, self._place(envelope, exchange, payload))
        payload.close()
        if envelope.kind == pb.CALL and isinstance(exchange, Request) and exchange.done:
            self._link.write(pb.Envelope(kind=pb.CANCEL, id=exchange.id))

    def _open(self, envelope: Any, request: Request, size: int) -> None:
        """An id is given when the frame is written: a call that waits must not hold back those behind it."""
        request.id = envelope.id = self._next_id
        self._next_id += 2
        self.waiting_bytes -= size
        left = request.time_left()
        envelope.timeout_us = 0 if left is None else max(1, int(left * 1e6))
        self._link.requests[request.id] = request
        request.opened = True
        request.window_is(self._link.remote.stream_window)

    def _place(self, envelope: Any, exchange: Optional[Exchange], payload: Payload) -> bytes:
        """What travels in the frame: the payload, or nothing, when it lies in shared memory."""
        if payload.sealed:
            envelope.object = payload.sealed
            return b""
        data = payload.data
        share = self._link.share
        block = share.put(data) if share and not payload.type else None
        if block is None:
            return data
        envelope.blocks.append(block)
        if envelope.kind == pb.ITEM and exchange:
            exchange.credit(len(data))  # a block costs nothing of the window
        return b""


def drop(parcels: Iterable[Parcel]) -> None:
    """Closes what they would have sent."""
    for parcel in parcels:
        parcel.payload.close()
