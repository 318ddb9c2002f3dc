#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Python package (python/baton): a client in Python against baton-runner-echo, `baton call' against a runner in
Python (python_runner.py), Python against Python, through the supervisor and attached, private and shared; streams with
back-pressure, descriptors, shared memory, limits, log, cancel, deadline, crash. What goes over the wire: test-python-wire.py. TAP on stdout.
"""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest.mock

from python_tests import (BATON, ECHO, EXAMPLES, RUNNER, TIMEOUT, baton, both, own_descriptors, python, raises, run_tests, test, until,
                          wait_log)

# --------------------------------------------------------------------------------------------------------------- calls

@test
def unary_calls(client):
    for runner in both(client):
        pairs = [("b", b"\0\xff"), ("a", b""), ("b", b"2")]
        answer = runner.call("echo.Echo/Unary", b"hello", "test.Type", metadata=pairs, timeout=TIMEOUT)
        assert (answer.data, answer.type) == (b"hello", "test.Type"), answer
        assert answer.metadata == pairs and answer.get("b") == b"\0\xff"
        large = os.urandom(3 << 20)
        assert runner.call("echo.Echo/Unary", large, timeout=TIMEOUT).data == large
        requests = [runner.request("echo.Echo/Unary", b"%d" % n) for n in range(1500)]  # above max_calls
        assert [request.result(TIMEOUT).data for request in requests] == [b"%d" % n for n in range(1500)]


@test
def statuses(client):
    for runner in both(client):
        values = baton.to_values(baton.u64(5), "no such thing", "test.Detail", b"bytes")
        error = raises(baton.Status.NOT_FOUND, runner.call, "echo.Echo/Fail", values)
        assert (error.message, error.details) == ("no such thing", [("test.Detail", b"bytes")]), error
        raises(baton.Status.UNIMPLEMENTED, runner.call, "no.Such/Method")
        raises(baton.Status.INVALID_ARGUMENT, runner.call, "x" * 256)
        assert runner.call("echo.Echo/Unary", b"on").data == b"on"
    error = raises(baton.Status.INTERNAL, runner.call, "echo.Echo/Raise")
    assert error.message == "KeyError: \"a fault of the handler's\"", error
    wait_log(runner, "echo.Echo/Raise: Traceback")
    assert runner.call("echo.Echo/Later", timeout=TIMEOUT).data == b"later"
    for forever in (1e300, float("inf")):
        assert runner.call("echo.Echo/Unary", b"1", timeout=forever).data == b"1"
    for wrong in ("text", 5):
        try:
            runner.call("echo.Echo/Unary", wrong)
            raise AssertionError("a payload is bytes")
        except TypeError:
            pass
    raises(baton.Status.NOT_FOUND, client.runner("nobody").call, "x")


@test
def descriptors(client):
    for runner in both(client):
        runner.call("echo.Echo/Unary", timeout=TIMEOUT)
        before = baton.from_values(runner.call("echo.Echo/Held"))[0]
        for _ in range(350):  # more than the credit, and than all open calls may hold
            pairs = [socket.socketpair() for _ in range(3)]
            answer = runner.call("echo.Echo/Unary", b"3", fds=[pair[0] for pair in pairs], timeout=TIMEOUT)
            assert answer.n_fds == 3, answer
            for index, pair in enumerate(pairs):
                with socket.socket(fileno=answer.take_fd(index)) as back:
                    back.sendall(b"x")
                    assert pair[1].recv(1) == b"x", "the order is kept"
                pair[0].close()
                pair[1].settimeout(TIMEOUT)
                assert pair[1].recv(1) == b"", "nobody keeps a copy"
                pair[1].close()
        assert baton.from_values(runner.call("echo.Echo/Held"))[0] == before
        raises(baton.Status.RESOURCE_EXHAUSTED, runner.call, "echo.Echo/Unary", fds=[0] * 65)


@test
def cancel_and_deadline(client):
    minute = baton.to_values(baton.u64(60000000))
    for runner in both(client):
        raises(baton.Status.DEADLINE_EXCEEDED, runner.call, "echo.Echo/Sleep", minute, timeout=0.05)
        request = runner.request("echo.Echo/Sleep", minute)
        assert runner.call("echo.Echo/Unary", b"meanwhile", timeout=TIMEOUT).data == b"meanwhile"
        request.cancel()
        raises(baton.Status.CANCELLED, request.result, TIMEOUT)
        try:
            with runner.request("echo.Echo/Sleep", minute) as request:
                request.result(0.01)
            raise AssertionError("it sleeps for a minute")
        except TimeoutError:
            pass
        raises(baton.Status.CANCELLED, request.result, TIMEOUT)
    wait_log(runner, "woken up")


@test
def calls_back(client):
    ping = baton.to_values("baton.Runner/Ping", "baton.Ping", b"\x08\x07")
    for runner in both(client):
        answer = runner.call("echo.Echo/Call", ping, timeout=TIMEOUT)
        assert (answer.type, answer.data) == ("baton.Ping", b"\x08\x07"), answer
        raises(baton.Status.UNIMPLEMENTED, runner.call, "echo.Echo/Call", baton.to_values("baton.Nobody/Knows"))


@test
def log_and_output(client):
    runner = python(client)
    runner.call("echo.Echo/Log", baton.to_values(baton.u64(700), "line"))
    runner.call("echo.Echo/Output", baton.to_values("to stdout", "to stderr"))
    how, killed = runner.stop()
    assert how.ok and not killed, (how, killed)
    lines = list(runner.logs(follow=True))
    records = [line for line in lines if line.source == "record"]
    assert [line.text for line in records] == [b"line %d" % n for n in range(700)], records
    assert {(line.target, line.level) for line in records} == {("echo", 6)} and records[0].line > 0
    assert [line.text for line in lines if line.source == "stdout"] == [b"to stdout"]
    assert [line.text for line in lines if line.source == "stderr"] == [b"to stderr"]


@test
def crashes(client):
    for runner in both(client):
        sleep = runner.request("echo.Echo/Sleep", baton.to_values(baton.u64(60000000)))
        kill = baton.to_values(baton.i64(signal.SIGKILL))
        error = raises(baton.Status.UNAVAILABLE, runner.call, "echo.Echo/Crash", kill)
        assert isinstance(error, baton.RunnerEndedError) and error.exit == ("signaled", signal.SIGKILL), error
        raises(baton.Status.UNAVAILABLE, sleep.result, TIMEOUT)
        error = raises(baton.Status.FAILED_PRECONDITION, runner.call, "echo.Echo/Unary")
        assert isinstance(error, baton.RunnerEndedError), error
        assert runner.stop() == (("signaled", signal.SIGKILL), False)


@test
def starts(client):
    error = raises(baton.Status.UNAVAILABLE, client.start, "no-such-program")
    assert isinstance(error, baton.StartError) and error.reason == "NOT_FOUND", error
    error = raises(baton.Status.UNAVAILABLE, client.start, "/bin/sh", "-c", "echo why >&2; exit 3")
    assert (error.reason, error.exit, error.last_output) == ("EXITED_EARLY", ("exited", 3), ["why"]), vars(error)
    error = raises(baton.Status.UNAVAILABLE, client.start, "/bin/sleep", "60", start_timeout=0.1)
    assert error.reason == "DID_NOT_CONNECT", vars(error)
    raises(baton.Status.INVALID_ARGUMENT, client.start, ECHO, name="a name")
    plain = client.start("sh", "-c", "echo $GREETING; exec cat /dev/zero >/dev/null", plain=True, name="plain",
                         environment={"GREETING": "hello", "PATH": "/bin:/usr/bin"})
    raises(baton.Status.ALREADY_EXISTS, client.start, ECHO, name="plain")
    raises(baton.Status.FAILED_PRECONDITION, plain.call, "x")
    assert wait_log(plain, "hello")
    plain.signal(signal.SIGTERM)
    lines = list(plain.logs(follow=True))
    assert [line.text for line in lines] == [b"hello"] and plain.stop() == (("signaled", signal.SIGTERM), False)


@test
def stop_finishes_what_is_open(client):
    runner = python(client)
    with runner.stream("stream.Stream/Echo", timeout=TIMEOUT) as stream:
        stream.send(b"before")
        assert stream.receive(TIMEOUT).data == b"before"
        stopping = threading.Thread(target=runner.stop)
        stopping.start()
        refused = lambda: client.runner("py").request("echo.Echo/Unary")
        until(lambda: _status(refused()) in (baton.Status.UNAVAILABLE, baton.Status.FAILED_PRECONDITION), "the refusal")
        stream.send(b"after")
        stream.end()
        assert [item.data for item in stream] == [b"after"] and stream.result(TIMEOUT).data == b"2"
        stopping.join(TIMEOUT)
    assert runner.stop()[0].ok


def _status(request):
    try:
        request.result(TIMEOUT)
    except baton.CallError as error:
        return error.status
    return baton.Status.OK


# ------------------------------------------------------------------------------------------------------------- streams

def stream_kinds(peer):
    with peer.stream("stream.Stream/Echo", timeout=TIMEOUT) as stream:
        for n in range(300):
            stream.send(b"%d" % n, "test.Item")
            item = stream.receive(TIMEOUT)
            assert (item.data, item.type) == (b"%d" % n, "test.Item")
        stream.end()
        assert stream.receive(TIMEOUT) is None and stream.result(TIMEOUT).data == b"300"
    counted = peer.stream("stream.Stream/Count", baton.to_values(2000, 1000), sends=False, timeout=TIMEOUT)
    assert [int.from_bytes(item.data[:4], "big") for item in counted] == list(range(2000)), "2 MB by windows of 64 KiB"
    counted.result(TIMEOUT)
    summed = peer.request("stream.Stream/Sum", sends=True, timeout=TIMEOUT)
    for _ in range(2000):
        summed.send(bytes(1000))
    summed.end()
    assert summed.result(TIMEOUT).data == b"2000000"
    try:
        summed.send(b"late")
        raise AssertionError("it is over")
    except baton.CallError as error:
        assert error.status == baton.Status.CANCELLED, error


def stream_refusals(peer):
    """Items that nobody takes, and such as can never be sent."""
    request = peer.request("echo.Echo/Sleep", baton.to_values(baton.u64(60000000)), sends=True)
    request.send(b"unwanted")
    raises(baton.Status.INVALID_ARGUMENT, request.result, TIMEOUT)
    request = peer.request("stream.Stream/Count", baton.to_values(3, 100))
    raises(baton.Status.UNIMPLEMENTED, request.result, TIMEOUT)


def back_pressure(peer, runner):
    """A receiver that takes nothing makes the sender wait; nothing piles up beyond the windows."""
    stuck = peer.stream("stream.Stream/Stuck", timeout=TIMEOUT)
    sent = 0
    try:
        while True:
            stuck.send(bytes(1000), timeout=0.2)
            sent += 1
    except TimeoutError:
        pass
    assert 50 <= sent <= 1000, sent
    sender = threading.Thread(target=lambda: raises(baton.Status.CANCELLED, stuck.send, bytes(1000)))
    sender.start()
    assert peer.call("echo.Echo/Unary", b"not behind it", timeout=TIMEOUT).data == b"not behind it"
    stuck.cancel()
    sender.join(TIMEOUT)
    assert not sender.is_alive()
    blocked = peer.stream("stream.Stream/Blocked", sends=False, timeout=TIMEOUT)
    said = int(wait_log(runner, "sent ").split()[1])
    assert 50 <= said <= 1000, said
    assert blocked.receive(TIMEOUT).data == bytes(1000)
    blocked.cancel()
    assert wait_log(runner, "ended ") == "ended CANCELLED"


def stream_descriptors(peer):
    with peer.stream("stream.Stream/Echo", timeout=TIMEOUT) as stream:
        for n in range(40):
            reader, writer = os.pipe()
            stream.send(b"pipe", fds=[writer])
            os.close(writer)
            item = stream.receive(TIMEOUT)
            back = item.take_fd()
            os.write(back, b"%d" % n)
            os.close(back)
            assert os.read(reader, 100) == b"%d" % n and os.read(reader, 100) == b"", "nobody keeps a copy"
            os.close(reader)
        stream.end()
        assert stream.result(TIMEOUT).data == b"40"


@test
def streams_through_the_supervisor(client):
    runner = python(client)
    stream_kinds(runner)
    stream_refusals(runner)
    back_pressure(runner, runner)
    stream_descriptors(runner)


@test
def attached(client):
    runner = python(client)
    with runner.attach() as direct:
        assert (direct.name, direct.pid) == ("py", runner.pid)
        assert direct.call("echo.Echo/Unary", b"direct", timeout=TIMEOUT).data == b"direct"
        stream_kinds(direct)
        stream_refusals(direct)
        back_pressure(direct, runner)
        stream_descriptors(direct)
        with direct.stream("stream.Stream/Echo") as stream:
            raises(baton.Status.RESOURCE_EXHAUSTED, stream.send, bytes((64 << 20) + 1))
            stream.send(b"and on")
            assert stream.receive(TIMEOUT).data == b"and on"
        raises(baton.Status.PERMISSION_DENIED, direct.call, "baton.Runner/Stop")
        second = runner.attach()
        assert second.call("echo.Echo/Unary", b"two", timeout=TIMEOUT).data == b"two"
        request = second.request("stream.Stream/Stuck", sends=True)
        request.send(b"one")
        second.close()
        raises(baton.Status.UNAVAILABLE, request.result, TIMEOUT)
        held = baton.from_values(runner.call("echo.Echo/Held"))[0]
        for _ in range(10):
            runner.attach().close()
        until(lambda: baton.from_values(runner.call("echo.Echo/Held"))[0] == held, "no descriptor is left")
        runner.signal(signal.SIGKILL)
        raises(baton.Status.UNAVAILABLE, direct.request("echo.Echo/Pooled").result, TIMEOUT)
    limited = client.start(sys.executable, "-B", RUNNER, name="limited", max_attached=1)
    only = limited.attach()
    raises(baton.Status.RESOURCE_EXHAUSTED, limited.attach)
    assert limited.stop()[0].ok, "an attached client does not hold it"
    raises(baton.Status.UNAVAILABLE, only.call, "echo.Echo/Unary", timeout=TIMEOUT)


@test
def client_methods(client):
    """A runner calls the client that is attached to it; what is left of the time is handed on."""
    threads = set()

    @client.method("client.Client/TimeLeft")
    def time_left(call):
        threads.add(threading.current_thread().name)
        return repr(call.time_left()).encode()

    @client.method("client.Client/Broken", inline=True)
    def broken(_):
        raise KeyError("broken")

    runner = python(client)

    def ask(method, payload=b"", **options):
        return direct.call("test.Test/Client", baton.to_values(method, payload), **options)

    assert 0 < float(runner.call("test.Test/TimeLeft", timeout=TIMEOUT).data) < TIMEOUT
    assert runner.call("test.Test/TimeLeft").data == b"None"
    with runner.attach() as direct:
        assert 0 < float(ask("client.Client/TimeLeft", timeout=TIMEOUT).data) < TIMEOUT
        assert ask("client.Client/TimeLeft").data == b"None" and threads == {"baton-handler-0"}, threads
        faults = []
        with unittest.mock.patch.object(logging.getLogger("baton"), "error", faults.append):
            assert "KeyError" in raises(baton.Status.INTERNAL, ask, "client.Client/Broken").message
        assert len(faults) == 1 and faults[0].startswith("client.Client/Broken: Traceback"), faults
        raises(baton.Status.UNIMPLEMENTED, ask, "client.Client/Nobody")
        assert ask("baton.Runner/Ping", b"\x08\x07").data == b"\x08\x07"
        assert ask("baton.Health/Check").data == b"\x08\x01"
        names = ask("baton.Reflection/List").data
        assert b"client.Client/TimeLeft" in names and b"client.Client/Broken" in names
        client.default(lambda call: call.method.encode())
        assert ask("client.Client/Nobody").data == b"client.Client/Nobody"
        client.set_health(False)
        assert ask("baton.Health/Check").data == b"\x08\x02"


@test
def health_and_reflection(client):
    echo, runner = both(client)
    for peer in (echo, runner, echo.attach(), runner.attach()):
        peer.ping(TIMEOUT)
        assert peer.is_serving() and peer.is_serving("echo.Echo", timeout=TIMEOUT)
        raises(baton.Status.NOT_FOUND, peer.is_serving, "no.Such")
        methods = {one.name: one for one in peer.list_methods(TIMEOUT).methods}
        assert "echo.Echo/Unary" in methods and not any(name.startswith("baton.") for name in methods)
    assert not peer.list_methods().others
    assert methods["test.Test/Health"] == ("test.Test/Health", True, "baton.Values", "", False, False)
    assert not methods["stream.Stream/Echo"].described
    runner.call("test.Test/Health", baton.to_values("test.Test", 0))
    assert not runner.is_serving("test.Test") and runner.is_serving()
    runner.call("test.Test/Health", baton.to_values("", 0))
    assert not runner.is_serving() and not runner.is_serving("echo.Echo")
    runner.call("test.Test/Health", baton.to_values("test.Test", 1))
    assert runner.is_serving("test.Test")


def arenas(pid):
    """How many are mapped there, by access."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        return sorted(line.split()[1] for line in maps if "memfd:baton-arena" in line)


