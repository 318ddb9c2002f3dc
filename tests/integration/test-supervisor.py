#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The supervisor, driven through a private keeper by a client written from the protocol alone (baton_wire.py).

Covers Start, Stop, Signal, Call and Logs; each bad start; strangers at the bootstrap socket; a long TMPDIR; runners that
hang, exit, crash in mid-call; and that nothing is left: no process, no directory, no descriptor, one epoll set for ever.
Every test has a tree and a temporary folder of its own, which must be empty when the tree has ended. TAP on stdout.
"""

import ctypes
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import baton_wire as wire
from baton_wire import control, i64
from tree_tests import Reason, failure, has, main, processes_with, start_python, test, until

ECHO = os.path.join(wire.BUILD, "baton-runner-echo")
PYTHON = sys.executable
INSTRUMENTED = bool(os.environ.get("BATON_TEST_INSTRUMENTED"))
SYS_PIDFD_GETFD, SYS_KCMP = 438, 312
libc = ctypes.CDLL(None, use_errno=True)

EXITED, SIGNALED, DUMPED = control.Exit.EXITED, control.Exit.SIGNALED, control.Exit.DUMPED
# ------------------------------------------------------------------------------------------------------ the main job

@test
def start_call_stop(tree, folder):
    started = tree.start(ECHO)
    assert started.name == "baton-runner-echo.1" and started.pid > 0 and started.software, started
    assert started.instance == (1 << 32) + 1, started
    assert os.listdir(folder) == [], "the bootstrap directory is gone as soon as the runner is in"
    answer = tree.call(started.name, "echo.Echo/Unary", b"hello", "test.Type", metadata=[("key", b"value")])
    assert (answer.status, answer.payload, answer.type) == (wire.OK, b"hello", "test.Type"), vars(answer)
    assert [(pair.key, pair.value) for pair in answer.metadata] == [("key", b"value")]
    stopped = tree.stopped(started.name)
    assert (stopped.exit.how, stopped.exit.status, stopped.killed) == (EXITED, 0, False), stopped
    again = tree.stopped(started.name)
    assert again.already and not stopped.already, "a stop repeated says that nothing was done"
    assert (again.exit, again.killed) == (stopped.exit, stopped.killed), "and how it was that it ended"


@test
def calls_at_once(tree, folder):
    name = tree.start(ECHO).name
    slow = tree.values(name, "echo.Echo/Sleep", 200000, wait=False)
    calls = [tree.call(name, "echo.Echo/Unary", str(n).encode(), wait=False) for n in range(300)]
    for n, call in enumerate(calls):
        assert tree.peer.wait(call).payload == str(n).encode()
    assert not slow.done, "answers come in any order"
    assert tree.peer.wait(slow).status == wire.OK


@test
def calls_sent_before_the_runner_is_there(tree, folder):
    start = tree.begin(ECHO, name="early", wait=False)
    call = tree.call("early", "echo.Echo/Unary", b"queued", wait=False)
    assert tree.peer.wait(call).payload == b"queued", (call.status, call.message)
    assert tree.peer.wait(start).status == wire.OK
    start = tree.begin("/bin/sleep", "600", name="never", start_timeout_us=500000, wait=False)
    call = tree.call("never", "x")
    assert call.status == wire.UNAVAILABLE, vars(call)
    has(call.message, "runner never: start failed: did not connect")
    assert failure(tree.peer.wait(start)).reason == Reason.DID_NOT_CONNECT


@test
def descriptors_both_ways(tree, folder):
    name = tree.start(ECHO).name
    pairs = [socket.socketpair() for _ in range(3)]
    for _ in range(40):  # more than the credit for descriptors in all
        answer = tree.call(name, "echo.Echo/Unary", b"3", fds=[pair[0].fileno() for pair in pairs])
        assert answer.status == wire.OK and len(answer.fds) == 3, vars(answer)
        for pair, fd in zip(pairs, answer.fds):
            with socket.socket(fileno=fd) as back:
                back.sendall(b"x")
                assert pair[1].recv(1) == b"x", "the order is kept"
    for pair in pairs:
        pair[0].close()
        pair[1].settimeout(wire.TIMEOUT)
        assert pair[1].recv(1) == b"", "nobody keeps a copy"
        pair[1].close()


@test
def large_payload(tree, folder):
    name = tree.start(ECHO).name
    data = os.urandom(1 << 20) * 5
    assert tree.call(name, "echo.Echo/Unary", data).payload == data


@test
def statuses_and_details(tree, folder):
    name = tree.start(ECHO).name
    answer = tree.values(name, "echo.Echo/Fail", 5, "no such thing", "test.Detail", b"bytes")
    assert (answer.status, answer.message) == (wire.NOT_FOUND, "no such thing"), vars(answer)
    assert [(detail.type, detail.value) for detail in answer.details] == [("test.Detail", b"bytes")]
    assert tree.call(name, "no.Such/Method").status == wire.UNIMPLEMENTED
    assert tree.call(name, "").status == wire.INVALID_ARGUMENT
    assert tree.call(name, "x" * 256).status == wire.INVALID_ARGUMENT
    assert tree.call(name, "echo.Echo/Unary", b"fine").payload == b"fine"


@test
def cancel_and_deadline(tree, folder):
    name = tree.start(ECHO).name
    call = tree.values(name, "echo.Echo/Sleep", 60000000, wait=False)
    tree.call(name, "echo.Echo/Unary")
    tree.peer.cancel(call)
    assert tree.peer.wait(call).status == wire.CANCELLED
    call = tree.values(name, "echo.Echo/Sleep", 60000000, timeout_us=50000)
    assert call.status == wire.DEADLINE_EXCEEDED, vars(call)
    assert tree.call(name, "echo.Echo/Unary", b"on").payload == b"on"


@test
def a_call_back(tree, folder):
    name = tree.start(ECHO).name
    ping = wire.baton.Ping(nonce=7)
    answer = tree.values(name, "echo.Echo/Call", "baton.Runner/Ping", "baton.Ping", ping.SerializeToString())
    assert answer.status == wire.OK and wire.baton.Ping.FromString(answer.payload) == ping, vars(answer)
    answer = tree.values(name, "echo.Echo/Call", "baton.Nobody/Knows")
    assert answer.status == wire.UNIMPLEMENTED, vars(answer)


# ------------------------------------------------------------------------------------------------------------- names

@test
def names(tree, folder):
    assert [tree.start(ECHO).name for _ in range(2)] == ["baton-runner-echo.1", "baton-runner-echo.2"]
    assert tree.start("/bin/sleep", "60", name="a.b_c-d@1", kind=control.StartRequest.PLAIN).name == "a.b_c-d@1"
    call = tree.begin(ECHO, name="a.b_c-d@1")
    assert call.status == wire.ALREADY_EXISTS, vars(call)
    has(call.message, "a.b_c-d@1")
    for name in ("x" * 64, "a/b", "a b", "ä"):
        assert tree.begin(ECHO, name=name).status == wire.INVALID_ARGUMENT, name
    assert tree.start(ECHO, name="x" * 63).name == "x" * 63
    tree.stopped("a.b_c-d@1")
    assert tree.start(ECHO, name="a.b_c-d@1").name == "a.b_c-d@1", "a name is free when its runner has ended"
    strange = os.path.join(folder, "odd näme")
    os.symlink(ECHO, strange)
    assert tree.start(strange).name == "odd_n__me.1"
    os.unlink(strange)


@test
def bad_requests(tree, folder):
    for name in ("Start", "Stop", "Signal", "Call", "Logs"):
        call = tree.peer.call("baton.Control/" + name, b"\xff\xff")
        assert call.status == wire.INVALID_ARGUMENT, (name, vars(call))
        call = tree.peer.call("baton.Control/" + name, b"", type="baton.Ping")
        assert call.status == wire.INVALID_ARGUMENT, (name, vars(call))
    for method in ("baton.Control/Nothing", "baton.Control/", "Start", "x"):
        assert tree.peer.call(method).status == wire.UNIMPLEMENTED, method
    for call in (tree.stop("nobody"), tree.signal("nobody", 15), tree.call("nobody", "x"), tree.logs("nobody", wait=False)):
        assert tree.peer.wait(call).status == wire.NOT_FOUND, vars(call)
        has(call.message, "runner nobody")
    assert tree.begin("").status == wire.INVALID_ARGUMENT
    assert tree.begin(ECHO, kind=77).status == wire.INVALID_ARGUMENT
    assert tree.begin(ECHO, environment=["no equals sign"]).status == wire.INVALID_ARGUMENT


@test
def a_terminal(tree, folder):
    def begin(program, *fds, kind=control.StartRequest.PLAIN, terminal=True):
        return tree.begin(program, kind=kind, terminal=terminal, fds=fds)

    inner, outer = os.pipe()
    for call, what in ((begin("/bin/sh"), "one descriptor"), (begin("/bin/sh", inner, outer), "one descriptor"),
                       (begin("/bin/sh", inner, terminal=False), "nothing else comes along"),
                       (begin(ECHO, inner, kind=control.StartRequest.NATIVE), "a native runner has no terminal")):
        assert call.status == wire.INVALID_ARGUMENT, vars(call)
        has(call.message, what)
    call = begin("/bin/sh", inner)
    assert failure(call).reason == Reason.SYSTEM, vars(call)
    has(call.message, "ioctl(TIOCSCTTY): Inappropriate ioctl for device")
    os.close(inner)
    os.close(outer)

    master, slave = os.openpty()
    first = begin("/bin/cat", slave)
    assert first.status == wire.OK, vars(first)
    call = begin("/bin/cat", slave)
    assert failure(call).reason == Reason.SYSTEM, vars(call)
    has(call.message, "ioctl(TIOCSCTTY): Operation not permitted")
    os.close(slave)
    os.write(master, b"echoed, and written\n")
    text = b""
    while text.count(b"written\r\n") < 2:
        text += os.read(master, 1000)
    os.write(master, b"\x03")
    try:
        while os.read(master, 1000):
            pass
    except OSError:
        pass  # EIO: nobody, the supervisor neither, has the other side
    os.close(master)
    answer = tree.stopped(control.StartResponse.FromString(first.payload).name)
    assert (answer.exit.how, answer.exit.status) == (control.Exit.SIGNALED, signal.SIGINT), answer


# -------------------------------------------------------------------------------------------------------- bad starts

@test
def bad_starts(tree, folder):
    plain = os.path.join(folder, "not-executable")
    with open(plain, "w", encoding="ascii") as file:
        file.write("#!/bin/sh\n")
    wrong = os.path.join(folder, "wrong-machine")
    with open(ECHO, "rb") as file:
        image = bytearray(file.read(4096))
    image[18:20] = b"\xf3\x00" if image[18] != 0xf3 else b"\x3e\x00"  # e_machine
    with open(wrong, "wb") as file:
        file.write(image)
    text = os.path.join(folder, "text")
    script = os.path.join(folder, "script")
    for path, content in ((text, "nothing\n"), (script, "#!/no/such/interpreter\n")):
        with open(path, "w", encoding="ascii") as file:
            file.write(content)
    for path in (wrong, text, script):
        os.chmod(path, 0o755)
    cases = [
        ("/no/such/program", {}, Reason.NOT_FOUND, "exec(/no/such/program): No such file or directory"),
        ("/etc/passwd/x", {}, Reason.NOT_FOUND, "Not a directory"),
        (plain, {}, Reason.NOT_EXECUTABLE, "Permission denied"),
        (folder, {}, Reason.NOT_EXECUTABLE, "Permission denied"),
        (wrong, {}, Reason.WRONG_FORMAT, "Exec format error"),
        (text, {}, Reason.WRONG_FORMAT, "Exec format error"),
        (script, {}, Reason.NOT_FOUND, "interpreter"),
        (ECHO, {"directory": "/no/such/folder"}, Reason.SYSTEM, "chdir(/no/such/folder): No such file or directory"),
    ]
    for kind in (control.StartRequest.NATIVE, control.StartRequest.PLAIN):
        for program, fields, reason, what in cases:
            call = tree.begin(program, name="bad", kind=kind, **fields)
            assert failure(call).reason == reason, (program, vars(call))
            has(call.message, "runner bad: start failed at ", what)
            assert tree.stop("bad").status == wire.NOT_FOUND, "nothing is left of it"
    for path in (plain, wrong, text, script):
        os.unlink(path)


@test
def exits_at_once(tree, folder):
    call = tree.begin("/bin/sh", "-c", "echo one; echo two >&2; echo 'a\\377b'; printf unfinished; exit 3", name="quick")
    detail = failure(call)
    assert (detail.reason, detail.exit.how, detail.exit.status) == (Reason.EXITED_EARLY, EXITED, 3), detail
    assert sorted(detail.last_output) == ["a?b", "one", "two", "unfinished"], detail
    has(call.message, "runner quick: start failed: exited with status 3 before it connected")
    call = tree.begin("/bin/sh", "-c", "kill -SEGV $$", name="quick")
    assert failure(call).exit.status == signal.SIGSEGV
    has(call.message, "killed by signal 11 (SIGSEGV)")


@test
def hangs_before_connecting(tree, folder):
    seconds = wire.TIMEOUT / 20  # in which it has said its word
    call = tree.begin("/bin/sh", "-c", "echo here; sleep 600 & exec sleep 600", name="hang", start_timeout_us=int(seconds * 1e6))
    detail = failure(call)
    assert (detail.reason, detail.exit.how, detail.exit.status) == (Reason.DID_NOT_CONNECT, SIGNALED, 9), detail
    assert list(detail.last_output) == ["here"], detail
    has(call.message, f"runner hang: start failed: did not connect within {seconds:g} s")
    until(lambda: len(processes_with(folder)) == 2, "the end of its whole group")


@test
def connects_and_says_nothing(tree, folder):
    call = start_python(tree, "lane = connect(); time.sleep(600)", name="mute", start_timeout_us=int(wire.TIMEOUT / 20 * 1.5e6))
    assert failure(call).reason == Reason.DID_NOT_CONNECT, vars(call)
    has(call.message, "runner mute: start failed: connected, but said no Hello")


@test
def speaks_garbage(tree, folder):
    code = "lane = connect(); lane.sendall(b'x' * 7); print('sent', flush=True); time.sleep(600)"
    call = start_python(tree, code, name="garbage")
    assert call.status == wire.UNAVAILABLE and list(failure(call).last_output) == ["sent"], vars(call)
    has(call.message, "runner garbage: start failed", "lane")


@test
def stops_while_starting(tree, folder):
    start = tree.begin("/bin/sleep", "600", name="slow", wait=False)
    stop = tree.stop("slow", wait=False)
    assert tree.peer.wait(start).status == wire.UNAVAILABLE
    has(start.message, "stopped before it was up")
    assert tree.peer.wait(stop).status == wire.OK
    start = tree.begin("/bin/sleep", "600", name="slow", wait=False)
    tree.peer.cancel(start)
    assert tree.peer.wait(start).status == wire.CANCELLED
    until(lambda: tree.stop("slow").status == wire.NOT_FOUND, "the end of a cancelled start")


# ------------------------------------------------------------------------------------------------------ the way in

def bootstrap_path(tree, name):
    return tree.logs(name, wait_for_line=True).lines[0].text.decode()


@test
def a_stranger_comes_first(tree, folder):
    go = os.path.join(folder, "go")
    start = tree.begin("/bin/sh", "-c", f"echo $BATON_BOOTSTRAP; while ! [ -e {go} ]; do sleep 0.01; done; exec {ECHO}",
                       name="guarded", wait=False)
    path = bootstrap_path(tree, "guarded")
    directory = os.stat(os.path.dirname(path))
    assert stat.S_IMODE(directory.st_mode) == 0o711 and directory.st_uid == os.getuid()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    for _ in range(3):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
            stranger.settimeout(wire.TIMEOUT)
            stranger.connect(path)
            assert stranger.recv(1) == b"", "a stranger is closed"
    with open(go, "w", encoding="ascii"):
        pass
    assert tree.peer.wait(start).status == wire.OK, vars(start)
    os.unlink(go)
    assert tree.call("guarded", "echo.Echo/Unary", b"in").payload == b"in"
    line = f"runner guarded: refused a connection to its bootstrap socket from uid {os.getuid()}, pid {os.getpid()}"
    assert tree.log().count(line) == 3, tree.log()
    assert not os.path.exists(path)


@test
def a_second_connection(tree, folder):
    code = """
