#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A runner written from docs/protocol.md alone (runner_from_document.py) under the real supervisor, and renewal.

Under the supervisor: the handshake, calls both ways with metadata and deadline, a descriptor each way, log records, an
unknown method, cancel, Stop and Exit in order, the same through `baton call --exec`. Renewal, which no supervisor does
yet, is played by this test: Raw is the supervisor's side, made of bytes. (Recorded bytes of a runner: test-recorded.c.)
TAP on stdout.
"""

import array
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback

import baton_wire as wire
from baton_wire import baton, control

HERE = os.path.dirname(os.path.abspath(__file__))
RUNNER = os.path.join(HERE, "runner_from_document.py")
BATON = os.environ.get("BATON_PROGRAM", os.path.join(wire.BUILD, "baton"))
EXITED = control.Exit.EXITED
tests = []


def test(function):
    tests.append(function)
    return function


def generate(folder):
    """baton_pb2.py, where the runner finds it by its environment."""
    proto = os.path.join(wire.SOURCE, "proto")
    subprocess.run(["protoc", "--proto_path=" + proto, "--python_out=" + folder, os.path.join(proto, "baton.proto")],
                   check=True)


class Supervised:
    """The runner `document' under a keeper and a supervisor of its own."""

    def __init__(self, folder):
        self.tree = wire.Tree({"PYTHONPATH": folder})
        self.started = self.tree.start(sys.executable, "-B", RUNNER, name="document")

    def call(self, method, *arguments, **options):
        return self.tree.call("document", method, *arguments, **options)

    def records(self):
        lines = self.tree.logs("document").lines
        return [line.text.decode() for line in lines if line.source == control.LogLine.RECORD]

    def wait_record(self, text):
        seq = 0
        while True:
            answer = self.tree.logs("document", seq, wait_for_line=True)
            if any(line.text.decode() == text for line in answer.lines):
                return
            assert not answer.ended, answer
            seq = answer.next_seq

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            print("# " + self.tree.log().replace("\n", "\n# "))
        assert self.tree.end() == 0 or kind, "the keeper's exit status"


@test
def handshake_and_calls_to_the_runner(folder):
    with Supervised(folder) as it:
        assert it.started.software == "runner-from-document 1", it.started
        answer = it.call("doc.Test/Echo", b"hello", "test.Type", metadata=[("b", b"\0\xff"), ("a", b"1"), ("b", b"2")],
                         timeout_us=15000000)
        assert (answer.status, answer.payload, answer.type) == (wire.OK, b"hello", "test.Type"), vars(answer)
        *pairs, (key, left) = [(pair.key, pair.value) for pair in answer.metadata]
        assert pairs == [("b", b"\0\xff"), ("a", b"1"), ("b", b"2")], pairs
        assert key == "timeout_us" and 1 < int(left) <= 15000000, (key, left)
        answer = it.call("doc.Test/Echo", bytes(900000))
        assert answer.payload == bytes(900000) and answer.metadata[0].value == b"0", "without a deadline"
        answer = it.call("doc.Test/Fail")
        assert (answer.status, answer.message) == (wire.NOT_FOUND, "nothing of that name")
        assert answer.detail(baton.Ping).nonce == 5
        answer = it.call("doc.Test/Nothing")
        assert answer.status == wire.UNIMPLEMENTED, vars(answer)
        assert it.call("x" * 256).status == wire.INVALID_ARGUMENT
        calls = [it.call("doc.Test/Echo", str(n).encode(), wait=False) for n in range(100)]
        for n, call in enumerate(calls):
            assert it.tree.peer.wait(call).payload == str(n).encode()


@test
def calls_of_the_runner(folder):
    with Supervised(folder) as it:
        answer = it.call("doc.Test/Ping")
        assert answer.status == wire.OK and baton.Ping.FromString(answer.payload).nonce == 4711, vars(answer)
        for n in range(20):
            assert it.call("doc.Test/Log", f"record {n}".encode()).status == wire.OK
        assert it.records() == [f"record {n}" for n in range(20)], "each once, in order, and there when acknowledged"


@test
def a_descriptor_each_way(folder):
    with Supervised(folder) as it:
        for n in range(20):  # more than anybody's credit
            reader, writer = os.pipe()
            os.write(writer, f"text {n}".encode())
            answer = it.call("doc.Test/Descriptor", fds=[reader])
            os.close(reader)
            os.close(writer)
            assert answer.status == wire.OK and len(answer.fds) == 1, vars(answer)
            with os.fdopen(answer.fds[0], "rb") as back:
                assert back.read() == f"TEXT {n}".encode(), "nobody keeps the writing end"


@test
def cancel_and_deadline(folder):
    with Supervised(folder) as it:
        call = it.call("doc.Test/Wait", wait=False)
        it.wait_record("waiting")
        it.tree.peer.cancel(call)
        assert it.tree.peer.wait(call).status == wire.CANCELLED
        assert it.call("doc.Test/Wait", timeout_us=50000).status == wire.DEADLINE_EXCEEDED
        assert it.call("doc.Test/Echo", b"on").payload == b"on"


@test
def stop_and_exit(folder):
    with Supervised(folder) as it:
        assert it.call("doc.Test/Log", b"the last one").status == wire.OK
        waits = it.call("doc.Test/Wait", timeout_us=int(wire.TIMEOUT / 20 * 500000), wait=False)
        it.wait_record("waiting")
        stop = it.tree.stop("document", wait=False)
        assert it.tree.peer.wait(waits).status == wire.DEADLINE_EXCEEDED, "what is open is finished first"
        stopped = control.StopResponse.FromString(it.tree.peer.wait(stop).payload)
        assert (stopped.exit.how, stopped.exit.status, stopped.killed) == (EXITED, 0, False), stopped
        assert it.records() == ["the last one", "waiting"]


@test
def through_the_command(folder):
    environment = dict(os.environ, PYTHONPATH=folder, BATON_LIBEXEC=wire.BUILD)
    result = subprocess.run([BATON, "call", "--json", "--exec", sys.executable, "-B", RUNNER, "--", "doc.Test/Echo",
                             "string:hello"], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                            timeout=wire.TIMEOUT, check=False)
    assert result.returncode == 0 and b'"hello"' in result.stdout, result
    result = subprocess.run([BATON, "call", "--exec", sys.executable, "-B", RUNNER, "--", "doc.Test/Nothing"],
                            env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=wire.TIMEOUT,
                            check=False)
    assert result.returncode == 16 + wire.UNIMPLEMENTED and b"no method doc.Test/Nothing" in result.stderr, result


# ------------------------------------------------------------------------------------------------------------- renewal

def number(value):
    """A varint."""
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)


def field(tag, value):
    if isinstance(value, int):
        return number(tag << 3) + number(value)
    return number(tag << 3 | 2) + number(len(value)) + value


def fields(data):
    """What an Envelope holds, by field number; the last of each."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                return value

    while at < len(data):
        key = varint()
        value = varint()
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        found[key >> 3] = value
    return found


HELLO, CALL, ANSWER, CREDIT, CLOSE = 1, 2, 4, 6, 7
KIND, ID, METHOD, STATUS, FDS, FD_CREDIT, HELLO_FIELD, END = 1, 2, 3, 5, 9, 10, 11, 13
INSTANCE = 77
OUR_HELLO = field(KIND, HELLO) + field(HELLO_FIELD, field(1, 1) + field(2, 1) + field(9, INSTANCE))


class Raw:
    """The supervisor's side of one runner, as bytes: each frame in and out is looked at."""

    def __init__(self, folder):
        path = os.path.join(folder, "bootstrap")
        self.process = None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(path)
            listening.listen()
            listening.settimeout(wire.TIMEOUT)
            environment = dict(os.environ, PYTHONPATH=folder, BATON_BOOTSTRAP=path)
            self.process = subprocess.Popen([sys.executable, "-B", RUNNER], start_new_session=True,
                                            stdin=subprocess.DEVNULL, env=environment)
            self.lane = listening.accept()[0]
        os.unlink(path)
        self.lane.settimeout(wire.TIMEOUT)
        self.channels, self.epoch = [], -1

    def send_lane(self, lane_id, fd):
        socket.send_fds(self.lane, [struct.pack("<Q", lane_id)], [fd])

    def renew(self, epoch, n=3):
        """The channels of that epoch; the runner's Hello on the first."""
        self.channels, self.epoch = [], epoch
        for index in range(n):
            ours, theirs = socket.socketpair()
            ours.settimeout(wire.TIMEOUT)
            self.send_lane(epoch << 32 | index, theirs.fileno())
            theirs.close()
            self.channels.append(ours)
        self.stream = self.channels[0].makefile("rb")
        self.send(OUR_HELLO)
        hello = self.receive()
        assert hello[KIND] == HELLO and ID not in hello, hello
        return fields(hello[HELLO_FIELD])

    def send(self, envelope, payload=b"", channel=None):
        body = struct.pack(">I", len(envelope)) + envelope + payload
        (channel or self.channels[0]).sendall(struct.pack(">I", len(body)) + body)

    def call(self, call_id, method, payload=b"", extra=b""):
        self.send(field(KIND, CALL) + field(ID, call_id) + field(METHOD, method) + field(END, 1) + extra, payload)

    def receive(self):
        """The fields of the next Envelope; its payload as `payload'."""
        length = struct.unpack(">I", self.stream.read(4))[0]
        body = self.stream.read(length)
        size = struct.unpack_from(">I", body)[0]
        return dict(fields(body[4:4 + size]), payload=body[4 + size:])

    def receive_lane(self):
        data, control_data, _, _ = self.lane.recvmsg(8, socket.CMSG_SPACE(8))
        fds = array.array("i", control_data[0][2][:4])
        return struct.unpack("<Q", data)[0], fds[0]

    def drop_channels(self):
        self.stream.close()
        for channel in self.channels:
            channel.close()

    def end(self, status):
        assert self.process.wait(wire.TIMEOUT) == status, self.process.returncode
        self.drop_channels()
        self.lane.close()

    def stop_runner(self, call_id, event):
        self.call(call_id, b"baton.Runner/Stop", field(1, event))
        answer = self.receive()
        assert (answer[KIND], answer[ID], answer.get(STATUS, 0)) == (ANSWER, call_id, 0), answer
        assert fields(answer["payload"]) == {1: 3, 2: event}, answer
        self.call(call_id + 2, b"baton.Runner/Exit", field(1, event + 1))
        answer = self.receive()
        assert fields(answer["payload"]) == {1: 4, 2: event + 1}, answer
        close = self.receive()
        assert close[KIND] == CLOSE and STATUS not in close and ID not in close, close
        assert self.stream.read() == b"", "nothing follows CLOSE"
        self.end(0)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@test