@test
def shared_memory(client):
    """Large payloads of raw bytes between us and a runner that we are attached to, in C and in Python: the memory is
    mapped once on each side, by the reader for reading only, and is gone with the lane."""
    for runner in both(client):
        sizes = (1, 65536, 262143, 262144, 1 << 20, 3 << 20)
        with runner.attach() as direct:
            for _ in range(5):
                for size in sizes:
                    data = os.urandom(size)
                    assert direct.call("echo.Echo/Unary", data, timeout=TIMEOUT).data == data
                    answer = direct.call("echo.Echo/Unary", data, "test.Type", timeout=TIMEOUT)
                    assert (answer.data, answer.type) == (data, "test.Type")
            own, theirs = arenas("self"), arenas(runner.pid)
            assert "rw-s" in own and ("r--s" in own or runner.name == "echo"), own
            assert own == sorted({"rw-s": "r--s", "r--s": "rw-s"}[access] for access in theirs), (own, theirs)
            pending = [direct.request("echo.Echo/Unary", bytes([n]) * (2 << 20)) for n in range(25)]
            assert all(request.result(TIMEOUT).data == bytes([n]) * (2 << 20) for n, request in enumerate(pending))
        until(lambda: not arenas(runner.pid) and not arenas("self"), "the end of the arenas")
        data = os.urandom(1 << 20)
        assert runner.call("echo.Echo/Unary", data, timeout=TIMEOUT).data == data and not arenas(runner.pid)