first = connect()
try:
    print("second:", connect().recv(1), flush=True)
except (ConnectionError, FileNotFoundError) as error:
    print("second:", type(error).__name__, flush=True)
while os.path.exists(os.environ["BATON_BOOTSTRAP"]):
    time.sleep(0.001)
import baton_wire
peer = baton_wire.Peer(first, side=1, channels=3)
try:
    while True:
        peer.turn(60)
except baton_wire.Closed:
    pass
"""
    call = start_python(tree, code, name="twice")
    assert call.status == wire.OK, vars(call)
    line = tree.logs("twice").lines[0].text
    closed = line == b"second: b''"
    assert closed or line in (b"second: FileNotFoundError", b"second: ConnectionRefusedError"), line
    assert ("runner twice: refused a connection" in tree.log()) == closed, tree.log()


@test
def a_long_tmpdir(tree, folder):
    long = os.path.join(folder, *["d" * 100] * 4)
    os.makedirs(long)
    other = wire.Tree({"TMPDIR": long})
    try:
        name = other.start(ECHO).name
        assert other.call(name, "echo.Echo/Unary", b"far").payload == b"far"
        assert other.begin("/bin/true").status == wire.UNAVAILABLE
        assert os.listdir(long) == []
    finally:
        assert other.end() == 0
    while long != folder:
        os.rmdir(long)
        long = os.path.dirname(long)


# --------------------------------------------------------------------------------------------------- ends of runners

@test
def dies_in_mid_call(tree, folder):
    for method, argument, how, status, text in (
            ("echo.Echo/Crash", 11, (SIGNALED, DUMPED), 11, "killed by signal 11 (SIGSEGV)"),
            ("echo.Echo/Crash", 9, (SIGNALED,), 9, "killed by signal 9 (SIGKILL)"),
            ("echo.Echo/Exit", 5, (EXITED,), 5, "exited with status 5")):
        name = tree.start(ECHO).name
        tree.values(name, "echo.Echo/Output", "last words")
        sleeping = [tree.values(name, "echo.Echo/Sleep", 60000000, wait=False) for _ in range(3)]
        call = tree.values(name, method, i64(argument))
        for one in [call] + sleeping:
            tree.peer.wait(one)
            assert one.status == wire.UNAVAILABLE, vars(one)
            has(one.message, f"runner {name}: {text}")
            detail = one.detail(control.RunnerEnded)
            assert detail.exit.how in how and detail.exit.status == status and detail.name == name, detail
            assert "last words" in detail.last_output, detail
        call = tree.call(name, "echo.Echo/Unary")
        assert call.status == wire.FAILED_PRECONDITION, vars(call)
        has(call.message, f"runner {name}: is not running", text)
        assert call.detail(control.RunnerEnded).exit.status == status
        assert tree.signal(name, 15).status == wire.FAILED_PRECONDITION
        stopped = tree.stopped(name)
        assert stopped.exit.status == status and not stopped.killed, stopped


@test
def is_killed_by_others(tree, folder):
    started = tree.start(ECHO)
    call = tree.values(started.name, "echo.Echo/Sleep", 60000000, wait=False)
    tree.call(started.name, "echo.Echo/Unary")  # behind it: the runner has both
    os.kill(started.pid, signal.SIGKILL)
    assert tree.peer.wait(call).status == wire.UNAVAILABLE
    has(call.message, "killed by signal 9 (SIGKILL)")


@test
def closes_its_lane_and_stays(tree, folder):
    code = """