def renewal(folder):
    raw = Raw(folder)
    try:
        hello = raw.renew(0)
        assert hello[1] == hello[2] == 1 and hello.get(9, 0) == 0 and hello[10] == 2 and hello.get(11, 0) == 0, hello
        raw.call(2, b"doc.Test/Echo", b"first")
        assert raw.receive()["payload"] == b"first"

        # Two log records and a descriptor that nobody lists are under way when the supervisor dies.
        raw.call(4, b"doc.Test/Log", b"one")
        log = raw.receive()
        assert (log[KIND], log[ID], log[METHOD]) == (CALL, 3, b"baton.Log/Write"), log
        raw.call(6, b"doc.Test/Log", b"two")
        assert raw.receive()[ID] == 5
        reader, writer = os.pipe()
        raw.send_lane(6, writer)
        os.close(writer)
        # The second is acknowledged by bytes that the runner finds in the old channel at the renewal.
        raw.send(field(KIND, ANSWER) + field(ID, 5))
        raw.drop_channels()

        hello = raw.renew(3)
        assert (hello[9], hello[10]) == (INSTANCE, 2), "the new Hello says who it is"
        assert os.read(reader, 1) == b"", "what no frame has listed is closed"
        os.close(reader)
        again = raw.receive()
        assert (again[KIND], again[ID], again[METHOD]) == (CALL, 3, b"baton.Log/Write"), "ids begin anew"
        assert again["payload"] == log["payload"], "the record that was not acknowledged, with its number"
        raw.send(field(KIND, ANSWER) + field(ID, 3))

        # Ids of descriptors, and credit, begin anew too.
        reader, writer = os.pipe()
        os.write(writer, b"text")
        os.close(writer)
        raw.send_lane(3 << 32 | 6, reader)
        raw.send_lane(2 << 32 | 8, reader)  # of an epoch that is over: closed
        os.close(reader)
        raw.call(2, b"doc.Test/Descriptor", extra=field(FDS, 3 << 32 | 6))
        answer = raw.receive()
        lane_id, fd = raw.receive_lane()
        assert answer[ID] == 2 and lane_id == 3 << 32 | 7 and answer[FD_CREDIT] == 1, (answer, lane_id)
        assert number(lane_id) in (answer[FDS], number(answer[FDS]) if isinstance(answer[FDS], int) else b""), answer
        assert os.read(fd, 100) == b"TEXT"
        os.close(fd)

        # Renewed without an end of the old channels; an unanswered call to the runner is forgotten, an event is not.
        raw.call(4, b"doc.Test/Wait")
        assert raw.receive()[METHOD] == b"baton.Log/Write"
        raw.send(field(KIND, ANSWER) + field(ID, 5))
        old, old_stream = raw.channels, raw.stream
        assert raw.renew(4)[10] == 2
        assert old_stream.read() == b"", "no answer on the old channel, which is closed"
        old_stream.close()
        for channel in old:
            channel.close()
        raw.call(2, b"baton.Runner/Stop", field(1, 9))
        assert raw.receive()[ID] == 2
        raw.drop_channels()
        hello = raw.renew(9)
        assert (hello[10], hello[11]) == (3, 9), "the state and the last event"
        raw.call(2, b"baton.Runner/Stop", field(1, 9))
        assert fields(raw.receive()["payload"]) == {1: 3, 2: 9}, "the old result"
        raw.call(4, b"baton.Runner/Exit", field(1, 10))
        assert raw.receive()[ID] == 4 and raw.receive()[KIND] == CLOSE
        raw.end(0)
    finally:
        raw.kill()