@test
def shared_memory_can_be_declined():
    with baton.Client(BATON, max_shared=0) as own:
        with own.start(ECHO).attach() as direct:
            for _ in range(3):
                assert direct.call("echo.Echo/Unary", bytes(1 << 20), timeout=TIMEOUT).size == 1 << 20
            assert not arenas("self")


@test
def objects(client):
    """What no frame and no window holds travels as an object, through the supervisor and attached."""
    for runner in both(client):
        for peer in (runner, runner.attach()):
            for size in (1 << 20, 5 << 20, 40 << 20):
                data = os.urandom(1 << 20) * (size >> 20)
                answer = peer.call("echo.Echo/Unary", data, "test.Type", fds=[0], timeout=TIMEOUT)
                assert (answer.data == data, answer.type, answer.n_fds) == (True, "test.Type", 1), answer
        requests = [runner.request("echo.Echo/Unary", bytes([n]) * (10 << 20)) for n in range(5)]
        assert all(request.result(TIMEOUT).data == bytes([n]) * (10 << 20) for n, request in enumerate(requests))
    for peer in (runner, runner.attach()):
        with peer.stream("stream.Stream/Echo", timeout=TIMEOUT) as stream:
            for n in range(20):
                stream.send(bytes([n]) * (10 << 20))
                assert stream.receive(TIMEOUT).data == bytes([n]) * (10 << 20)
            stream.end()
            assert stream.result(TIMEOUT).data == b"20"
        raises(baton.Status.RESOURCE_EXHAUSTED, peer.call, "echo.Echo/Unary", bytes((64 << 20) + 1))
    assert "memfd" not in "".join(own_descriptors()), "nobody keeps one"


