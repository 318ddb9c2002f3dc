# SPDX-License-Identifier: Apache-2.0
"""The wire of one peer: its lane and channel 0, frames in and out, Hello, credit of the lane, renewal and the end
(docs/protocol.md). What the frames of calls mean is in _connection.py.

A Link belongs to the thread of its loop. What spoils one call ends that call; what leaves the sides disagreeing raises
PeerFault and ends the connection, with CLOSE. The host says what the connection is for: see Host.
"""

import collections
import socket
import struct
import time
import traceback
from select import EPOLLIN, EPOLLOUT
from typing import Any, Callable, Deque, Dict, Iterable, List, NamedTuple, Optional, Tuple

from . import _lane, baton_pb2 as pb
from ._lane import PeerFault
from ._loop import Loop, Timer
from .calls import Call, Exchange, Request
from .errors import CallError, Status
from .payload import Payload, close_fds

HEADER = struct.Struct(">II")
LENGTH = struct.Struct(">I")
PROTOCOL = 1
FRAME_MIN = 65536
ENVELOPE_MAX = 2 << 20
MESSAGE_MAX = 1024
READ_SIZE = 256 * 1024
READS_PER_TURN = 4
WRITE_PIECES = 64
BACKLOG = 1 << 20
CREDIT_SIZE = 6  # what fd_credit adds to an Envelope
LANE_ID_SIZE = 11  # an id in `fds', at most
HEAD_ROOM = 32  # what is known of an Envelope only when it is written
HELLO_SECONDS = 10.0
FRAME_SECONDS = 30.0
RENEWAL_SECONDS = 60.0
LANE_RETRY_SECONDS = 0.005
KINDS = frozenset(pb.Kind.values()) - {pb.KIND_NONE}


class Limits(NamedTuple):
    """What a side accepts: see `Hello' in the document. Sizes in bytes."""

    max_frame: int = 8 << 20
    max_calls: int = 1024
    fd_credit: int = 64
    stream_window: int = 256 * 1024


class Host:
    """What a connection asks of whoever has it; all in the loop's thread."""

    def hello(self, hello: Any) -> None:
        """Adds what only it knows to the Hello that is about to be sent."""

    def ready(self, connection: Any, renewed: bool) -> None:
        """The other side's Hello has been read."""

    def accept(self, call: Call) -> Optional[Callable[[Call], None]]:
        """Who serves the call, which is called at once; None: it has been ended."""
        call.fail(Status.UNIMPLEMENTED, f"no such method: {call.method}")
        return None

    def settled(self, call: Call) -> None:
        """The handler has ended a call that accept() was asked about."""

    def ended(self, connection: Any, status: Status, message: str) -> None:
        """The connection is over."""

    def error(self, text: str) -> None:
        """A callback has raised; `text' is the traceback."""


class Parcel:
    """A frame on its way out: one that gets its id, lane ids or credit when it is written."""

    __slots__ = ("envelope", "payload", "exchange", "begun", "sent")

    def __init__(self, envelope: Any, payload: Payload, exchange: Optional[Exchange]) -> None:
        self.envelope = envelope
        self.payload = payload
        self.exchange = exchange
        self.begun = False  # its credit is taken: it must be written
        self.sent = 0


class Frame(NamedTuple):
    envelope: Any
    payload: bytes
    fds: List[int]
    absent: bool
    lost: bool


