# SPDX-License-Identifier: Apache-2.0
"""The wire of one peer: its lane and channel 0, Hello, credit of the lane, renewal and the end (docs/protocol.md). What
the frames of calls mean is in _connection.py.

A Link belongs to the thread of its loop. What spoils one call ends that call; what leaves the sides disagreeing raises
PeerFault and ends the connection, with CLOSE. The host says what the connection is for: see Host.
"""

import socket
import time
import traceback
from select import EPOLLIN, EPOLLOUT
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from . import _lane, baton_pb2 as pb
from ._channel import END, NOTHING, Channel
from ._loop import Loop, Timer
from ._object import Objects
from ._outbox import Outbox, drop
from ._share import FEATURE, Share
from ._wire import CREDIT_SIZE, FRAME_MIN, PROTOCOL, RESERVED, Frame, Limits, PeerFault, one_line, parse_envelope
from .calls import Call, Exchange, Request
from .errors import CallError, Status
from .payload import close_fds

READS_PER_TURN = 4
HELLO_SECONDS = 10.0
FRAME_SECONDS = 30.0
RENEWAL_SECONDS = 60.0


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


class Link:
    """`side' is 0 where we send the channels first. `n_channels' are sent in an epoch; we serve channel 0.
    `renewal': whether the other side may renew. `max_shared': bytes of shared memory each way, 0: none is offered. The
    lane is consumed."""

    _handlers: Dict[int, Callable[[Any, Frame], None]] = {}  # by kind

    def __init__(self, loop: Loop, lane: socket.socket, host: Host, *, side: int, n_channels: int,
                 renewal: bool = False, limits: Limits = Limits(), max_shared: int = 0, software: str = "") -> None:
        self.loop = loop
        self.host = host
        self.limits = limits
        self.side = side
        self.instance = 0  # what the other side's Hello said
        self.software = ""
        self.ended = False
        self.make_error: Callable[..., CallError] = CallError  # of an answer that is not OK
        self.lane = lane
        self.epoch = 0
        self.share: Optional[Share] = None  # where both sides offer it
        self.calls: Dict[int, Call] = {}
        self.requests: Dict[int, Request] = {}
        self._max_shared = max_shared
        self._objects = Objects(limits.max_object)
        self._lane_ended = False
        self._renewing: Optional[Tuple[int, socket.socket]] = None
        self._n_channels = n_channels
        self._renewal = renewal
        self._software = software
        self._hellos = 0
        self._channel: Optional[Channel] = None
        self._others: Dict[int, socket.socket] = {}  # channels 1 and 2
        self._next_channel: Optional[int] = 0
        self._arrivals = _lane.Arrivals(side, limits.fd_credit)
        self.outbox = Outbox(self)
        self._timers: Dict[str, Timer] = {}
        self._pump_due = False
        self._new_epoch()
        lane.setblocking(False)
        self.watch_lane(EPOLLIN)

    def _new_epoch(self) -> None:
        self.ready = False
        self.remote = Limits()
        self._owed_fds = 0
        self._owed: Dict[int, Exchange] = {}
        self._last_in = 0

    # ---------------------------------------------------------------------------------------------------- channels

    def send_channel(self, epoch: int = 0) -> None:
        """Makes channel 0 and sends it: the first of a new lane, or a renewal of ours."""
        ours, theirs = socket.socketpair()
        try:
            _lane.send(self.lane, epoch << 32, theirs.fileno())
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self.epoch = epoch
        self._next_channel = None
        self._use_channel(ours)

    def take_channel(self, number: int) -> Optional[socket.socket]:
        """Channel 1 or 2 as it is, from now on the caller's; None: it has not arrived."""
        return self._others.pop(number, None)

    def _use_channel(self, channel: socket.socket) -> None:
        self._channel = Channel(self.loop, channel, self._on_channel, self.limits.max_unsent)
        hello = pb.Hello(protocol_min=PROTOCOL, protocol_max=PROTOCOL, software=self._software,
                         features=[FEATURE] if self._max_shared else [], **self.limits.stated())
        self.host.hello(hello)
        self.write(pb.Envelope(kind=pb.HELLO, hello=hello))
        self.arm("hello", HELLO_SECONDS, lambda: self._fault(Status.DEADLINE_EXCEEDED, "no HELLO"))
        self._flush()

    def _close_channels(self) -> None:
        if self._channel:
            self._channel.close()
            self._channel = None
        for channel in self._others.values():
            channel.close()
        self._others.clear()

    # -------------------------------------------------------------------------------------------------- time-outs

    def arm(self, name: str, seconds: float, function: Callable[[], None]) -> None:
        """Calls that after so long, instead of what was armed under that name."""
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

    def watch_lane(self, events: int) -> None:
        self.loop.watch(self.lane.fileno(), events, self._on_lane)

    def _on_lane(self, events: int) -> None:
        if events & EPOLLOUT:
            self.outbox.lane_blocked = False
            self.watch_lane(EPOLLIN)
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
            while self._channel and self._read_channel(READS_PER_TURN) and not self.ended:
                pass
            self.end(Status.UNAVAILABLE, "the lane's end", close=False)

    # ------------------------------------------------------------------------------------------------------- lane

    def _read_lane(self) -> None:
        while not self._lane_ended and not self.ended and not self._renewing:
            try:
                lane_id, fd = _lane.receive(self.lane)
            except BlockingIOError:
                return
            if lane_id is None:
                self._lane_ended = True
                return
            self._take_lane_message(lane_id, fd)

    def _take_lane_message(self, lane_id: int, fd: int) -> None:
        epoch, number = lane_id >> 32, lane_id & 0xffffffff
        if epoch < self.epoch:
            close_fds([fd])
        elif epoch > self.epoch:
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
                self._others[number] = channel
        else:
            self._arrivals.arrived(lane_id, fd)

    def _renew(self) -> None:
        """A renewal that _read_lane() has found. Not done there: it may be in the middle of a frame."""
        while self._renewing and not self.ended:
            epoch, channel = self._renewing
            self._end_epoch()
            self._renewing = None
            self.epoch = epoch
            self._next_channel = 1 if self._n_channels > 1 else None
            self._use_channel(channel)
            self._read_lane()

    def _end_epoch(self) -> None:
        """What the old channel holds counts, then all that belonged to it is over. Calls that were not sent may wait for
        the new one."""
        if self._channel and self.ready:
            while self._read_channel(READS_PER_TURN, renewal=True):
                pass
        for name in ("hello", "frame", "renewal", "share"):
            self._disarm(name)
        self._close_share()
        self._close_channels()
        self._arrivals.close()
        self._arrivals = _lane.Arrivals(self.side, self.limits.fd_credit)
        parcels = self.outbox.take_all()
        self._new_epoch()
        self.outbox.new_epoch()
        unsent = {id(p.exchange) for p in parcels if p.envelope.kind == pb.CALL and not p.begun}
        for parcel in parcels:
            if id(parcel.exchange) in unsent:
                self.outbox.add(parcel.envelope, parcel.payload, parcel.exchange)
            else:
                drop([parcel])
        over = CallError(Status.UNAVAILABLE, "the connection was renewed after a crash; the call may have run")
        self._end_calls(over, [p.exchange for p in parcels if p.begun and p.envelope.kind == pb.CALL])

    def _close_share(self) -> None:
        share, self.share = self.share, None
        if share:
            share.close()

    def _end_calls(self, error: CallError, more: Iterable[Optional[Exchange]] = ()) -> None:
        calls, self.calls = self.calls, {}
        requests, self.requests = self.requests, {}
        for exchange in [*calls.values(), *requests.values(), *more]:
            if exchange:
                exchange.opened = False
                exchange.forget_timer()
                exchange.abort(error)

    # ------------------------------------------------------------------------------------------------- frames out

    def write(self, envelope: Any, payload: bytes = b"") -> None:
        """Puts a frame behind what is to be written; credit that is owed goes along."""
        if not self._channel:
            return
        if self._owed_fds and self.ready:
            size = 4 + envelope.ByteSize() + CREDIT_SIZE + len(payload)
            if size <= self.remote.max_frame:
                envelope.fd_credit = self._owed_fds
                self._arrivals.returned(self._owed_fds)
                self._owed_fds = 0
        self._channel.write(envelope, payload, envelope.kind == pb.ANSWER)

    def _flush(self) -> None:
        """A side that waits for answers itself goes on reading, whatever is unsent: two that both stop wait for ever."""
        if self._channel and self._channel.flush(may_pause=not self.requests):
            self.loop.call_soon(self._guard, self._turn)
        if self.outbox.held_back and self.unsent <= self.limits.max_unsent // 2:
            self.outbox.held_back = False
            self.pump_soon()

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken."""
        return self._channel.unsent if self._channel else 0

    @property
    def unsent_answers(self) -> int:
        """Calls of the other side's that it counts as open, and we do not any more."""
        return self.outbox.answers + (self._channel.unsent_answers if self._channel else 0)

    @property
    def flushed(self) -> bool:
        """Whether everything that was to be sent has been taken by the kernel."""
        return not self.unsent and not len(self.outbox) and not self._pump_due

    def pump_soon(self) -> None:
        """Has the loop send what can be sent."""
        if not self._pump_due and not self.ended:
            self._pump_due = True
            self.loop.call_soon(self._guard, self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        if not self.ready:
            return
        if self.share:
            self.share.give_back()
        self.outbox.pump()
        for exchange in self._owed.values():
            if exchange.opened:
                self.write(pb.Envelope(kind=pb.CREDIT, id=exchange.id, credit=exchange.owed))
                exchange.received_cost -= exchange.owed
            exchange.owed = 0
        self._owed.clear()
        if self._owed_fds:
            self.write(pb.Envelope(kind=pb.CREDIT))
        self._flush()

    # -------------------------------------------------------------------------------------------------- frames in

    def _read_channel(self, reads: int, renewal: bool = False) -> bool:
        """False: there is nothing more for now."""
        while self._channel and not self.ended:
            channel = self._channel
            self._take_frames(channel, renewal)
            if self.ended or self._channel is not channel or reads == 0:
                return True
            if channel.paused and not renewal:
                return False
            reads -= 1
            result = channel.receive()
            if result == END and not renewal:
                self._channel_ended()
            if result in (END, NOTHING):
                return False
        return False

    def _channel_ended(self) -> None:
        for name in ("hello", "frame", "share"):
            self._disarm(name)
        if not self._renewal:
            self.end(Status.UNAVAILABLE, "the peer has closed channel 0", close=False)
            return
        assert self._channel
        self._channel.close()
        self._channel = None
        self.ready = False
        self.arm("renewal", RENEWAL_SECONDS,
                 lambda: self.end(Status.DEADLINE_EXCEEDED, "no renewal in time", close=False))

    def _take_frames(self, channel: Channel, renewal: bool) -> None:
        while renewal or not channel.paused:
            pieces = channel.next_frame(self.limits.max_frame if self.ready else FRAME_MIN)
            if pieces is None:
                break
            self._disarm("frame")
            self._take_frame(*pieces, renewal)
            if self.ended or self._channel is not channel:
                return
        if not channel.begun or channel.paused:
            self._disarm("frame")
        elif "frame" not in self._timers and not renewal:
            self.arm("frame", FRAME_SECONDS,
                     lambda: self._fault(Status.DEADLINE_EXCEEDED, "a frame that was begun and not finished"))

    def _take_frame(self, head: bytes, payload: bytes, renewal: bool) -> None:
        envelope = parse_envelope(head)
        kind = envelope.kind
        if not self.ready and kind not in (pb.HELLO, pb.CLOSE):
            raise PeerFault(Status.FAILED_PRECONDITION, f"{pb.Kind.Name(kind)} before Hello")
        if envelope.blocks and not self.share:
            raise PeerFault(Status.INVALID_ARGUMENT, "a block, where shared memory was not agreed")
        frame = Frame(envelope, payload)
        try:
            if not self._claim(frame):
                return
            self._take_credit(envelope)
            if not (renewal or self._renewing) or kind in (pb.ANSWER, pb.ITEM):
                self._handlers[kind](self, frame)
        finally:
            frame.close()

    def _claim(self, frame: Frame) -> bool:
        """What the frame lists becomes its own. False: the connection has ended over it."""
        if frame.envelope.fds:
            self._read_lane()
            if self.ended:
                return False
            frame.fds, frame.absent, frame.lost, credit = self._arrivals.claim(frame.envelope.fds)
            self._owed_fds += credit
            self.pump_soon()
        if frame.envelope.blocks and self.share:
            frame.view, frame.fault = self.share.claim(frame.envelope, not frame.bytes)
            self.pump_soon()
        if frame.envelope.object and not frame.absent and not frame.lost:
            self._claim_object(frame)
        return True

    def _claim_object(self, frame: Frame) -> None:
        envelope = frame.envelope
        try:
            frame.view = self._objects.claim(envelope.object, frame.fds, bool(frame.bytes or envelope.blocks),
                                             envelope.kind == pb.CALL and envelope.method.startswith(RESERVED))
        except CallError as error:
            frame.fault = error

    def _take_credit(self, envelope: Any) -> None:
        if envelope.fd_credit and self.ready:
            if self.outbox.credit + envelope.fd_credit > self.remote.fd_credit:
                raise PeerFault(Status.INVALID_ARGUMENT, "credit for more descriptors than were sent")
            self.outbox.credit += envelope.fd_credit
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
                             hello.fd_credit or default.fd_credit, hello.stream_window or default.stream_window,
                             hello.max_object)
        self.outbox.credit = self.remote.fd_credit
        self.instance = hello.instance or self.instance
        self.software = hello.software
        self.ready = True
        self._disarm("hello")
        self._hellos += 1
        if self._max_shared and FEATURE in hello.features:
            self.share = Share(self, self._max_shared)
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
        if close and self._channel:
            self.write(pb.Envelope(kind=pb.CLOSE, status=status, message=one_line(message)))
            self._flush()
        self.ready = False
        for name in list(self._timers):
            self._disarm(name)
        self._close_share()
        self._close_channels()
        self.loop.unwatch(self.lane.fileno())
        self.lane.close()
        self._arrivals.close()
        if self._renewing:
            self._renewing[1].close()
        parcels = self.outbox.take_all()
        drop(parcels)
        self._end_calls(CallError(Status.UNAVAILABLE, message), [parcel.exchange for parcel in parcels])
        self.host.ended(self, status, message)