@test
def objects_can_be_declined():
    with baton.Client(BATON, limits=baton.Limits(max_object=0)) as client:
        runner = python(client)
        for peer in (runner, runner.attach()):
            raises(baton.Status.RESOURCE_EXHAUSTED, peer.stream("stream.Stream/OneTooLarge", sends=False).result, TIMEOUT)
            assert peer.call("echo.Echo/Unary", bytes(3 << 20), timeout=TIMEOUT).size == 3 << 20
            raises(baton.Status.RESOURCE_EXHAUSTED, peer.call, "echo.Echo/Unary", bytes(9 << 20))
            assert peer.call("echo.Echo/Unary", b"on", timeout=TIMEOUT).data == b"on"


@test
def the_last_answer(client):
    """A runner that answers and leaves: the answer is not lost, however large, on neither way."""
    for attach in (False, True):
        for _ in range(5):
            runner = python(client)
            peer = runner.attach() if attach else runner
            assert peer.call("test.Test/Last", timeout=TIMEOUT).size == 3 << 20
            assert runner.stop()[0].ok


@test
def limits(client):
    """Each is refused by name where it is met, and what was held is free again afterwards."""
    for wrong in ({"max_frame": 1}, {"max_held_fds": 0}, {"max_object": -1}):
        try:
            baton.Client(BATON, limits=baton.Limits(**wrong))
            raise AssertionError(f"{wrong} cannot be")
        except ValueError:
            pass
    tight = baton.Limits(max_waiting=3, max_waiting_bytes=100000)
    with baton.Client(BATON, limits=tight) as own, python(own).attach() as direct:
        waiting = []
        asked = threading.Event()

        def many():  # in the loop's thread: nothing is sent meanwhile
            waiting.extend(direct.request("echo.Echo/Unary", bytes(size)) for size in (100001, 1, 2, 3, 4))
            asked.set()
        own._loop.call_soon(many)
        assert asked.wait(TIMEOUT)
        ok, refused = baton.Status.OK, baton.Status.RESOURCE_EXHAUSTED
        assert [_status(request) for request in waiting] == [refused, ok, ok, ok, refused]
        assert "wait to be sent" in raises(refused, waiting[0].result).message
        assert direct.call("echo.Echo/Unary", b"on", timeout=TIMEOUT).data == b"on"
    runner = client.start(sys.executable, "-B", RUNNER, "--max_held_fds=2", "--max_memory=131072", name="tight")
    minute = baton.to_values(baton.u64(60000000))
    for peer in (runner, runner.attach()):
        for one, options, said in (("echo.Echo/Sleep", {"fds": [0, 0]}, "open calls hold 2 descriptors already, at most 2 may"),
                                   ("stream.Stream/Stuck", {"sends": True}, "open streams may have 131072 bytes")):
            held = [peer.request(one, minute, **options) for _ in range(2 if options.get("sends") else 1)]
            assert said in raises(refused, peer.request(one, minute, **options).result, TIMEOUT).message
            for request in held:
                request.cancel()
            until(lambda: _status(peer.request(one, minute, timeout=0.2, **options)) ==
                  baton.Status.DEADLINE_EXCEEDED, "room")
    tight = baton.Limits(max_calls=2, max_held_fds=2)
    starts = client.start(sys.executable, "-B", RUNNER, name="starts", limits=tight)
    assert starts.call("echo.Echo/Unary", b"on", timeout=TIMEOUT).data == b"on"


