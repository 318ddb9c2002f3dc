#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Python package (python/baton): a client in Python against baton-runner-echo, `baton call' against a runner in
Python (python_runner.py), Python against Python, through the supervisor and attached; streams with back-pressure,
descriptors, cancel, deadline, crash, raw violations; nothing left behind. TAP on stdout.

The package is put together in the test's folder: its sources, and the messages that the build has made of proto/.
"""

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import baton_wire as wire

HERE = os.path.dirname(os.path.abspath(__file__))
BATON = os.environ.get("BATON_PROGRAM", os.path.join(wire.BUILD, "baton"))
ECHO = os.path.join(wire.BUILD, "baton-runner-echo")
RUNNER = os.path.join(HERE, "python_runner.py")
EXAMPLES = os.path.join(wire.SOURCE, "examples", "python")
TIMEOUT = wire.TIMEOUT
tests = []


def test(function):
    tests.append(function)
    return function


def assemble(folder):
    """The package, as it is installed."""
    package = os.path.join(folder, "baton")
    shutil.copytree(os.path.join(wire.SOURCE, "python", "baton"), package,
                    ignore=shutil.ignore_patterns("*_pb2.py", "__pycache__"))
    for name in ("baton", "control", "values"):
        made = os.path.join(wire.BUILD, "python", "baton", name + "_pb2.py")
        if not os.path.exists(made):
            print(f"1..0 # SKIP the package was not built: {made} is missing (was there no protoc?)")
            sys.exit(0)
        shutil.copy(made, package)


def python(client, **fields):
    return client.start(sys.executable, "-B", RUNNER, name="py", **fields)


def both(client):
    """A runner in C and one in Python."""
    return client.start(ECHO, name="echo"), python(client)


def raises(status, function, *arguments, **options):
    """The CallError of that status that it must raise."""
    try:
        result = function(*arguments, **options)
    except baton.CallError as error:
        assert error.status == status, repr(error)
        return error
    raise AssertionError(f"{status.name} was expected, got {result}")


def until(condition, what):
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.005)


def wait_log(runner, text):
    """Follows the log until a line that begins so; that line."""
    for line in runner.logs(follow=True):
        if line.text.decode().startswith(text):
            return line.text.decode()
    raise AssertionError(f"the log ended without {text!r}")


def own_descriptors():
    gc.collect()
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                  if os.path.lexists(f"/proc/self/fd/{fd}"))


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
        raises(baton.Status.RESOURCE_EXHAUSTED, runner.call, "echo.Echo/Unary", bytes(9 << 20))
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
    raises(baton.Status.RESOURCE_EXHAUSTED, peer.stream("stream.Stream/OneTooLarge", sends=False).result, TIMEOUT)
    with peer.stream("stream.Stream/Echo") as stream:
        raises(baton.Status.RESOURCE_EXHAUSTED, stream.send, bytes(1 << 20))
        stream.send(b"and on")
        assert stream.receive(TIMEOUT).data == b"and on"


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
        raises(baton.Status.UNIMPLEMENTED, direct.call, "baton.Runner/Stop")
        raises(baton.Status.RESOURCE_EXHAUSTED, direct.call, "echo.Echo/Unary", bytes(5 << 20))
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


# ------------------------------------------------------------------------------------------------------- the command

def command(*arguments, code=0):
    result = subprocess.run([BATON, "call", *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT,
                            check=False)
    assert result.returncode == code, result
    return result.stdout.decode(), result.stderr.decode()


@test
def called_by_the_command(client):
    del client
    script = ["--exec", sys.executable, "-B", RUNNER, "--"]
    assert "hello" in command(*script, "echo.Echo/Unary", "string:hello")[0]
    _, text = command(*script, "echo.Echo/Fail", "u64:5", "string:no such thing", code=16 + 5)
    assert "NOT_FOUND: no such thing" in text, text
    command("--deadline=50ms", *script, "echo.Echo/Sleep", "u64:60000000", code=16 + 4)
    command(*script, "no.Such/Method", code=16 + 12)
    command(*script, "echo.Echo/Crash", "i64:9", code=16 + 14)


@test
def examples(client):
    del client
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
def by_hand(client):
    """Without a supervisor: one line that says what is missing. Without baton: the same."""
    del client
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


# ---------------------------------------------------------------------------------------------------- the other side

class Bytes:
    """The supervisor's side of a Runner in this process, as baton_wire frames."""

    def __init__(self, **options):
        path = os.path.join(tempfile.gettempdir(), "bootstrap")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            self.runner = baton.Runner(bootstrap=path, **options)
            self.lane = listening.accept()[0]
        os.unlink(path)
        self.runner.method("echo", inline=True)(lambda call: call.request)
        self.runner.method("wait", stream=True)(lambda call: call.wait_cancelled())
        self.runner.method("ask")(lambda call: self.runner.call(call.data.decode()))
        self.runner.start()
        self.epoch = 0

    def channels(self, epoch=0):
        """New channels in that epoch: a Peer of baton_wire's over them."""
        peer = wire.Peer.__new__(wire.Peer)
        peer.lane, peer.side, peer.n_channels, peer.on_call, peer.software = self.lane, 0, 1, self.calls.append, "bytes"
        peer.channels, peer.buffers, peer.arrived, peer.pending = {}, {}, {}, {}
        peer.next_fd, peer.next_call, peer.remote, peer.closed = epoch << 31 | 3, {}, None, None
        self.calls.clear()
        for number in range(3):
            ours, theirs = socket.socketpair()
            socket.send_fds(self.lane, [(epoch << 32 | number).to_bytes(8, "little")], [theirs.fileno()])
            theirs.close()
            if number == 0:
                ours.settimeout(TIMEOUT)
                peer.channels[0], peer.buffers[0] = ours, b""
            else:
                ours.close()
        hello = wire.baton.Hello(protocol_min=1, protocol_max=1, instance=7)
        peer.send(0, wire.baton.Envelope(kind=wire.baton.HELLO, hello=hello))
        peer.run_until(lambda: peer.remote)
        return peer

    calls = []

    def end(self):
        self.lane.close()
        try:
            assert self.runner.join(TIMEOUT)
        except baton.ConnectionEnded as error:
            return str(error)
        return ""