@test
def the_end_of_the_lane(folder):
    raw = Raw(folder)
    try:
        raw.renew(0)
        raw.drop_channels()
        raw.lane.close()
        raw.process.wait(wire.TIMEOUT)
    finally:
        raw.kill()


@test
def stopped_by_bytes(folder):
    raw = Raw(folder)
    try:
        raw.renew(0)
        raw.stop_runner(2, 1)
    finally:
        raw.kill()


@test
def violations(folder):
    """A supervisor that breaks the protocol gets a CLOSE that says so."""
    for wrong, status in ((lambda raw: raw.call(3, b"x"), wire.INVALID_ARGUMENT),
                          (lambda raw: raw.send(OUR_HELLO), wire.INVALID_ARGUMENT),
                          (lambda raw: raw.send(field(KIND, 8)), wire.INVALID_ARGUMENT),
                          (lambda raw: raw.channels[0].sendall(b"\xff\xff\xff\xff"), wire.RESOURCE_EXHAUSTED),
                          (lambda raw: raw.channels[0].sendall(b"\0\0\0\1"), wire.INVALID_ARGUMENT),
                          (lambda raw: raw.send(field(KIND, CREDIT) + field(FD_CREDIT, 1)), wire.INVALID_ARGUMENT),
                          (lambda raw: raw.send_lane(7, 0), wire.INVALID_ARGUMENT),
                          (lambda raw: raw.send_lane(3 << 32 | 6, 0), wire.INVALID_ARGUMENT),
                          (lambda raw: [raw.send_lane(6 + 2 * n, 0) for n in range(5)], wire.RESOURCE_EXHAUSTED)):
        raw = Raw(folder)
        try:
            raw.renew(0)
            wrong(raw)
            close = raw.receive()
            assert (close[KIND], close[STATUS]) == (CLOSE, status), close
            raw.end(1)
        finally:
            raw.kill()