import baton_wire, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
lane = connect()
close = lambda call: (lane.shutdown(socket.SHUT_RDWR), time.sleep(600))
peer = baton_wire.Peer(lane, side=1, channels=3, on_call=close)
while True:
    peer.turn(60)
"""
    assert start_python(tree, code, name="zombie").status == wire.OK
    call = tree.call("zombie", "anything")
    assert call.status == wire.UNAVAILABLE, vars(call)
    has(call.message, "runner zombie:", "lane")
    stopped = tree.stopped("zombie", timeout_us=100000)
    assert stopped.killed and stopped.exit.status == 9, stopped


@test
def plain_runners(tree, folder):
    plain = control.StartRequest.PLAIN
    assert tree.start("/bin/sh", "-c", "trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.01; done",
                      name="sh", kind=plain).software == ""
    assert tree.logs("sh", wait_for_line=True).lines[0].text == b"ready"
    call = tree.call("sh", "x")
    assert call.status == wire.FAILED_PRECONDITION, vars(call)
    for bad in (0, -1, 65, 1000):
        assert tree.signal("sh", bad).status == wire.INVALID_ARGUMENT
    assert tree.signal("sh", signal.SIGUSR1).status == wire.OK
    lines, last = tree.all_logs("sh")
    said = [line.text for line in lines if line.source == control.LogLine.STDOUT]  # it also laments its dead `sleep'
    assert said == [b"ready", b"got"] and last.exit.status == 9, (lines, last)
    tree.start("/bin/sleep", "600", name="sleep", kind=plain)
    stopped = tree.stopped("sleep")
    assert (stopped.exit.how, stopped.exit.status, stopped.killed) == (SIGNALED, 15, False), stopped
    tree.start("/bin/sh", "-c", "trap '' TERM; sleep 600 & echo ready; while :; do sleep 0.01; done", name="stubborn",
               kind=plain)
    tree.logs("stubborn", wait_for_line=True)
    stopped = tree.stopped("stubborn", timeout_us=100000)
    assert (stopped.exit.how, stopped.exit.status, stopped.killed) == (SIGNALED, 9, True), stopped
    until(lambda: len(processes_with(folder)) == 2, "the end of the whole group")


@test
def environment_and_directory(tree, folder):
    call = tree.begin("/bin/sh", "-c", "pwd; env; echo $0 $1; ls -l /proc/self/fd | wc -l", "b", name="env", kind=1,
                      environment=["A=1", "BATON_BOOTSTRAP=lie", "PATH=" + os.environ["PATH"]], directory="/usr")
    assert call.status == wire.OK, vars(call)
    text = b"\n".join(line.text for line in tree.all_logs("env")[0]).decode()
    assert "A=1" in text and "lie" not in text and text.startswith("/usr\n"), text
    assert text.endswith("\n5"), text  # 0, 1, 2 and the folder itself, below a heading


@test
def any_bytes_but_zero(tree, folder):
    """What the kernel takes as strings is not text: program, arguments, variables, directory."""
    odd = os.path.join(os.fsencode(folder), b"d\xff\xc3")
    os.mkdir(odd)
    program = os.path.join(odd, b"sh\xe4")
    os.symlink(b"/bin/sh", program)
    try:
        call = tree.begin(program, "-c", 'printf "%s %s %s" "$0" "$V" "$PWD"', b"a\xfe", name="odd", kind=1,
                          environment=[b"V=\x80\xff"], directory=odd)
        assert call.status == wire.OK, vars(call)
        text = b"".join(line.text for line in tree.all_logs("odd")[0])
        assert text == b"a\xfe \x80\xff " + os.path.realpath(odd), text
        derived = tree.begin(program, "-c", "exit 0", kind=1)
        assert control.StartResponse.FromString(derived.payload).name == "sh_.1", vars(derived)
        missing = tree.begin(odd + b"/none", kind=1)
        assert failure(missing).reason == Reason.NOT_FOUND
        has(missing.message, "/d??/none")
    finally:
        os.unlink(program)
        os.rmdir(odd)
    for fields in (dict(program=b"/bin/a\0b"), dict(program=ECHO, directory=b"/\0"),
                   dict(program=ECHO, environment=[b"A=b\0c"])):
        refused = tree.begin(fields.pop("program"), **fields)
        assert refused.status == wire.INVALID_ARGUMENT, vars(refused)
        has(refused.message, "has no byte 0 in it")
    assert tree.begin(ECHO, b"a\0").status == wire.INVALID_ARGUMENT


# -------------------------------------------------------------------------------------------------------------- logs

@test
def logs(tree, folder):
    tree.start("/bin/sh", "-c", "echo out; echo err >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; printf end",
               name="lines", kind=1)
    lines, last = tree.all_logs("lines")
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1)) and last.dropped == 0, lines
    out = [line for line in lines if line.source == control.LogLine.STDOUT]
    assert [(len(line.text), line.partial) for line in out] == [(3, False), (16384, True), (16384, True), (7232, False),
                                                                (3, False)], out
    assert [line.text for line in lines if line.source == control.LogLine.STDERR] == [b"err"]
    assert all(abs(line.time_us / 1e6 - time.time()) < 60 for line in lines)
    some = tree.logs("lines", 2, max_records=2)
    assert [line.seq for line in some.lines] == [2, 3] and some.next_seq == 4 and not some.ended, some
    beyond = tree.logs("lines", 1000)
    assert not beyond.lines and beyond.next_seq == 1000 and beyond.ended, beyond


@test
def more_output_than_is_kept(tree, folder):
    tree.start("/bin/sh", "-c", "seq 1 200000", name="many", kind=1)
    until(lambda: tree.logs("many", 1 << 60).ended, "its end")
    first = tree.logs("many", max_records=1)
    assert first.dropped > 0 and first.lines[0].seq == first.dropped + 1, first
    assert first.lines[0].text == str(first.lines[0].seq).encode(), first
    lines, last = tree.all_logs("many")
    assert lines[-1].text == b"200000" and last.next_seq == 200001, last
    assert [int(line.text) for line in lines] == list(range(lines[0].seq, 200001))


@test
def parked_output(tree, folder):
    """The runner waits for the follower, not for one that is gone."""
    tree.start("/bin/sh", "-c", "seq 1 300000; echo end", name="parked", kind=1, park_output=True)
    first = tree.logs("parked", wait_for_line=True)
    assert not tree.logs("parked", 1 << 60).ended, "it cannot end before it is read"
    lines, last = tree.all_logs("parked")
    assert last.dropped == 0 and [line.seq for line in lines] == list(range(1, 300002)), last
    assert first.lines[0].text == b"1" and lines[-1].text == b"end"
    tree.start("/bin/sh", "-c", "seq 1 300000; sleep 600", name="left", kind=1, park_output=True)
    assert tree.logs("left", wait_for_line=True).lines[0].seq == 1
    waiting = tree.logs("left", 1 << 60, wait_for_line=True, wait=False)
    tree.peer.cancel(waiting)
    assert tree.peer.wait(waiting).status == wire.CANCELLED
    until(lambda: tree.logs("left", 300000).lines, "the last line, which nobody waited for")
    assert tree.logs("left", 1, max_records=1).dropped > 0
    tree.stopped("left", timeout_us=100000)


@test
def records(tree, folder):
    name = tree.start(ECHO).name
    follower = tree.logs(name, wait_for_line=True, wait=False)
    assert tree.values(name, "echo.Echo/Log", 3, "message").status == wire.OK
    got = control.LogsResponse.FromString(tree.peer.wait(follower).payload)
    lines = list(got.lines)
    while len(lines) < 3:
        got = tree.logs(name, got.next_seq, wait_for_line=True)
        lines += got.lines
    assert all(line.source == control.LogLine.RECORD and b"message" in line.text for line in lines), lines
    assert lines[0].target == "echo" and lines[0].file and lines[0].line > 0 and lines[0].level > 0, lines[0]
    waiting = tree.logs(name, got.next_seq, wait_for_line=True, wait=False)
    cancelled = tree.logs(name, got.next_seq, wait_for_line=True, wait=False)
    tree.peer.cancel(cancelled)
    assert tree.peer.wait(cancelled).status == wire.CANCELLED
    tree.stopped(name)
    end = control.LogsResponse.FromString(tree.peer.wait(waiting).payload)
    while not end.ended:  # what it said last
        end = tree.logs(name, end.next_seq, wait_for_line=True)
    assert end.exit.how == EXITED, end


@test
def records_twice(tree, folder):
    code = """
