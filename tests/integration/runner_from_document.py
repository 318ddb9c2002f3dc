#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A runner written from docs/protocol.md and proto/*.proto alone, without libbaton.

It is the proof that the document is enough: sockets, and the protobuf messages of baton_pb2 (which protoc makes of
proto/baton.proto, to be found on PYTHONPATH), nothing else of baton. One thread, one poll() loop, no streams.

Its methods:

    doc.Test/Echo        answers the payload, its type and the metadata as they are; metadata `timeout_us` is added
    doc.Test/Descriptor  answers with a pipe that holds what the descriptor of the call holds, in capitals
    doc.Test/Wait        never answers: for CANCEL and the deadline. A log record says `waiting`
    doc.Test/Ping        calls baton.Runner/Ping of the supervisor with the nonce 4711 and answers what came back
    doc.Test/Log         writes the payload as a log record, answers when it was acknowledged
    doc.Test/Fail        answers NOT_FOUND with a detail
"""

import array
import errno
import os
import select
import socket
import struct
import sys
import time

import baton_pb2 as pb

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 2, 3, 4, 5
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 8, 9, 10, 12, 13, 14

RUNNING, READY, STOPPED = 2, 3, 4  # states of the service
NAMELESS = -1  # an event with id 0: carried out, not remembered

MAX_FRAME = 1 << 20
MAX_CALLS = 16
FD_CREDIT = 4
WINDOW = 65536
MAX_FRAME_BEFORE_HELLO = 65536
MAX_ENVELOPE = 2 << 20
BACKLOG = 1 << 20
HELLO_SECONDS = 10
FRAME_SECONDS = 30
RENEWAL_SECONDS = 60
MAX_LOG_CALLS = 4


class PeerEnds(Exception):
    """The connection is over. With `close`, a CLOSE says so first."""

    def __init__(self, status, message, close=True):
        super().__init__(message)
        self.status = status
        self.message = message
        self.close = close


class Call:
    """A call of the supervisor's that is open."""

    def __init__(self, envelope, payload, fds):
        self.id = envelope.id
        self.envelope = envelope
        self.payload = payload
        self.fds = fds
        self.deadline = time.monotonic() + envelope.timeout_us / 1e6 if envelope.timeout_us else None
        self.application = not envelope.method.startswith("baton.")


class Frame:
    """A frame that is to be sent: an ANSWER, or a CALL, which gets its id when it is written."""

    def __init__(self, envelope, payload=b"", fds=(), done=None):
        self.envelope = envelope
        self.payload = payload
        self.fds = list(fds)
        self.sent = 0  # descriptors that the kernel has taken
        self.begun = False
        self.done = done  # CALL: called with the ANSWER's Envelope, payload and descriptors


def connect(path):
    lane = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    if len(os.fsencode(path)) <= 107:
        lane.connect(path)
        return lane
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    lane.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    os.close(directory)
    return lane


def has_nul(message):
    for field, value in message.ListFields():
        values = value if field.label == field.LABEL_REPEATED else [value]
        if field.type == field.TYPE_STRING and any("\0" in v for v in values):
            return True
        if field.type == field.TYPE_MESSAGE and any(has_nul(v) for v in values):
            return True
    return False


def close_all(fds):
    for fd in fds:
        if fd is not None:
            os.close(fd)