@test
def log_is_parked(client):
    """With `park_log' threads wait for room, and nothing is dropped; the loop's, during which nothing is sent, drops."""
    for name, options, method, dropped in (("parks", ["--park"], "test.Test/LogMuch", False),
                                           ("cannot", ["--park"], "test.Test/LogMuchInline", True),
                                           ("drops", [], "test.Test/LogMuchInline", True)):
        runner = client.start(sys.executable, "-B", RUNNER, *options, name=name)
        assert runner.call(method, b"3000", timeout=TIMEOUT).size == 0
        assert runner.stop()[0].ok
        texts = [line.text for line in runner.logs(follow=True) if line.source == "record"]
        kept = 1024 if dropped else 3000
        assert texts[:kept] == [b"much %d" % n for n in range(kept)], len(texts)
        assert texts[kept:] == ([b"1976 log records dropped"] if dropped else []), texts[kept:]


FLEET = """
runners:
  shared:
    command: [{python}, -B, {runner}]
    ready: hello
    uds_path: true
  later:
    command: [{echo}]
    ready: hello
    autostart: false
"""


class Daemon:
    """`baton supervise' in a folder of its own, which is removed."""

    def __enter__(self):
        self.folder = tempfile.mkdtemp()
        configuration = os.path.join(self.folder, "baton.yaml")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(FLEET.format(python=sys.executable, runner=RUNNER, echo=ECHO))
        self.process = subprocess.Popen(
            [BATON, "supervise", f"--runtime-dir={self.folder}/run", f"--state-dir={self.folder}/state",
             f"--log-dir={self.folder}/log", configuration], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            start_new_session=True)
        self.socket = os.path.join(self.folder, "run", "control")
        return self

    def connect(self):
        for _ in iter(lambda: self.process.poll(), 0):
            try:
                return baton.Client.connect(self.socket)
            except (FileNotFoundError, ConnectionRefusedError, baton.ConnectionEnded):
                time.sleep(0.005)
        raise AssertionError("it has ended")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(TIMEOUT)
        shutil.rmtree(self.folder)