import baton_wire
from baton_wire import baton
peer = baton_wire.Peer(connect(), side=1, channels=3)
def write(first, *texts):
    records = [baton.LogRecord(text=text, level=6) for text in texts]
    call = peer.call("baton.Log/Write", baton.LogWrite(first_seq=first, records=records).SerializeToString())
    print(first, call.status, call.message, flush=True)
write(1, "a", "b")
write(1, "a", "b")
write(2, "b", "c")
write(0, "never")
for channel in (1, 2):
    print(channel, peer.call("x", channel=channel).status, flush=True)
print("done", flush=True)
time.sleep(600)
"""
    assert start_python(tree, code, name="writer").status == wire.OK
    lines, next_seq = [], 0
    while not any(line.text == b"done" for line in lines):
        got = tree.logs("writer", next_seq, wait_for_line=True)
        next_seq = got.next_seq
        lines += got.lines
    assert [line.text for line in lines if line.source == control.LogLine.RECORD] == [b"a", b"b", b"c"], lines
    said = [line.text.decode() for line in lines if line.source == control.LogLine.STDOUT]
    assert said[:3] == ["1 0 ", "1 0 ", "2 0 "] and said[3].startswith("0 3 ") and said[4:6] == ["1 12", "2 12"], said


# ------------------------------------------------------------------------------------------------- nothing is left

def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def until_done(tree, name):
    """Whatever ended is gone from keeper and supervisor: whoever stops a runner is told before its descriptors are dropped,
    closed, and the end acknowledged. A signal goes by way of the keeper, which answers in order: one for each of these."""
    for _ in range(3):
        assert tree.signal(name, signal.SIGCONT).status == wire.OK


def resident(pid):
    """KiB of its own memory: what it shares is counted less or more as others come and go."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))