def has_nul(message: Any) -> bool:
    """Whether any text in it has NUL, which the protocol refuses and protobuf does not."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            if "\0" in value if isinstance(value, str) else any("\0" in text for text in value):
                return True
        elif field.type == field.TYPE_MESSAGE:
            if any(map(has_nul, [value] if hasattr(value, "ListFields") else value)):
                return True
    return False


def check_text(text: str) -> str:
    """ValueError: it cannot be text of the protocol."""
    if "\0" in text:
        raise ValueError("text with NUL")
    text.encode()  # UnicodeEncodeError is a ValueError
    return text


def one_line(text: str) -> str:
    """A message for people: no NUL, no line breaks, no surrogates, cut."""
    line = " ".join(str(text).replace("\0", "?").split("\n")).encode(errors="replace")[:MESSAGE_MAX]
    return line.decode(errors="ignore")


class Link:
    """`side' is 0 where we send the channels first. `n_channels' are sent in an epoch; we serve channel 0.
    `renewal': whether the other side may renew. The lane is consumed."""

    _handlers: Dict[int, Callable[[Any, Frame], None]] = {}  # by kind

    def __init__(self, loop: Loop, lane: socket.socket, host: Host, *, side: int, n_channels: int,
                 renewal: bool = False, limits: Limits = Limits(), software: str = "", instance: int = 0) -> None:
        self.loop = loop
        self.host = host
        self.limits = limits
        self.side = side
        self.instance = instance  # what the other side's Hello said
        self.software = ""
        self.ended = False
        self.make_error: Callable[..., CallError] = CallError  # of an answer that is not OK
        self._lane = lane
        self._lane_ended = False
        self._lane_blocked = False
        self._renewing: Optional[Tuple[int, socket.socket]] = None
        self._n_channels = n_channels
        self._renewal = renewal
        self._software = software
        self._epoch = 0
        self._hellos = 0
        self._channels: List[Optional[socket.socket]] = [None] * n_channels
        self._next_channel: Optional[int] = 0
        self._arrivals = _lane.Arrivals(side, limits.fd_credit)
        self._parcels: Deque[Parcel] = collections.deque()
        self._waiting_bytes = 0
        self._calls: Dict[int, Call] = {}
        self._requests: Dict[int, Request] = {}
        self._held_fds = 0
        self._stream_memory = 0
        self._timers: Dict[str, Timer] = {}
        self._pump_due = False
        self._new_epoch()
        lane.setblocking(False)
        loop.watch(lane.fileno(), EPOLLIN, self._on_lane)

    def _new_epoch(self) -> None:
        self._input = bytearray()
        self._output: Deque[memoryview] = collections.deque()
        self._output_size = 0
        self._paused = False
        self.ready = False
        self.remote = Limits()
        self._credit = 0
        self._owed_fds = 0
        self._owed: Dict[int, Exchange] = {}
        self._last_in = 0
        self._next_id = 2 + self.side
        self._next_n = _lane.FIRST_N

    # ---------------------------------------------------------------------------------------------------- channels

    def send_channel(self, epoch: int = 0) -> None:
        """Makes channel 0 and sends it: the first of a new lane, or a renewal of ours."""
        ours, theirs = socket.socketpair()
        try:
            _lane.send(self._lane, epoch << 32, theirs.fileno())
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._epoch = epoch
        self._next_channel = None
        self._use_channel(ours)

    def take_channel(self, number: int) -> Optional[socket.socket]:
        """Channel 1 or 2 as it is, from now on the caller's; None: it has not arrived."""
        channel, self._channels[number] = self._channels[number], None
        return channel

    def _use_channel(self, channel: socket.socket) -> None:
        self._channels[0] = channel
        self._watch_channel()
        hello = pb.Hello(protocol_min=PROTOCOL, protocol_max=PROTOCOL, software=self._software, **self.limits._asdict())
        self.host.hello(hello)
        self._write(pb.Envelope(kind=pb.HELLO, hello=hello), b"")
        self._arm("hello", HELLO_SECONDS, lambda: self._fault(Status.DEADLINE_EXCEEDED, "no HELLO"))
        self._flush()

    def _watch_channel(self) -> None:
        channel = self._channels[0]
        if channel:
            events = (0 if self._paused else EPOLLIN) | (EPOLLOUT if self._output else 0)
            self.loop.watch(channel.fileno(), events, self._on_channel)

    def _close_channels(self) -> None:
        for index, channel in enumerate(self._channels):
            if channel:
                if index == 0:
                    self.loop.unwatch(channel.fileno())
                channel.close()
        self._channels = [None] * self._n_channels

    # -------------------------------------------------------------------------------------------------- time-outs

    def _arm(self, name: str, seconds: float, function: Callable[[], None]) -> None:
        self._disarm(name)
        self._timers[name] = self.loop.call_at(time.monotonic() + seconds, lambda: self._guard(function))

    def _disarm(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer:
            timer.cancel()

    @staticmethod
    def _fault(status: Status, message: str) -> None:
        raise PeerFault(status, message)

    def _guard(self, function: Callable[..., None], *arguments: Any) -> None:
        """Runs a piece of this connection: a fault of the other side's ends it, and nothing else."""
        if self.ended:
            return
        try:
            function(*arguments)
        except PeerFault as fault:
            self.end(fault.status, fault.message)

    def guarded(self, callback: Callable[[], None]) -> None:
        """Runs a callback of the application's: what it raises goes to the host."""
        try:
            callback()
        except Exception:
            self.host.error(traceback.format_exc())

    # ----------------------------------------------------------------------------------------------------- events

    def _on_lane(self, events: int) -> None:
        if events & EPOLLOUT:
            self._lane_blocked = False
            self.loop.watch(self._lane.fileno(), EPOLLIN, self._on_lane)
            self.pump_soon()
        self._guard(self._turn)

    def _on_channel(self, events: int) -> None:
        if events & EPOLLOUT:
            self._guard(self._flush)
        self._guard(self._turn)

    def _turn(self) -> None:
        """What came on the channel before the lane's end counts."""
        self._read_lane()
        self._renew()
        self._read_channel(READS_PER_TURN)
        self._renew()
        if self._lane_ended and not self.ended:
            while self._channels[0] and self._read_channel(READS_PER_TURN) and not self.ended:
                pass
            self.end(Status.UNAVAILABLE, "the lane's end", close=False)

    # ------------------------------------------------------------------------------------------------------- lane

    def _read_lane(self) -> None:
        while not self._lane_ended and not self.ended and not self._renewing:
            try:
                lane_id, fd = _lane.receive(self._lane)
            except BlockingIOError:
                return
            if lane_id is None:
                self._lane_ended = True
                return
            self._take_lane_message(lane_id, fd)

    def _take_lane_message(self, lane_id: int, fd: int) -> None:
        epoch, number = lane_id >> 32, lane_id & 0xffffffff
        if epoch < self._epoch:
            close_fds([fd])
        elif epoch > self._epoch:
            if number != 0 or not self._renewal:
                close_fds([fd])
                raise PeerFault(Status.INVALID_ARGUMENT, "a lane id of a higher epoch that is no renewal")
            self._renewing = epoch, _lane.as_channel(fd)
        elif number < _lane.N_CHANNELS:
            if number != self._next_channel:
                close_fds([fd])
                raise PeerFault(Status.INVALID_ARGUMENT, "a channel that is not due")
            channel = _lane.as_channel(fd)
            self._next_channel = number + 1 if number + 1 < self._n_channels else None
            if number == 0:
                self._use_channel(channel)
            else:
                self._channels[number] = channel
        else:
            self._arrivals.arrived(lane_id, fd)

    def _renew(self) -> None:
        """A renewal that _read_lane() has found. Not done there: it may be in the middle of a frame."""
        while self._renewing and not self.ended:
            epoch, channel = self._renewing
            self._end_epoch()
            self._renewing = None
            self._epoch = epoch
            self._next_channel = 1 if self._n_channels > 1 else None
            self._use_channel(channel)
            self._read_lane()

    def _end_epoch(self) -> None:
        """What the old channel holds counts, then all that belonged to it is over."""
        if self._channels[0] and self.ready:
            while self._read_channel(READS_PER_TURN, renewal=True):
                pass
        for name in ("hello", "frame", "renewal"):
            self._disarm(name)
        self._close_channels()
        self._arrivals.close()
        self._arrivals = _lane.Arrivals(self.side, self.limits.fd_credit)
        parcels, self._parcels = self._parcels, collections.deque()
        self._new_epoch()
        self._lane_blocked = False
        unsent = {id(p.exchange) for p in parcels if p.envelope.kind == pb.CALL and not p.begun}
        self._parcels.extend(p for p in parcels if id(p.exchange) in unsent)
        self._drop(p for p in parcels if id(p.exchange) not in unsent)
        over = CallError(Status.UNAVAILABLE, "the connection was renewed after a crash; the call may have run")
        self._end_calls(over, [p.exchange for p in parcels if p.begun and p.envelope.kind == pb.CALL])

    def _drop(self, parcels: Iterable[Parcel]) -> None:
        for parcel in parcels:
            parcel.payload.close()

    def _end_calls(self, error: CallError, more: Iterable[Optional[Exchange]] = ()) -> None:
        calls, self._calls = self._calls, {}
        requests, self._requests = self._requests, {}
        for exchange in [*calls.values(), *requests.values(), *more]:
            if exchange:
                exchange.opened = False
                self._forget_timer(exchange)
                exchange.abort(error)

    @staticmethod
    def _forget_timer(exchange: Exchange) -> None:
        if exchange.timer:
            exchange.timer.cancel()

    # ------------------------------------------------------------------------------------------------- frames out

    def _write(self, envelope: Any, payload: bytes) -> None:
        """Puts a frame behind what is to be written; credit that is owed goes along."""
        if self._owed_fds and self.ready:
            size = 4 + envelope.ByteSize() + CREDIT_SIZE + len(payload)
            if size <= self.remote.max_frame:
                envelope.fd_credit = self._owed_fds
                self._arrivals.returned(self._owed_fds)
                self._owed_fds = 0
        head = envelope.SerializeToString()
        body = 4 + len(head) + len(payload)
        for piece in (HEADER.pack(body, len(head)) + head, payload):
            if piece:
                self._output.append(memoryview(piece))
                self._output_size += len(piece)

    def _flush(self) -> None:
        channel = self._channels[0]
        if not channel:
            return
        try:
            while self._output:
                pieces = [self._output[n] for n in range(min(len(self._output), WRITE_PIECES))]
                written = channel.sendmsg(pieces, [], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
                self._output_size -= written
                while written:
                    first = self._output[0]
                    if written < len(first):
                        self._output[0] = first[written:]
                        break
                    written -= len(first)
                    self._output.popleft()
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._output.clear()  # the end is found by reading
            self._output_size = 0
        paused = self._output_size > (BACKLOG // 2 if self._paused else BACKLOG)
        if self._paused and not paused and self._input:
            self.loop.call_soon(self._guard, self._turn)
        self._paused = paused
        self._watch_channel()

    @property
    def flushed(self) -> bool:
        """Whether everything that was to be sent has been taken by the kernel."""
        return not self._output and not self._parcels and not self._pump_due

    def pump_soon(self) -> None:
        """Has the loop send what can be sent."""
        if not self._pump_due and not self.ended:
            self._pump_due = True
            self.loop.call_soon(self._guard, self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        if not self.ready:
            return
        if self._parcels:
            self._send_parcels()
        for exchange in self._owed.values():
            if exchange.opened:
                self._write(pb.Envelope(kind=pb.CREDIT, id=exchange.id, credit=exchange.owed), b"")
                exchange.received_cost -= exchange.owed
            exchange.owed = 0
        self._owed.clear()
        if self._owed_fds:
            self._write(pb.Envelope(kind=pb.CREDIT), b"")
        self._flush()

    def _send_parcels(self) -> None:
        """What waits, in order; frames of one call never pass each other, nor do those with descriptors."""
        parcels, self._parcels = self._parcels, collections.deque()
        behind: set = set()
        lane_blocked = self._lane_blocked
        keep: List[Parcel] = []
        for parcel in parcels:
            key = id(parcel.exchange) if parcel.exchange else None
            if key in behind:
                keep.append(parcel)
                continue
            if self._is_stale(parcel):
                self._drop([parcel])
                continue
            is_call = parcel.envelope.kind == pb.CALL
            if is_call and not parcel.begun and not self._fits(parcel.envelope, parcel.payload):
                self._waiting_bytes -= len(parcel.payload.data)
                assert parcel.exchange
                parcel.exchange.abort(self._too_large(parcel.payload))
                self._drop([parcel])
                continue
            waits = is_call and not parcel.begun and len(self._requests) >= self.remote.max_calls
            if not waits and parcel.payload.n_fds and parcel.sent < parcel.payload.n_fds:
                waits = lane_blocked or not self._send_fds(parcel)
                lane_blocked |= waits
            if waits:
                keep.append(parcel)
                behind.add(key)
            else:
                self._write_parcel(parcel)
        keep.extend(self._parcels)
        self._parcels = collections.deque(keep)

    def _is_stale(self, parcel: Parcel) -> bool:
        """Whether what it belongs to has ended meanwhile. What was begun must be written, always."""
        exchange = parcel.exchange
        if parcel.begun or parcel.envelope.kind != pb.ITEM:
            return False
        return exchange.done if isinstance(exchange, Request) else not (exchange and exchange.opened)

    def _send_fds(self, parcel: Parcel) -> bool:
        """True when the kernel has all of them: the frame may be written."""
        fds = parcel.payload._fds
        if not parcel.begun:
            if self._credit < len(fds):
                return False
            self._credit -= len(fds)
            parcel.begun = True
        while parcel.sent < len(fds):
            if self._next_n > _lane.LAST_N:
                raise PeerFault(Status.RESOURCE_EXHAUSTED, "all descriptor ids of this epoch are used up")
            lane_id = self._epoch << 32 | self._next_n << 1 | self.side
            try:
                if not _lane.send(self._lane, lane_id, fds[parcel.sent]):
                    self._arm("lane", LANE_RETRY_SECONDS, self.pump_soon)
                    return False
            except BlockingIOError:
                self._lane_blocked = True
                self.loop.watch(self._lane.fileno(), EPOLLIN | EPOLLOUT, self._on_lane)
                return False
            except BrokenPipeError:
                return False  # the lane's end is found by reading
            self._next_n += 1
            parcel.sent += 1
            parcel.envelope.fds.append(lane_id)
        return True

    def _write_parcel(self, parcel: Parcel) -> None:
        envelope, exchange = parcel.envelope, parcel.exchange
        if envelope.kind == pb.CALL:
            assert isinstance(exchange, Request)
            exchange.id = envelope.id = self._next_id
            self._next_id += 2
            self._waiting_bytes -= len(parcel.payload.data)
            left = exchange.time_left()
            envelope.timeout_us = 0 if left is None else max(1, int(left * 1e6))
            self._requests[exchange.id] = exchange
            exchange.opened = True
            exchange.window_is(self.remote.stream_window)
        elif exchange is not None:
            envelope.id = exchange.id
            if envelope.kind == pb.ANSWER:
                exchange.opened = False
        self._write(envelope, parcel.payload.data)
        parcel.payload.close()
        if envelope.kind == pb.CALL and isinstance(exchange, Request) and exchange.done:
            self._write(pb.Envelope(kind=pb.CANCEL, id=exchange.id), b"")

    def _fits(self, envelope: Any, payload: Payload) -> bool:
        size = 4 + envelope.ByteSize() + HEAD_ROOM + LANE_ID_SIZE * payload.n_fds + len(payload.data)
        return size <= self.remote.max_frame and payload.n_fds <= self.remote.fd_credit

    def _too_large(self, payload: Payload) -> CallError:
        return CallError(Status.RESOURCE_EXHAUSTED,
                         f"{len(payload.data)} bytes and {payload.n_fds} descriptors: the other side accepts frames of "
                         f"{self.remote.max_frame} bytes with {self.remote.fd_credit}")

    # -------------------------------------------------------------------------------------------------- frames in

    def _read_channel(self, reads: int, renewal: bool = False) -> bool:
        """False: there is nothing more for now."""
        while self._channels[0] and not self.ended and not (self._paused and not renewal):
            channel = self._channels[0]
            self._take_frames(renewal)
            if self.ended or self._channels[0] is not channel or reads == 0:
                return True
            reads -= 1
            try:
                data = channel.recv(READ_SIZE)
            except BlockingIOError:
                return False
            except (ConnectionResetError, BrokenPipeError):
                continue
            if not data:
                if not renewal:
                    self._channel_ended()
                return False
            self._input += data
        return False

    def _channel_ended(self) -> None:
        for name in ("hello", "frame"):
            self._disarm(name)
        if not self._renewal:
            self.end(Status.UNAVAILABLE, "the peer has closed channel 0", close=False)
            return
        channel, self._channels[0] = self._channels[0], None
        assert channel
        self.loop.unwatch(channel.fileno())
        channel.close()
        self.ready = False
        self._arm("renewal", RENEWAL_SECONDS,
                  lambda: self.end(Status.DEADLINE_EXCEEDED, "no renewal in time", close=False))

    def _take_frames(self, renewal: bool) -> None:
        at = 0
        channel = self._channels[0]
        data = self._input
        while len(data) - at >= LENGTH.size and not (self._paused and not renewal):
            length = LENGTH.unpack_from(data, at)[0]
            limit = self.limits.max_frame if self.ready else FRAME_MIN
            if length > limit:
                raise PeerFault(Status.RESOURCE_EXHAUSTED, f"a frame of {length} bytes, accepted are {limit}")
            if length < 4:
                raise PeerFault(Status.INVALID_ARGUMENT, f"a frame of {length} bytes, too short for an Envelope")
            end = at + LENGTH.size + length
            if len(data) < end:
                break
            with memoryview(data) as view:
                body = bytes(view[at + LENGTH.size:end])
            at = end
            self._disarm("frame")
            self._take_frame(body, renewal)
            if self.ended or self._channels[0] is not channel:
                return
        if at:
            del data[:at]
        if not data or self._paused:
            self._disarm("frame")
        elif "frame" not in self._timers and not renewal:
            self._arm("frame", FRAME_SECONDS,
                      lambda: self._fault(Status.DEADLINE_EXCEEDED, "a frame that was begun and not finished"))

    def _take_frame(self, body: bytes, renewal: bool) -> None:
        envelope = self._parse(body)
        kind = envelope.kind
        if not self.ready and kind not in (pb.HELLO, pb.CLOSE):
            raise PeerFault(Status.FAILED_PRECONDITION, f"{pb.Kind.Name(kind)} before Hello")
        if envelope.blocks:
            raise PeerFault(Status.INVALID_ARGUMENT, "a block, where shared memory was not agreed")
        fds: List[int] = []
        absent = lost = False
        if envelope.fds:
            self._read_lane()
            if self.ended:
                return
            fds, absent, lost, credit = self._arrivals.claim(envelope.fds)
            self._owed_fds += credit
            self.pump_soon()
        frame = Frame(envelope, body[4 + LENGTH.unpack_from(body)[0]:], fds, absent, lost)
        try:
            self._take_credit(envelope)
            if not (renewal or self._renewing) or kind in (pb.ANSWER, pb.ITEM):
                self._handlers[kind](self, frame)
        finally:
            close_fds(fds)  # whoever took them has emptied the list

    @staticmethod
    def _parse(body: bytes) -> Any:
        size = LENGTH.unpack_from(body)[0]
        if size > len(body) - LENGTH.size:
            raise PeerFault(Status.INVALID_ARGUMENT, "an Envelope longer than its frame")
        if size > ENVELOPE_MAX:
            raise PeerFault(Status.RESOURCE_EXHAUSTED, f"an Envelope of {size} bytes")
        envelope = pb.Envelope()
        try:
            envelope.ParseFromString(body[LENGTH.size:LENGTH.size + size])
        except Exception:  # DecodeError; others for text in older libraries
            raise PeerFault(Status.INVALID_ARGUMENT, "an Envelope that cannot be parsed") from None
        if envelope.kind not in KINDS:
            raise PeerFault(Status.INVALID_ARGUMENT, f"a frame of kind {envelope.kind}")
        if has_nul(envelope):
            raise PeerFault(Status.INVALID_ARGUMENT, "text with NUL")
        return envelope

    def _take_credit(self, envelope: Any) -> None:
        if envelope.fd_credit and self.ready:
            if self._credit + envelope.fd_credit > self.remote.fd_credit:
                raise PeerFault(Status.INVALID_ARGUMENT, "credit for more descriptors than were sent")
            self._credit += envelope.fd_credit
            self.pump_soon()

    def _on_hello(self, frame: Frame) -> None:
        if not frame.envelope.HasField("hello"):
            raise PeerFault(Status.INVALID_ARGUMENT, "a HELLO frame without a Hello")
        if self.ready:
            raise PeerFault(Status.INVALID_ARGUMENT, "a second Hello")
        hello = frame.envelope.hello
        if hello.protocol_min > hello.protocol_max or 0 < hello.max_frame < FRAME_MIN:
            raise PeerFault(Status.INVALID_ARGUMENT, "a Hello with limits that cannot be")
        if not hello.protocol_min <= PROTOCOL <= hello.protocol_max:
            raise PeerFault(Status.FAILED_PRECONDITION, f"no common version: {PROTOCOL} to {PROTOCOL} here, "
                                                        f"{hello.protocol_min} to {hello.protocol_max} there")
        default = Limits()
        self.remote = Limits(hello.max_frame or default.max_frame, hello.max_calls or default.max_calls,
                             hello.fd_credit or default.fd_credit, hello.stream_window or default.stream_window)
        self._credit = self.remote.fd_credit
        self.instance = hello.instance or self.instance
        self.software = hello.software
        self.ready = True
        self._disarm("hello")
        self._hellos += 1
        self.host.ready(self, self._hellos > 1)
        self.pump_soon()

    def _on_close(self, frame: Frame) -> None:
        if frame.envelope.id:
            raise PeerFault(Status.INVALID_ARGUMENT, "a CLOSE that belongs to a call")
        self.end(Status.from_wire(frame.envelope.status), frame.envelope.message or "closed by the peer", close=False)

    # ---------------------------------------------------------------------------------------------------- the end

    def end(self, status: Status, message: str, close: bool = True) -> None:
        """Ends the connection, with a CLOSE that says so. What is open ends UNAVAILABLE. Once."""
        if self.ended:
            return
        self.ended = True
        if close and self._channels[0]:
            self._write(pb.Envelope(kind=pb.CLOSE, status=status, message=one_line(message)), b"")
            self._flush()
        self.ready = False
        for name in list(self._timers):
            self._disarm(name)
        self._close_channels()
        self.loop.unwatch(self._lane.fileno())
        self._lane.close()
        self._arrivals.close()
        if self._renewing:
            self._renewing[1].close()
        parcels, self._parcels = self._parcels, collections.deque()
        self._drop(parcels)
        self._output.clear()
        self._input = bytearray()
        self._end_calls(CallError(Status.UNAVAILABLE, message), [parcel.exchange for parcel in parcels])
        self.host.ended(self, status, message)