# ------------------------------------------------------------------------------------------------------------ the run

def run(function):
    with tempfile.TemporaryDirectory(prefix="baton-document-") as folder:
        generate(folder)
        os.environ["TMPDIR"] = tempfile.tempdir = os.path.join(folder, "tmp")
        os.mkdir(tempfile.tempdir)
        try:
            function(folder)
            assert os.listdir(tempfile.tempdir) == [], f"left behind: {os.listdir(tempfile.tempdir)}"
        finally:
            os.environ["TMPDIR"] = original
            tempfile.tempdir = None


def on_alarm(*_):
    raise TimeoutError("this test took too long")


original = os.environ.get("TMPDIR", "/tmp")
chosen = [function for function in tests if len(sys.argv) < 2 or function.__name__ in sys.argv[1:]]
failed = 0
print(f"1..{len(chosen)}")
signal.signal(signal.SIGALRM, on_alarm)
for index, one in enumerate(chosen, 1):
    signal.alarm(int(3 * wire.TIMEOUT))
    try:
        run(one)
        print(f"ok {index} - {one.__name__}")
    except Exception:
        failed += 1
        print(f"not ok {index} - {one.__name__}")
        print("# " + traceback.format_exc().replace("\n", "\n# "))
    signal.alarm(0)
    sys.stdout.flush()
sys.exit(failed > 0)