def zombies(parent):
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) == parent:
            found.append(int(entry))
    return found


def epoll_set(pid):
    """A duplicate of a process's epoll descriptor, and its number there."""
    for entry in os.listdir(f"/proc/{pid}/fd"):
        if os.readlink(f"/proc/{pid}/fd/{entry}") == "anon_inode:[eventpoll]":
            pidfd = os.pidfd_open(pid)
            fd = libc.syscall(SYS_PIDFD_GETFD, pidfd, int(entry), 0)
            os.close(pidfd)
            return fd, int(entry)
    raise AssertionError("no epoll set")


@test
def a_thousand_starts_and_stops(tree, folder):
    rounds, supervisor = 100 if INSTRUMENTED else 1000, tree.supervisor_pid()

    def cycle(n):
        if n % 8 == 0:  # it dies by itself
            name = tree.start(ECHO).name
            tree.values(name, "echo.Echo/Crash", i64(9))
            tree.stopped(name)
        elif n % 8 == 1:  # it never comes up
            assert tree.begin("/bin/false").status == wire.UNAVAILABLE
        elif n % 8 == 2:
            assert tree.begin("/no/such/program").status == wire.UNAVAILABLE
        elif n % 8 == 3:
            tree.stopped(tree.start("/bin/sleep", "600", kind=1).name)
        else:
            name = tree.start(ECHO).name
            assert tree.call(name, "echo.Echo/Unary", b"x").payload == b"x"
            tree.stopped(name)

    for n in range(48):  # the tables have their sizes, the ended runners that are remembered are there
        cycle(n)
    rests = tree.start("/bin/sleep", "600", kind=1).name
    until_done(tree, rests)
    before = descriptors(supervisor), descriptors(tree.keeper.pid), resident(supervisor)
    ours, number = epoll_set(supervisor)
    for n in range(rounds):
        cycle(n)
    same = libc.syscall(SYS_KCMP, os.getpid(), supervisor, 0, ours, number)
    os.close(ours)
    until_done(tree, rests)
    after = descriptors(supervisor), descriptors(tree.keeper.pid), resident(supervisor)
    print(f"# {rounds} rounds: descriptors {before[:2]} before, {after[:2]} after; {before[2]} and {after[2]} KiB")
    assert after[:2] == before[:2], (before, after)
    assert same == 0, "libev has made a new epoll set"
    # 128 KiB are the ring of events, which fills up
    assert INSTRUMENTED or after[2] <= before[2] + 128 + 192, "memory grows"
    assert not zombies(tree.keeper.pid)