@test
def a_supervisor_that_others_share():
    """The same by the control socket: runners of the configuration, by name; they and it outlive the client."""
    with Daemon() as daemon:
        with daemon.connect() as client, daemon.connect() as other:
            shared = client.runner("shared")
            assert shared.call("echo.Echo/Unary", b"relayed", timeout=TIMEOUT).data == b"relayed"
            with shared.attach() as direct:
                assert direct.call("echo.Echo/Unary", b"direct", timeout=TIMEOUT).data == b"direct"
                stream_kinds(direct)
                pid = direct.pid
            raises(baton.Status.NOT_FOUND, other.runner("nobody").attach)
            later = other.runner("later")
            raises(baton.Status.FAILED_PRECONDITION, later.attach)
            later.start()
            assert later.pid > 0 and later.call("echo.Echo/Unary", b"up", timeout=TIMEOUT).data == b"up"
            assert client.start(ECHO, name="ours").call("echo.Echo/Unary", b"ours", timeout=TIMEOUT).data == b"ours"
        with unittest.mock.patch.dict(os.environ, BATON_SOCKET=daemon.socket), baton.Client.connect() as client:
            with client.runner("shared").attach() as direct:
                assert direct.pid == pid, "it went on without us"
                with open(f"/proc/{direct.pid}/stat", encoding="ascii") as file:
                    keeper = int(file.read().rsplit(")", 1)[1].split()[1])
                with open(f"/proc/{keeper}/task/{keeper}/children", encoding="ascii") as file:
                    children = [int(word) for word in file.read().split()]
                supervisor, = [one for one in children if os.path.basename(os.readlink(f"/proc/{one}/exe")) == "baton-supervisor"]
                os.kill(supervisor, signal.SIGKILL)
                raises(baton.Status.UNAVAILABLE, client.runner("later").call, "echo.Echo/Sleep",
                       baton.to_values(baton.u64(60000000)), timeout=TIMEOUT)
                assert direct.call("echo.Echo/Unary", b"goes on", timeout=TIMEOUT).data == b"goes on"
                with daemon.connect() as again:
                    assert again.runner("shared").call("echo.Echo/Unary", b"2", timeout=TIMEOUT).data == b"2"
    for path, error in (("/no/such/socket", FileNotFoundError), ("x" * 200 + "/control", FileNotFoundError)):
        try:
            baton.Client.connect(path)
            raise AssertionError("there is none")
        except error:
            pass