@test
def renewal(client):
    """A new supervisor takes the lane over: log records are sent again, the runner and its state live on."""
    del client
    other = Bytes()
    renewed = threading.Event()
    other.runner.on_renewal(renewed.set)
    peer = other.channels()
    assert (peer.remote.instance, peer.remote.service_state) == (0, 2), peer.remote
    other.runner.log(6, "first")
    peer.run_until(lambda: other.calls)
    first = other.calls[0].payload
    peer.start_call("wait")
    ask = other.runner.request("nobody.Answers/This")
    peer.run_until(lambda: len(other.calls) == 2)
    reader, writer = os.pipe()
    peer.send_fd(writer)
    os.close(writer)
    peer.channels[0].close()
    peer = other.channels(3)
    assert (peer.remote.instance, peer.remote.service_state) == (7, 2), peer.remote
    assert os.read(reader, 1) == b"" and renewed.wait(TIMEOUT), "what nobody listed is closed"
    os.close(reader)
    raises(baton.Status.UNAVAILABLE, ask.result, TIMEOUT)
    peer.run_until(lambda: other.calls)
    assert other.calls[0].payload == first, "the same record with its number"
    other.calls[0].answer()
    assert peer.call("echo", b"on").payload == b"on"
    stop = wire.baton.LifecycleEvent(event=5)
    assert peer.wait(peer.message("baton.Runner/Stop", stop)).status == wire.OK
    peer = other.channels(4)  # the old channel is still open
    assert (peer.remote.service_state, peer.remote.last_event) == (3, 5), peer.remote
    assert peer.call("echo").status == wire.UNAVAILABLE
    stopped = wire.baton.LifecycleState.FromString(peer.wait(peer.message("baton.Runner/Stop", stop)).payload)
    assert (stopped.service_state, stopped.event) == (3, 5), "carried out once"
    peer.wait(peer.message("baton.Runner/Exit", wire.baton.LifecycleEvent(event=6)))
    peer.run_until(lambda: peer.closed)
    assert peer.closed == (0, "stopped") and other.end() == ""
    peer.channels[0].close()