@test
def many_at_once(tree, folder):
    tree.stopped(tree.start(ECHO).name)  # the keeper has done with its own start, too
    rests, supervisor = tree.start("/bin/sleep", "600", kind=1).name, tree.supervisor_pid()
    until_done(tree, rests)
    before = descriptors(supervisor), descriptors(tree.keeper.pid)
    starts = [tree.begin(ECHO, name=f"n{n}", wait=False) for n in range(100)]
    for call in starts:
        assert tree.peer.wait(call).status == wire.OK, vars(call)
    assert tree.call("n77", "echo.Echo/Unary", b"x").payload == b"x"
    for call in [tree.stop(f"n{n}", wait=False) for n in range(100)]:
        assert tree.peer.wait(call).status == wire.OK, vars(call)
    until_done(tree, rests)
    assert (descriptors(supervisor), descriptors(tree.keeper.pid)) == before


@test
def the_client_goes(tree, folder):
    other = wire.Tree()
    for n in range(3):
        other.start(ECHO)
    other.start("/bin/sh", "-c", "sleep 600 & exec sleep 600", kind=1)
    other.begin("/bin/sleep", "600", wait=False)
    other.values("baton-runner-echo.1", "echo.Echo/Sleep", 60000000, wait=False)
    other.logs("baton-runner-echo.2", wait_for_line=True, wait=False)
    assert other.end() == 0
    until(lambda: len(processes_with(folder)) == 2, "the end of everything but this test's own tree")