@test
def the_socket_as_an_argument():
    for given, left, path in ((["p", "--uds-path", "/a", "b"], ["p", "b"], "/a"), (["p", "--uds-path=/a"], ["p"], "/a"),
                              (["p", "b"], ["p", "b"], None), (["p", "--", "--uds-path=/a"], ["p", "--", "--uds-path=/a"], None),
                              (["p", "--uds-path=/a", "-x", "--uds-path", "/b", "--"], ["p", "-x", "--"], "/b")):
        assert (baton.uds_path_argument(given), given) == (path, left), given
    for wrong in (["p", "--uds-path"], ["p", "--uds-path="]):
        try:
            baton.uds_path_argument(wrong)
            raise AssertionError("it needs a path")
        except baton.Error as error:
            assert str(error) == "--uds-path needs a path"


@test
def metadata(client):
    for peer in both(client):
        pairs = [(f"key {n}", bytes([n % 256]) * n) for n in range(300)]
        assert peer.call("echo.Echo/Unary", metadata=pairs, timeout=TIMEOUT).metadata == pairs
        for wrong in ([("a\0b", b"")], [("\udc80", b"")]):
            try:
                peer.call("echo.Echo/Unary", metadata=wrong)
                raise AssertionError("that is no text")
            except ValueError:
                pass