@test
def violations(client):
    """What the other side must not do ends the connection, with a CLOSE that says why."""
    del client
    envelope = wire.baton.Envelope
    call = envelope(kind=wire.baton.CALL, id=2, method="wait")

    def item(size):
        return lambda peer: (peer.send(0, call), peer.send(0, envelope(kind=wire.baton.ITEM, id=2), bytes(size)))

    for wrong, status in (
            (lambda peer: peer.send(0, envelope(kind=wire.baton.CALL, id=3, method="x")), "INVALID_ARGUMENT"),
            (lambda peer: (peer.send(0, call), peer.send(0, call)), "INVALID_ARGUMENT"),
            (lambda peer: [peer.send(0, envelope(kind=wire.baton.CALL, id=2 * n, method="wait")) for n in range(1, 6)],
             "RESOURCE_EXHAUSTED"),
            (lambda peer: peer.send(0, envelope(kind=wire.baton.HELLO)), "INVALID_ARGUMENT"),
            (lambda peer: peer.send(0, envelope(kind=9)), "INVALID_ARGUMENT"),
            (lambda peer: peer.send(0, envelope(kind=wire.baton.CALL, id=2, method="a\0b")), "INVALID_ARGUMENT"),
            (lambda peer: peer.send(0, envelope(kind=wire.baton.CLOSE, id=2)), "INVALID_ARGUMENT"),
            (lambda peer: peer.send(0, envelope(kind=wire.baton.CREDIT, fd_credit=1)), "INVALID_ARGUMENT"),
            (lambda peer: (peer.send(0, call), peer.send(0, envelope(kind=wire.baton.CREDIT, id=2, credit=1))),
             "INVALID_ARGUMENT"),
            (lambda peer: peer.send(0, envelope(kind=wire.baton.CALL, id=2, blocks=[wire.baton.Block(arena=1)])),
             "INVALID_ARGUMENT"),
            (item(4096), "RESOURCE_EXHAUSTED"),
            (lambda peer: peer.channels[0].sendall(b"\xff\xff\xff\xff"), "RESOURCE_EXHAUSTED"),
            (lambda peer: peer.channels[0].sendall(b"\0\0\0\3"), "INVALID_ARGUMENT"),
            (lambda peer: peer.channels[0].sendall(b"\0\0\0\4\0\0\0\1"), "INVALID_ARGUMENT"),
            (lambda peer: peer.channels[0].sendall(b"\0\0\0\5\0\0\0\1\xff"), "INVALID_ARGUMENT"),
            (lambda peer: peer.lane.sendall(b"\6" + bytes(7)), "INVALID_ARGUMENT"),
            (lambda peer: socket.send_fds(peer.lane, [b"\6" + bytes(7)], [0, 0]), "INVALID_ARGUMENT"),
            (lambda peer: socket.send_fds(peer.lane, [b"\7" + bytes(7)], [0]), "INVALID_ARGUMENT"),
            (lambda peer: socket.send_fds(peer.lane, [b"\6\0\0\0\1\0\0\0"], [0]), "INVALID_ARGUMENT"),
            (lambda peer: socket.send_fds(peer.lane, [b"\0\0\0\0\1\0\0\0"], [0]), "INVALID_ARGUMENT"),
            (lambda peer: [peer.send_fd(0) for _ in range(3)], "RESOURCE_EXHAUSTED")):
        other = Bytes(max_calls=4, stream_window=4096, fd_credit=2)
        peer = other.channels()
        wrong(peer)
        peer.run_until(lambda: peer.closed)
        assert baton.Status(peer.closed[0]).name == status, peer.closed
        assert other.end().startswith(status + ": "), "run() says it, too"
        peer.channels[0].close()


