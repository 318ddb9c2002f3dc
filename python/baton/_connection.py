# SPDX-License-Identifier: Apache-2.0
"""Connection: calls over a Link, those to us and those of ours, and their streams (docs/protocol.md).

It belongs to the thread of its loop; what other threads want comes through Loop.call_soon().
"""

import time
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from . import baton_pb2 as pb
from ._link import Link
from ._wire import METHOD_MAX, Frame, PeerFault, check_text, is_method_name, one_line
from .calls import COST_OF_DESCRIPTOR, Answer, Call, Exchange, Request, cost, deadline_after
from .connection import Peer
from .errors import CallError, Detail, Status
from .payload import Payload, as_metadata, as_payload


class Connection(Link, Peer):
    """A Link whose other side can be called, and calls; whom its calls go to the host says."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._held_fds = 0
        self._stream_memory = 0
        super().__init__(*arguments, **options)

    # ------------------------------------------------------------------------------------------------ calls to us

    def _on_call(self, frame: Frame) -> None:
        envelope = frame.envelope
        if envelope.id < 2 or envelope.id & 1 == self.side or envelope.id <= self._last_in:
            raise PeerFault(Status.INVALID_ARGUMENT, f"a CALL with id {envelope.id} after {self._last_in}")
        if len(self.calls) + self.unsent_answers >= self.limits.max_calls:
            raise PeerFault(Status.RESOURCE_EXHAUSTED, f"a CALL above the {self.limits.max_calls} that may be open")
        self._last_in = envelope.id
        refusal = self._refusal(frame)
        if refusal:
            self._refuse(envelope.id, *refusal)
            return
        deadline = deadline_after(envelope.timeout_us / 1e6) if envelope.timeout_us else None
        call = Call(self, envelope.method, frame.payload(),
                    [(pair.key, pair.value) for pair in envelope.metadata], deadline, not envelope.end)
        call.id = envelope.id
        call.held_fds = len(envelope.fds)  # an object is one, too
        call.opened = True
        call.window_is(self.remote.stream_window)
        self.calls[call.id] = call
        self._held_fds += call.held_fds
        if call.caller_streams:
            self._stream_memory += self.limits.stream_window
        if deadline is not None:
            call.timer = self.loop.call_at(deadline, lambda: self._give_up(call, Status.DEADLINE_EXCEEDED,
                                                                            "the deadline has passed"))
        if self.share and self.share.serve(call):
            return
        serve = self.host.accept(call)
        if serve:
            serve(call)

    def _refusal(self, frame: Frame) -> Optional[Tuple[Status, str]]:
        """Why such a call is not taken, in the order of the document."""
        if frame.absent:
            return Status.INVALID_ARGUMENT, "the call lists a descriptor that was not sent"
        if frame.lost:
            return Status.RESOURCE_EXHAUSTED, "a descriptor of the call was lost to the receiver's descriptor limit"
        if frame.fault:
            return frame.fault.status, frame.fault.message
        if self._held_fds + len(frame.envelope.fds) > self.limits.max_held_fds:
            return Status.RESOURCE_EXHAUSTED, (f"open calls hold {self._held_fds} descriptors already, at most "
                                               f"{self.limits.max_held_fds} may")
        if self.unsent > self.limits.max_unsent + self.limits.max_memory:
            return Status.RESOURCE_EXHAUSTED, f"{self.unsent} bytes wait for the caller to read them already"
        if not is_method_name(frame.envelope.method):
            return Status.INVALID_ARGUMENT, f"a method's name has 1 to {METHOD_MAX} bytes"
        if not frame.envelope.end and self._stream_memory + self.limits.stream_window > self.limits.max_memory:
            return Status.RESOURCE_EXHAUSTED, (f"open streams may have {self._stream_memory} bytes waiting already, at "
                                               f"most {self.limits.max_memory} may")
        return None

    def _refuse(self, call_id: int, status: Status, message: str) -> None:
        """An answer without a call of ours. The frames of the call that wait are dropped."""
        self.write(pb.Envelope(kind=pb.ANSWER, id=call_id, status=status, message=message))
        self.pump_soon()

    def _give_up(self, call: Call, status: Status, message: str) -> None:
        """Ends a call to us at once; its handler learns that nobody waits."""
        if self.calls.pop(call.id, None) is not call:
            return
        call.opened = False
        call.forget_timer()
        if self.outbox.has_begun(call):  # its descriptors are on the lane: the frame goes first
            self.outbox.add(pb.Envelope(kind=pb.ANSWER, id=call.id, status=status, message=message), Payload(), call)
        else:
            self._refuse(call.id, status, message)
        call.abort(CallError(status, message))

    def send_answer(self, call: Call, status: Status, message: str, details: List[Detail], payload: Payload,
                    metadata: List[Tuple[str, bytes]]) -> None:
        """The end that a handler has given its call."""
        self._held_fds -= call.held_fds
        if call.caller_streams:
            self._stream_memory -= self.limits.stream_window
        if payload is not call.request:
            call.request.close()
        if self.calls.get(call.id) is call and call.opened:
            self._queue_answer(call, status, message, details, payload, metadata)
        else:
            payload.close()
        call.abort(CallError(Status.CANCELLED, "the call was ended"), tell=False)
        self.host.settled(call)

    def _queue_answer(self, call: Call, status: Status, message: str, details: List[Detail], payload: Payload,
                      metadata: List[Tuple[str, bytes]]) -> None:
        try:
            envelope = pb.Envelope(kind=pb.ANSWER, status=status, message=one_line(message),
                                   type=check_text(payload.type),
                                   details=[pb.Detail(type=check_text(d.type), value=d.value) for d in details],
                                   metadata=[pb.Pair(key=check_text(key), value=value) for key, value in metadata])
        except (TypeError, ValueError) as error:
            envelope = pb.Envelope(kind=pb.ANSWER, status=Status.INTERNAL, message=one_line(f"an answer with {error}"))
            payload.close()
            payload = Payload()
        if not self.outbox.prepare(envelope, payload):
            size = payload.size
            envelope = pb.Envelope(kind=pb.ANSWER, status=Status.RESOURCE_EXHAUSTED,
                                   message=f"the answer of {size} bytes and {payload.n_fds} descriptors is too large")
            payload.close()
            payload = Payload()
        del self.calls[call.id]
        call.forget_timer()
        self.outbox.add(envelope, payload, call)

    def _on_cancel(self, frame: Frame) -> None:
        call = self.calls.get(frame.envelope.id)
        if call:
            self._give_up(call, Status.CANCELLED, "cancelled by the caller")

    # ---------------------------------------------------------------------------------------------- calls of ours

    def request(self, method: str, content: Any = b"", type: str = "", fds: Iterable[Any] = (), metadata: Any = (),
                timeout: Optional[float] = None, sends: bool = False, takes: bool = False,
                parent: Optional[Call] = None) -> Request:
        """Calls the other side. Any thread. ValueError: such a method or text cannot be."""
        if not is_method_name(method):
            raise ValueError(f"a method's name has 1 to {METHOD_MAX} bytes")
        pairs = as_metadata(metadata)
        for key, _ in pairs:
            check_text(key)
        payload = as_payload(content, type, fds)
        check_text(payload.type)
        if timeout is not None and timeout != timeout:
            raise ValueError("a time-out that is no number")
        left = parent.time_left() if parent else None
        if left is not None:
            timeout = left if timeout is None else min(left, timeout)
        request = Request(self, method, payload, pairs, timeout, sends, takes)
        if not self.loop.call_soon(self._start, request):
            payload.close()
            request.abort(CallError(Status.UNAVAILABLE, "the connection has ended"))
        if parent:
            parent.on_cancel(request.cancel)
        return request

    def _start(self, request: Request) -> None:
        payload = request.payload
        assert payload is not None
        request.payload = None
        if request.done:
            payload.close()
            return
        envelope = pb.Envelope(kind=pb.CALL, method=request.method, type=payload.type, end=not request.sends_items,
                               metadata=[pb.Pair(key=key, value=value) for key, value in request.metadata])
        refusal = None
        if self.ended:
            refusal = CallError(Status.UNAVAILABLE, "the connection has ended")
        elif self.ready and not self.outbox.prepare(envelope, payload):
            refusal = self.outbox.too_large(payload)
        elif (len(self.outbox) >= self.limits.max_waiting or
              self.outbox.waiting_bytes + payload.size > self.limits.max_waiting_bytes):
            refusal = CallError(Status.RESOURCE_EXHAUSTED, f"{len(self.outbox)} calls of {self.outbox.waiting_bytes} "
                                "bytes wait to be sent already, and no more may")
        if refusal:
            payload.close()
            request.abort(refusal)
            return
        self.outbox.add(envelope, payload, request)
        left = request.time_left()
        if left is not None:
            request.timer = self.loop.call_at(time.monotonic() + left, lambda: self.cancel(
                request, CallError(Status.DEADLINE_EXCEEDED, "the deadline has passed")))

    def cancel(self, request: Request, error: CallError) -> None:
        """Ends a call of ours here and now. It is counted until its ANSWER has come."""
        if request.done:
            return
        request.forget_timer()
        request.abort(error)
        if request.opened and not self.ended:
            self.write(pb.Envelope(kind=pb.CANCEL, id=request.id))
        else:
            self.outbox.forget(request)
        self.pump_soon()

    def _on_answer(self, frame: Frame) -> None:
        envelope = frame.envelope
        request = self.requests.pop(envelope.id, None)
        if request is None:
            return
        request.opened = False
        request.forget_timer()
        metadata = [(pair.key, pair.value) for pair in envelope.metadata]
        if frame.absent or frame.lost:
            request.abort(CallError(Status.INVALID_ARGUMENT if frame.absent else Status.RESOURCE_EXHAUSTED,
                                    "a descriptor of the answer is not there"))
        elif frame.fault:
            request.abort(frame.fault)
        elif envelope.status:
            details = [(detail.type, detail.value) for detail in envelope.details]
            request.finish(None, self.make_error(envelope.status, envelope.message, details, metadata))
        else:
            request.finish(Answer(frame.payload(), metadata), None)
        if len(self.outbox):
            self.pump_soon()  # a call may have waited for this one's end

    # ---------------------------------------------------------------------------------------------------- streams

    def send_item(self, exchange: Exchange, payload: Payload, end: bool) -> None:
        """An item whose cost has been taken from its window, or the half-close."""
        if self.ended or (isinstance(exchange, Call) and not exchange.opened) or (
                isinstance(exchange, Request) and exchange.done):
            payload.close()
            return
        envelope = pb.Envelope(kind=pb.ITEM, type=payload.type, end=end)
        before = payload.sealed
        if not self.outbox.prepare(envelope, payload):
            self._drop_item(exchange, self.outbox.too_large(payload))
            payload.close()
            return
        if payload.sealed and not before:
            exchange.credit(payload.sealed - COST_OF_DESCRIPTOR)  # it was to be in the frame
        self.outbox.add(envelope, payload, exchange)

    def _drop_item(self, exchange: Exchange, error: CallError) -> None:
        """An item that can never be sent: what follows it would come to the wrong place, so the call ends."""
        if isinstance(exchange, Request):
            self.cancel(exchange, error)
        elif isinstance(exchange, Call):
            self._give_up(exchange, error.status, error.message)

    def _on_item(self, frame: Frame) -> None:
        envelope = frame.envelope
        ours = envelope.id & 1 == self.side
        exchange: Optional[Exchange] = self.requests.get(envelope.id) if ours else self.calls.get(envelope.id)
        if exchange is None or (isinstance(exchange, Request) and exchange.done):
            return
        only_end = envelope.end and not frame.bytes and not envelope.fds and not envelope.blocks
        fault = self._item_fault(exchange, frame, only_end)
        if fault:
            error = CallError(*fault)
            if isinstance(exchange, Request):
                self.cancel(exchange, error)
            elif isinstance(exchange, Call):
                self._give_up(exchange, error.status, error.message)
            return
        if not only_end:
            payload = frame.payload()
            size = cost(payload.inline_size, len(envelope.fds))
            if exchange.received_cost + size > self.limits.stream_window:
                payload.close()
                raise PeerFault(Status.RESOURCE_EXHAUSTED, f"an ITEM of call {envelope.id} goes beyond its window")
            exchange.received_cost += size
            exchange.item_arrived(payload, size)
        if envelope.end and isinstance(exchange, Call):
            exchange.half_closed = True
            exchange.no_more_items()

    @staticmethod
    def _item_fault(exchange: Exchange, frame: Frame, only_end: bool) -> Optional[Tuple[Status, str]]:
        if frame.absent:
            return Status.INVALID_ARGUMENT, "an item lists a descriptor that was not sent"
        if frame.lost:
            return Status.RESOURCE_EXHAUSTED, "a descriptor of an item was lost to the receiver's descriptor limit"
        if frame.fault:
            return frame.fault.status, frame.fault.message
        if isinstance(exchange, Call):
            if exchange.half_closed:
                return Status.INVALID_ARGUMENT, "an item after the half-close"
            if not exchange.method_takes_items and not only_end:
                return Status.INVALID_ARGUMENT, "the method takes no stream"
        elif isinstance(exchange, Request):
            if frame.envelope.end:
                return Status.INVALID_ARGUMENT, "a half-close by the callee, whose ANSWER is the end"
            if not exchange.takes_items:
                return Status.UNIMPLEMENTED, "the answer is a stream, which the caller does not take"
        return None

    def item_taken(self, exchange: Exchange, size: int) -> None:
        """The application has an item: its cost is returned, unless the call is over."""
        if exchange.opened and not self.ended:
            exchange.owed += size
            self._owed[id(exchange)] = exchange
            self.pump_soon()

    def _on_credit(self, frame: Frame) -> None:
        call_id, credit = frame.envelope.id, frame.envelope.credit
        if not call_id or not credit:
            return
        exchange: Optional[Exchange] = self.calls.get(call_id) or self.requests.get(call_id)
        if exchange and not exchange.credit(credit):
            raise PeerFault(Status.INVALID_ARGUMENT, f"CREDIT for call {call_id} goes beyond its window")

    _handlers: Dict[int, Callable[[Any, Frame], None]] = {
        pb.HELLO: Link._on_hello, pb.CALL: _on_call, pb.ITEM: _on_item, pb.ANSWER: _on_answer, pb.CANCEL: _on_cancel,
        pb.CREDIT: _on_credit, pb.CLOSE: Link._on_close,
    }