@test
def sigterm(tree, folder):
    other = wire.Tree(stop_timeout="2s")
    other.start("/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.01; done", kind=1)
    other.start(ECHO)
    other.keeper.terminate()
    assert other.keeper.wait(wire.TIMEOUT) in (0, -signal.SIGTERM, 128 + signal.SIGTERM), other.keeper.returncode
    other.end()
    until(lambda: len(processes_with(folder)) == 2, "the end of everything but this test's own tree")


@test
def started_by_hand(tree, folder):
    program = os.path.join(wire.BUILD, "baton-supervisor")
    for arguments, text in (([], "--generation is missing"), (["--generation=0"], "--generation wants a number from 1"),
                            (["--generation=1", "--private"], "the keeper's socket is missing"),
                            (["--generation=1"], "--private, or --runtime-dir, --state-dir, --log-dir and --socket are"),
                            (["--generation=1", "--private", "x"], "no arguments"),
                            (["--generation=1", "--stop-timeout=x"], "--stop-timeout wants a duration")):
        result = subprocess.run([program, *arguments], capture_output=True, check=False, stdin=subprocess.DEVNULL)
        assert result.returncode == 2, result
        has(result.stderr.decode().rstrip("\n"), "baton-supervisor: ", text, "baton-keeper")
    for option in ("--help", "--version"):
        result = subprocess.run([program, option], capture_output=True, check=False)
        assert result.returncode == 0 and result.stdout and not result.stderr, result


main("baton-supervisor-")