# ------------------------------------------------------------------------------------------------------- the command

def command(*arguments, code=0):
    result = subprocess.run([BATON, "call", *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT,
                            check=False)
    assert result.returncode == code, result
    return result.stdout.decode(), result.stderr.decode()


@test
def called_by_the_command():
    script = ["--exec", sys.executable, "-B", RUNNER, "--"]
    assert "hello" in command(*script, "echo.Echo/Unary", "string:hello")[0]
    _, text = command(*script, "echo.Echo/Fail", "u64:5", "string:no such thing", code=16 + 5)
    assert "NOT_FOUND: no such thing" in text, text
    command("--deadline=50ms", *script, "echo.Echo/Sleep", "u64:60000000", code=16 + 4)
    command(*script, "no.Such/Method", code=16 + 12)
    command(*script, "echo.Echo/Crash", "i64:9", code=16 + 14)


@test
def examples():
    greeter = os.path.join(EXAMPLES, "greeter.py")
    out, _ = command("--exec", sys.executable, "-B", greeter, "--", "greet.Greeter/Greet", "string:world")
    assert "Hello, world!" in out, out
    result = subprocess.run([sys.executable, "-B", os.path.join(EXAMPLES, "client.py")], stdin=subprocess.DEVNULL,
                            capture_output=True, timeout=TIMEOUT, check=False)
    assert result.returncode == 0, result
    said = result.stdout.decode()
    assert said.split("\n") == [
        "Hello, world!", "Hello, Ada!", "Hello, Grace!", "2 greeted",
        "refused: INVALID_ARGUMENT: whom? One name is needed", "greeter: greeting world", "greeter: exited 0", ""], said


@test
def by_hand():
    """Without a supervisor: one line that says what is missing. Without baton: the same."""
    for code, text in (("import baton; baton.Runner()", "$BATON_BOOTSTRAP is not set"),
                       ("import baton; baton.Client('/no/such/baton')", "cannot start /no/such/baton"),
                       ("import baton; baton.Client('/bin/false')", "/bin/false supervise: ")):
        result = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, timeout=TIMEOUT, check=False)
        assert result.returncode == 1 and text in result.stderr.decode().strip().split("\n")[-1], result
    try:
        baton.Runner(bootstrap=os.path.join(tempfile.gettempdir(), "x" * 120, "bootstrap"))
        raise AssertionError("there is no such folder")
    except FileNotFoundError:
        pass


run_tests()