@test
def faults_of_one_call(client):
    """What spoils a call ends that call, and nothing else."""
    del client
    envelope = wire.baton.Envelope
    other = Bytes(stream_window=65536)
    peer = other.channels()
    for fds, status in (([6], wire.INVALID_ARGUMENT), ([8, 8], wire.INVALID_ARGUMENT)):
        request = wire.Pending(peer.next_call.get(0, 1) << 1)
        peer.next_call[0] = (request.id >> 1) + 1
        peer.pending[0, request.id] = request
        if fds == [8, 8]:
            socket.send_fds(peer.lane, [b"\x08" + bytes(7)], [0])
        peer.send(0, envelope(kind=wire.baton.CALL, id=request.id, method="echo", fds=fds, end=True))
        assert peer.wait(request).status == status
    peer.send(0, envelope(kind=wire.baton.ANSWER, id=3))  # stray and late ones are dropped
    peer.send(0, envelope(kind=wire.baton.CANCEL, id=2))
    peer.send(0, envelope(kind=wire.baton.ITEM, id=2), b"late")
    peer.send(0, envelope(kind=wire.baton.CREDIT, id=2, credit=5))
    assert peer.call("echo", b"on").payload == b"on"
    assert peer.call("echo", b"1", timeout_us=(1 << 64) - 1).payload == b"1", "a deadline beyond what the system counts"
    call = peer.start_call("wait", timeout_us=1 << 55)
    assert peer.call("echo", b"1").payload == b"1"
    peer.send(0, envelope(kind=wire.baton.ITEM, id=call.id, end=True))
    assert peer.wait(call).status == wire.INVALID_ARGUMENT, "an item after a CALL with end"
    request = other.runner.request("asked")
    peer.run_until(lambda: other.calls)
    peer.send(0, envelope(kind=wire.baton.ANSWER, id=other.calls[0].envelope.id, fds=[1000]))
    raises(baton.Status.INVALID_ARGUMENT, request.result, TIMEOUT)
    other.runner.quit()
    peer.run_until(lambda: peer.closed)
    assert peer.closed[0] == wire.OK and other.end() == ""
    peer.channels[0].close()


# ------------------------------------------------------------------------------------------------------------ the run

WITHOUT_CLIENT = {"called_by_the_command", "examples", "by_hand", "renewal", "violations", "faults_of_one_call"}


def run(function, folder):
    temporary = os.path.join(folder, "tmp")
    os.mkdir(temporary)
    tempfile.tempdir = os.environ["TMPDIR"] = temporary
    before = own_descriptors()
    try:
        if function.__name__ in WITHOUT_CLIENT:
            function(None)
        else:
            with baton.Client(BATON) as client:
                function(client)
        assert os.listdir(temporary) == [], f"left behind: {os.listdir(temporary)}"
        until(lambda: len(own_descriptors()) == len(before), f"{before}, not {own_descriptors()}")
    finally:
        shutil.rmtree(temporary)
        tempfile.tempdir = None
        os.environ["TMPDIR"] = original


def on_alarm(*_):
    raise TimeoutError("this test took too long")


original = os.environ.get("TMPDIR", "/tmp")
with tempfile.TemporaryDirectory(prefix="baton-python-") as place:
    assemble(place)
    sys.path.insert(0, place)
    os.environ.update(PYTHONPATH=place, BATON_PROGRAM=BATON, BATON_LIBEXEC=os.environ.get("BATON_LIBEXEC", wire.BUILD))
    import baton
    chosen = [function for function in tests if len(sys.argv) < 2 or function.__name__ in sys.argv[1:]]
    failed = 0
    print(f"1..{len(chosen)}")
    signal.signal(signal.SIGALRM, on_alarm)
    for index, one in enumerate(chosen, 1):
        signal.alarm(int(4 * TIMEOUT))
        try:
            run(one, place)
            print(f"ok {index} - {one.__name__}")
        except Exception:
            failed += 1
            print(f"not ok {index} - {one.__name__}")
            print("# " + traceback.format_exc().replace("\n", "\n# "))
        signal.alarm(0)
        sys.stdout.flush()
sys.exit(failed > 0)