class Runner:
    def __init__(self, lane):
        self.lane = lane
        self.lane_ended = False
        self.epoch = 0
        self.next_channel = 0
        self.instance = 0
        self.service_state = RUNNING
        self.last_event = 0
        self.event_under_way = None
        self.event_call = None
        self.exiting = False
        self.next_log_seq = 1
        self.log_batches = []  # [first_seq, records, done, sent]: not acknowledged, in order
        self.channels = [None, None, None]
        self.calls = {}
        self.own_calls = {}
        self.waiting = []
        self.unclaimed = {}
        self.renewal_due = None
        self.start_epoch()

    def start_epoch(self):
        """All that begins anew with a set of channels."""
        self.input = bytearray()
        self.output = bytearray()
        self.hello_read = False
        self.hello_due = None
        self.frame_due = None
        self.peer_max_frame = MAX_FRAME_BEFORE_HELLO
        self.peer_max_calls = 0
        self.peer_fd_credit = 0
        self.credit = 0
        self.granted = FD_CREDIT  # what the supervisor may still send
        self.to_return = 0
        self.last_call_id = 0
        self.next_call_id = 3
        self.next_n = 3

    # --- the lane ---

    def read_lane(self):
        """Reads the lane until it is empty."""
        while not self.lane_ended:
            try:
                data, control, flags, _ = self.lane.recvmsg(8, socket.CMSG_SPACE(4 * 4),
                                                            socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except (ConnectionResetError, BrokenPipeError):
                continue
            fds = array.array("i")
            other = False
            for level, kind, value in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(value[:len(value) - len(value) % 4])
                else:
                    other = True
            if not data and not fds:
                self.lane_ended = True
                return
            lost = bool(flags & socket.MSG_CTRUNC)
            if len(data) < 8 or other or len(fds) > 1 or len(fds) == (1 if lost else 0):
                close_all(fds)
                raise PeerEnds(INVALID_ARGUMENT, "not a lane message")
            self.take_lane_message(struct.unpack("<Q", data)[0], fds[0] if fds else None)

    def take_lane_message(self, lane_id, fd):
        epoch, low = lane_id >> 32, lane_id & 0xffffffff
        if epoch < self.epoch:
            close_all([fd])
        elif epoch > self.epoch:
            if low != 0:
                close_all([fd])
                raise PeerEnds(INVALID_ARGUMENT, "an id of a higher epoch")
            self.take_channel(0, fd, epoch)
        elif low < 3:
            if low != self.next_channel:
                close_all([fd])
                raise PeerEnds(INVALID_ARGUMENT, "a channel that is not due")
            self.take_channel(low, fd, epoch)
        elif low & 1 or low >> 1 < 3 or lane_id in self.unclaimed:
            close_all([fd])
            raise PeerEnds(INVALID_ARGUMENT, "an id that cannot be")
        else:
            if self.granted == 0:
                close_all([fd])
                raise PeerEnds(RESOURCE_EXHAUSTED, "a descriptor without credit")
            self.granted -= 1
            self.unclaimed[lane_id] = fd

    def take_channel(self, number, fd, epoch):
        if fd is None:
            raise PeerEnds(RESOURCE_EXHAUSTED, "a channel was lost")
        channel = socket.socket(fileno=fd)
        try:
            channel.getpeername()
            if channel.family != socket.AF_UNIX or channel.type & socket.SOCK_STREAM == 0:
                raise OSError
        except OSError:
            channel.close()
            raise PeerEnds(INVALID_ARGUMENT, "a channel that is no connected unix stream socket") from None
        channel.setblocking(False)
        if epoch > self.epoch:
            self.end_epoch()
            self.epoch = epoch
        self.channels[number] = channel
        self.next_channel = number + 1 if number < 2 else None
        if number == 0:
            self.start_epoch()
            self.renewal_due = None
            self.hello_due = time.monotonic() + HELLO_SECONDS
            hello = pb.Envelope(kind=pb.HELLO, hello=pb.Hello(
                protocol_min=1, protocol_max=1, max_frame=MAX_FRAME, max_calls=MAX_CALLS, fd_credit=FD_CREDIT,
                stream_window=WINDOW, software="runner-from-document 1", instance=self.instance,
                service_state=self.service_state, last_event=self.last_event))
            self.write_frame(hello)

    def end_epoch(self):
        """A renewal: what the old channels still hold counts, then they are closed."""
        if self.channels[0]:
            self.read_channel(renewal=True)
        for channel in self.channels:
            if channel:
                channel.close()
        self.channels = [None, None, None]
        close_all(self.unclaimed.values())
        self.unclaimed = {}
        for call in self.calls.values():
            close_all(call.fds)
        self.calls = {}
        self.event_call = None
        own, self.own_calls = self.own_calls, {}
        waiting, self.waiting = self.waiting, []
        for frame in waiting:
            if frame.envelope.method == "baton.Log/Write":
                continue  # made again from log_batches
            if frame.envelope.kind == pb.CALL and not frame.begun:
                self.waiting.append(frame)  # not sent yet: it may wait for the new channels
            else:
                close_all(frame.fds[frame.sent:])
                if frame.done:
                    frame.done(pb.Envelope(status=UNAVAILABLE, message="renewed"), b"", [])
        for batch in self.log_batches:
            batch[3] = False
        for done in own.values():
            done(pb.Envelope(status=UNAVAILABLE, message="renewed"), b"", [])

    # --- frames out ---

    def write_frame(self, envelope, payload=b""):
        if self.hello_read and self.to_return:
            envelope.fd_credit = self.to_return
            self.granted += self.to_return
            self.to_return = 0
        data = envelope.SerializeToString()
        self.output += struct.pack(">II", 4 + len(data) + len(payload), len(data)) + data + payload

    def send_waiting(self):
        """Sends what can be sent of the calls and answers that wait, those with descriptors in order."""
        if not self.hello_read:
            return
        rest = []
        lane_blocked = False
        for frame in self.waiting:
            is_call = frame.envelope.kind == pb.CALL
            if is_call and len(self.own_calls) >= self.peer_max_calls:
                rest.append(frame)
            elif frame.fds and (lane_blocked or not self.send_descriptors(frame)):
                lane_blocked = True
                rest.append(frame)
            else:
                if is_call:
                    frame.envelope.id = self.next_call_id
                    self.next_call_id += 2
                    self.own_calls[frame.envelope.id] = frame.done
                self.write_frame(frame.envelope, frame.payload)
        self.waiting = rest

    def send_descriptors(self, frame):
        """True when the kernel has taken all of them, so that the frame may be written."""
        if not frame.begun:
            if self.credit < len(frame.fds):
                return False
            self.credit -= len(frame.fds)
            frame.begun = True
        while frame.sent < len(frame.fds):
            lane_id = self.epoch << 32 | self.next_n << 1 | 1
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [frame.fds[frame.sent]]))]
            try:
                self.lane.sendmsg([struct.pack("<Q", lane_id)], control, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    return False
                if error.errno in (errno.EPIPE, errno.ECONNRESET):
                    return False  # the lane's end is found by reading it
                raise
            self.next_n += 1
            frame.envelope.fds.append(lane_id)
            os.close(frame.fds[frame.sent])
            frame.sent += 1
        return True

    def call(self, method, message, done):
        envelope = pb.Envelope(kind=pb.CALL, method=method, end=True, type=message.DESCRIPTOR.full_name)
        self.waiting.append(Frame(envelope, message.SerializeToString(), done=done))

    def answer(self, call, payload=b"", type="", status=OK, message="", metadata=(), details=(), fds=()):
        if self.calls.pop(call.id, None) is None:
            close_all(fds)  # it was cancelled, or its deadline has passed
            return
        close_all(call.fds)
        call.fds = []
        envelope = pb.Envelope(kind=pb.ANSWER, id=call.id, status=status, message=message, type=type,
                               metadata=metadata, details=details)
        size = 4 + envelope.ByteSize() + 16 + 11 * len(fds) + len(payload)
        if size > self.peer_max_frame or len(fds) > self.peer_fd_credit:
            close_all(fds)
            fds, payload = (), b""
            envelope = pb.Envelope(kind=pb.ANSWER, id=call.id, status=RESOURCE_EXHAUSTED, message="result too large")
        self.waiting.append(Frame(envelope, payload, fds))

    # --- frames in ---

    def read_channel(self, renewal=False):
        channel = self.channels[0]
        while channel is self.channels[0] and channel is not None:
            try:
                data = channel.recv(65536)
            except BlockingIOError:
                return
            except (ConnectionResetError, BrokenPipeError):
                continue
            if not data:
                if not renewal:
                    channel.close()
                    self.channels[0] = None
                    self.renewal_due = time.monotonic() + RENEWAL_SECONDS
                    self.frame_due = self.hello_due = None
                return
            self.input += data
            while len(self.input) >= 4:
                length = struct.unpack_from(">I", self.input)[0]
                if length > (MAX_FRAME if self.hello_read else MAX_FRAME_BEFORE_HELLO):
                    raise PeerEnds(RESOURCE_EXHAUSTED, "a frame above the limit")
                if length < 4:
                    raise PeerEnds(INVALID_ARGUMENT, "a frame without an Envelope")
                if len(self.input) < 4 + length:
                    break
                body = bytes(self.input[4:4 + length])
                del self.input[:4 + length]
                self.frame_due = None
                self.take_frame(body, renewal)
            if not self.input:
                self.frame_due = None
            elif self.frame_due is None:
                self.frame_due = time.monotonic() + FRAME_SECONDS

    def take_frame(self, body, renewal):
        size = struct.unpack_from(">I", body)[0]
        if size > len(body) - 4:
            raise PeerEnds(INVALID_ARGUMENT, "an Envelope longer than its frame")
        if size > MAX_ENVELOPE:
            raise PeerEnds(RESOURCE_EXHAUSTED, "an Envelope above the limit")
        envelope = pb.Envelope()
        try:
            envelope.ParseFromString(body[4:4 + size])
        except Exception:  # DecodeError; older libraries raise others for text
            raise PeerEnds(INVALID_ARGUMENT, "an Envelope that cannot be parsed") from None
        if has_nul(envelope):
            raise PeerEnds(INVALID_ARGUMENT, "text with NUL")
        if envelope.blocks:
            raise PeerEnds(INVALID_ARGUMENT, "a block, where shared memory was not agreed")
        payload = body[4 + size:]
        kind = envelope.kind
        if kind not in (pb.HELLO, pb.CALL, pb.ITEM, pb.ANSWER, pb.CANCEL, pb.CREDIT, pb.CLOSE):
            raise PeerEnds(INVALID_ARGUMENT, "a kind that is not known")
        if renewal and kind not in (pb.ANSWER, pb.ITEM):
            return
        if kind == pb.CLOSE:
            if envelope.id != 0:
                raise PeerEnds(INVALID_ARGUMENT, "CLOSE with an id")
            raise PeerEnds(envelope.status, envelope.message, close=False)
        if kind == pb.HELLO:
            self.take_hello(envelope)
            return
        if not self.hello_read:
            raise PeerEnds(FAILED_PRECONDITION, "another frame before HELLO")
        self.credit += envelope.fd_credit
        if self.credit > self.peer_fd_credit:
            raise PeerEnds(INVALID_ARGUMENT, "more credit than was spent")
        fds, fault = self.claim(envelope)
        if kind == pb.CALL:
            self.take_call(envelope, payload, fds, fault)
        elif kind == pb.ANSWER:
            done = self.own_calls.pop(envelope.id, None)
            if done is None:
                close_all(fds)
            elif fault:
                close_all(fds)
                done(pb.Envelope(status=fault, message="a descriptor of the answer is not there"), b"", [])
            else:
                done(envelope, payload, fds)
        elif kind == pb.ITEM:
            self.take_item(envelope, payload, fds)
        else:
            close_all(fds)
            call = self.calls.get(envelope.id)
            if kind == pb.CANCEL and call:
                self.answer(call, status=CANCELLED, message="cancelled")
            elif kind == pb.CREDIT and envelope.credit and (call or envelope.id in self.own_calls):
                raise PeerEnds(INVALID_ARGUMENT, "CREDIT for a stream on which nothing was sent")

    def take_hello(self, envelope):
        if self.hello_read or not envelope.HasField("hello"):
            raise PeerEnds(INVALID_ARGUMENT, "a second HELLO, or one without hello")
        hello = envelope.hello
        if hello.protocol_min > hello.protocol_max or 0 < hello.max_frame < 65536:
            raise PeerEnds(INVALID_ARGUMENT, "limits that cannot be")
        if hello.protocol_max < 1 or hello.protocol_min > 1:
            raise PeerEnds(FAILED_PRECONDITION,
                           f"version 1 to 1 is spoken here, not {hello.protocol_min} to {hello.protocol_max}")
        self.hello_read = True
        self.hello_due = None
        self.peer_max_frame = hello.max_frame or 8 << 20
        self.peer_max_calls = hello.max_calls or 1024
        self.peer_fd_credit = self.credit = hello.fd_credit or 64
        self.instance = hello.instance
        self.send_log()

    def claim(self, envelope):
        """The descriptors that a frame lists, and a status unless all are there."""
        if not envelope.fds:
            return [], OK
        self.read_lane()
        fds, fault = [], OK
        for lane_id in envelope.fds:
            if lane_id not in self.unclaimed:
                fault = fault or INVALID_ARGUMENT
                continue
            self.to_return += 1
            fd = self.unclaimed.pop(lane_id)
            if fd is None:
                fault = fault or RESOURCE_EXHAUSTED
            else:
                fds.append(fd)
        return fds, fault

    def take_call(self, envelope, payload, fds, fault):
        if envelope.id < 2 or envelope.id & 1 or envelope.id <= self.last_call_id:
            close_all(fds)
            raise PeerEnds(INVALID_ARGUMENT, "an id that no CALL can have")
        self.last_call_id = envelope.id
        if len(self.calls) >= MAX_CALLS:
            close_all(fds)
            raise PeerEnds(RESOURCE_EXHAUSTED, "too many open calls")
        call = Call(envelope, payload, fds)
        self.calls[call.id] = call
        method = envelope.method
        if fault:
            self.answer(call, status=fault, message="a descriptor that is listed is not there")
        elif not 1 <= len(method.encode()) <= 255:
            self.answer(call, status=INVALID_ARGUMENT, message="a method's name has 1 to 255 bytes")
        elif call.application and self.service_state != RUNNING:
            self.answer(call, status=UNAVAILABLE, message="told to stop")
        elif method not in METHODS:
            self.answer(call, status=UNIMPLEMENTED, message=f"no method {method}")
        else:
            METHODS[method](self, call)

    def take_item(self, envelope, payload, fds):
        close_all(fds)
        if len(payload) + 64 + 4096 * len(envelope.fds) > WINDOW and envelope.id in {**self.calls, **self.own_calls}:
            raise PeerEnds(RESOURCE_EXHAUSTED, "an ITEM beyond the window")
        call = self.calls.get(envelope.id)
        if call:
            only_end = envelope.end and not payload and not envelope.fds
            if call.envelope.end or not only_end:
                self.answer(call, status=INVALID_ARGUMENT, message="the method takes no stream")
        done = self.own_calls.get(envelope.id)
        if done:
            self.own_calls[envelope.id] = lambda *_: None  # it is counted until its ANSWER
            self.write_frame(pb.Envelope(kind=pb.CANCEL, id=envelope.id))
            done(pb.Envelope(status=UNIMPLEMENTED, message="no stream is taken here"), b"", [])

    # --- methods ---

    def ping(self, call):
        message = self.parse(call, pb.Ping)
        if message:
            self.answer(call, message.SerializeToString(), "baton.Ping")

    def parse(self, call, message_type):
        if call.envelope.type not in ("", message_type.DESCRIPTOR.full_name):
            self.answer(call, status=INVALID_ARGUMENT, message="another type than the method's")
            return None
        message = message_type()
        try:
            message.ParseFromString(call.payload)
        except Exception:
            self.answer(call, status=INVALID_ARGUMENT, message="a payload that cannot be parsed")
            return None
        return message

    def event(self, call, state, next_state):
        message = self.parse(call, pb.LifecycleEvent)
        if message is None:
            return
        if message.event != 0 and message.event == self.event_under_way:
            if self.event_call:
                self.answer(self.event_call, status=ABORTED, message="asked for again")
            self.event_call = call
        elif message.event != 0 and message.event == self.last_event:
            self.answer_state(call)
        elif self.event_under_way or self.service_state != state:
            self.answer(call, status=FAILED_PRECONDITION, message="not in this state")
        else:
            self.event_under_way = message.event or NAMELESS
            self.event_call = call
            self.service_state = next_state
        self.finish_event()

    def answer_state(self, call):
        state = pb.LifecycleState(service_state=self.service_state, event=self.last_event)
        self.answer(call, state.SerializeToString(), "baton.LifecycleState")

    def finish_event(self):
        """An event is done when no call of the application's is open any more."""
        if self.event_under_way and not any(c.application for c in self.calls.values()):
            if self.event_under_way != NAMELESS:
                self.last_event = self.event_under_way
            self.event_under_way = None
            call, self.event_call = self.event_call, None
            if call:
                self.answer_state(call)
            if self.service_state == STOPPED:
                self.exiting = True

    def stop(self, call):
        self.event(call, RUNNING, READY)

    def exit(self, call):
        self.event(call, READY, STOPPED)

    def echo(self, call):
        metadata = list(call.envelope.metadata)
        metadata.append(pb.Pair(key="timeout_us", value=b"%d" % call.envelope.timeout_us))
        self.answer(call, call.payload, call.envelope.type, metadata=metadata)

    def descriptor(self, call):
        if len(call.fds) != 1:
            self.answer(call, status=INVALID_ARGUMENT, message="one descriptor is needed")
            return
        data = os.read(call.fds[0], 4096)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.write(writer, data.upper())
        os.close(writer)
        self.answer(call, fds=[reader])

    def wait(self, call):
        del call
        self.log("waiting")

    def ping_supervisor(self, call):
        def done(envelope, payload, fds):
            close_all(fds)
            self.answer(call, payload, envelope.type, envelope.status, envelope.message)
        self.call("baton.Runner/Ping", pb.Ping(nonce=4711), done)

    def log_and_answer(self, call):
        self.log(call.payload.decode(errors="replace"), lambda: self.answer(call))

    def fail(self, call):
        detail = pb.Detail(type="baton.Ping", value=pb.Ping(nonce=5).SerializeToString())
        self.answer(call, status=NOT_FOUND, message="nothing of that name", details=[detail])

    # --- log records ---

    def log(self, text, done=None):
        record = pb.LogRecord(time_us=time.time_ns() // 1000, level=6, text=text, target="document")
        self.log_batches.append([self.next_log_seq, [record], done, False])
        self.next_log_seq += 1
        self.send_log()

    def send_log(self):
        for batch in self.log_batches[:MAX_LOG_CALLS]:
            if not batch[3] and self.hello_read and self.channels[0]:
                batch[3] = True
                self.send_batch(batch)

    def send_batch(self, batch):
        epoch = self.epoch

        def acknowledged(envelope, payload, fds):
            del payload
            close_all(fds)
            if envelope.kind != pb.ANSWER or batch not in self.log_batches:
                return  # ended without an ANSWER: it is sent again after a renewal
            self.log_batches.remove(batch)
            if batch[2]:
                batch[2]()
            if epoch == self.epoch:
                self.send_log()
        self.call("baton.Log/Write", pb.LogWrite(first_seq=batch[0], records=batch[1]), acknowledged)

    # --- the loop ---

    def deadlines(self):
        now = time.monotonic()
        for call in list(self.calls.values()):
            if call.deadline is not None and call.deadline <= now:
                self.answer(call, status=DEADLINE_EXCEEDED, message="deadline")
        for due, what, close in ((self.hello_due, "no HELLO", True), (self.frame_due, "a frame not finished", True),
                                 (self.renewal_due, "no renewal", False)):
            if due is not None and due <= now:
                raise PeerEnds(DEADLINE_EXCEEDED, what, close)
        all_due = [self.hello_due, self.frame_due, self.renewal_due] + [c.deadline for c in self.calls.values()]
        all_due = [due for due in all_due if due is not None]
        return None if not all_due else max(0, min(all_due) - now) * 1000 + 1

    def step(self):
        timeout = self.deadlines()
        self.finish_event()
        self.send_waiting()
        if self.to_return and self.hello_read and self.channels[0]:
            self.write_frame(pb.Envelope(kind=pb.CREDIT))  # no other frame was due, so it goes alone
        self.flush()
        if self.exiting and not self.output and not self.waiting and not self.own_calls:
            raise PeerEnds(OK, "stopped")
        poll = select.poll()
        begun = any(frame.begun for frame in self.waiting)
        poll.register(self.lane, select.POLLIN)
        if begun:
            timeout = 10 if timeout is None else min(timeout, 10)  # ETOOMANYREFS has no event; EAGAIN may use it too
        if self.channels[0]:
            events = select.POLLOUT if self.output else 0
            poll.register(self.channels[0], events | (select.POLLIN if len(self.output) < BACKLOG else 0))
        poll.poll(timeout)
        self.read_lane()
        self.read_channel()
        if self.lane_ended:
            raise PeerEnds(UNAVAILABLE, "the lane's end", close=False)

    def flush(self):
        while self.output and self.channels[0]:
            try:
                del self.output[:self.channels[0].send(self.output, socket.MSG_NOSIGNAL)]
            except BlockingIOError:
                return
            except (ConnectionResetError, BrokenPipeError):
                self.output.clear()  # its end is found by reading it

    def run(self):
        """Returns the status with which the connection ended."""
        try:
            while True:
                self.step()
        except PeerEnds as end:
            if end.close and self.channels[0]:
                self.write_frame(pb.Envelope(kind=pb.CLOSE, status=end.status, message=end.message))
                self.flush()
            if end.status != OK:
                print(f"runner-from-document: {end.message}", file=sys.stderr)
            return end.status


METHODS = {
    "baton.Runner/Ping": Runner.ping,
    "baton.Runner/Stop": Runner.stop,
    "baton.Runner/Exit": Runner.exit,
    "doc.Test/Echo": Runner.echo,
    "doc.Test/Descriptor": Runner.descriptor,
    "doc.Test/Wait": Runner.wait,
    "doc.Test/Ping": Runner.ping_supervisor,
    "doc.Test/Log": Runner.log_and_answer,
    "doc.Test/Fail": Runner.fail,
}


def main():
    path = os.environ.pop("BATON_BOOTSTRAP", None)
    if path is None:
        print("runner-from-document: BATON_BOOTSTRAP is not set: a supervisor starts this program", file=sys.stderr)
        return 2
    return 0 if Runner(connect(path)).run() == OK else 1


if __name__ == "__main__":
    sys.exit(main())
