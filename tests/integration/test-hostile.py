#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runners and clients that mean harm to the others. Whatever they do, who calls another runner is answered in time, memory and
descriptors of supervisor and keeper are what they were, and a line or two tell who it was. TAP on stdout.
"""

import json
import os
import signal
import socket
import struct
import sys

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from daemon_tests import BUILD, is_alive, main, test, until  # noqa: E402

daemon_tests.LIBEXEC = daemon_tests.CHECKING
HERE = os.path.dirname(os.path.abspath(__file__))
ECHO = f"  echo: {{ command: [{BUILD}/baton-runner-echo], ready: hello }}\n"

# What each of them begins with. A word of the test comes by a fifo, and is waited for.
PROGRAM = f"""
import array, os, signal, socket, struct, sys
sys.path.insert(0, {HERE!r})
folder = {{folder!r}}

def send(one, data, *fds):
    one.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])

def await_test():
    with open(folder + "/fifo") as file:
        file.read()

def native(**hello):
    import baton_wire
    lane = socket.socket(socket.AF_UNIX)
    lane.connect(os.environ["BATON_BOOTSTRAP"])
    return baton_wire.Peer(lane, channels=3, **hello)
"""


class Scene:
    """A daemon with a good runner, echo, and a client that calls it; and with bad ones."""

    def __init__(self, daemon, **bad):
        """Of each bad one: (its code, its configuration)."""
        self.daemon, text = daemon, ""
        for name, (code, configuration) in bad.items():
            path = os.path.join(daemon.folder, name + ".py")
            with open(path, "w", encoding="utf-8") as file:
                file.write(PROGRAM.format(folder=daemon.folder) + code)
            text += f"  {name}: {{ command: [{sys.executable}, {path}], restart: never, autostart: false, {configuration} }}\n"
        os.mkfifo(os.path.join(daemon.folder, "fifo"))
        daemon.start("runners:\n" + ECHO + text)
        daemon.until_state("echo", "up")
        self.supervisor = daemon.supervisor()
        self.client = self.connect()
        self.echo()

    def connect(self):
        lane = socket.socket(socket.AF_UNIX)
        lane.connect(self.daemon.environment["BATON_SOCKET"])
        return wire.Peer(lane)

    def echo(self):
        """A call to the good one, which is answered."""
        request = wire.control.CallRequest(name="echo", method="echo.Echo/Unary", payload=b"x")
        call = self.client.wait(self.client.message("baton.Control/Call", request))
        assert (call.status, call.payload) == (wire.OK, b"x"), (call.status, call.message)

    def tell(self):
        """The bad one goes on."""
        with open(os.path.join(self.daemon.folder, "fifo"), "w", encoding="ascii"):
            pass


# ------------------------------------------------------------------------------------------------------- descriptors


# A socket that lingers for an hour: nobody reads what it was sent, and whoever closes it last waits.
LINGERING = """
kept = []  # up to the exit, which waits for nothing

def lingering():
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    one.connect(("127.0.0.1", {port}))
    one.setblocking(False)
    try:
        while True:
            one.send(bytes(65536))
    except BlockingIOError:
        pass
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    kept.append(one)
    return one.fileno()

def hidden():
    "In a message that nobody has read yet."
    ours, theirs = socket.socketpair()
    send(ours, b"x", lingering())
    kept.append(theirs)
    return theirs.fileno()
"""
BY_LANE = """
peer = native()
await_test()
send(peer.lane, struct.pack("<Q", 7), lingering())
send(peer.lane, struct.pack("<Q", 9), hidden())
send(peer.lane, struct.pack("<Q", 11), lingering(), hidden(), lingering(), lingering())
send(peer.lane, struct.pack("<Q", 13), lingering())
"""
BY_CHANNEL = """
peer = native()
await_test()
send(peer.channels[0], bytes([0, 0, 0, 8]), lingering())
send(peer.channels[0], bytes([0, 0, 0, 4]), hidden())
"""
BY_NOTIFICATION = """
one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
one.connect(os.environ["NOTIFY_SOCKET"])
one.send(b"READY=1")
await_test()
send(one, b"FDSTORE=1", lingering(), hidden())
send(one, b"STATUS=x", lingering(), hidden())
send(one, b"FDSTORE=1", lingering())
"""


def sockets(pid):
    """How many it has open. What is kept of a runner, such as its log, is another matter."""
    def name(fd):
        try:
            return os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:  # it was closed meanwhile
            return ""
    return sum(name(fd).startswith("socket:") for fd in os.listdir(f"/proc/{pid}/fd"))


@test
def sockets_that_linger(daemon):
    """Whoever closes the last descriptor of one waits for an hour, unless he knows better."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    program = LINGERING.format(port=listener.getsockname()[1])
    native = "ready: hello, channels: [filesystem, data]"
    scene = Scene(daemon, lane=(program + BY_LANE, native), channel=(program + BY_CHANNEL, native),
                  notification=(program + BY_NOTIFICATION, "ready: notify, fd_store: { max: 2 }"))
    before = sockets(scene.supervisor), sockets(daemon.keeper())
    for is_killed in (False, True):
        for name in ("lane", "channel", "notification"):
            daemon.baton("start", name)
            pid, supervisor = daemon.until_state(name, "up")["pid"], daemon.supervisor()
            os.kill(supervisor, signal.SIGSTOP)  # so that the last descriptors are those that it is sent
            scene.tell()
            until(lambda: not is_alive(pid), "its end")
            os.kill(supervisor, signal.SIGKILL if is_killed else signal.SIGCONT)
            if is_killed:
                until(lambda: not is_alive(supervisor) and daemon.answers(), "the next supervisor")
            state = until(lambda: (s := daemon.status(name)["state"]) in ("done", "failed", "stopped") and s, "its state")
            assert daemon.pid("echo"), state
            if not is_killed:
                scene.echo()
    assert daemon.supervisor() != scene.supervisor
    until(lambda: sockets(daemon.supervisor()) <= before[0] and sockets(daemon.keeper()) <= before[1],
          "that nothing of them is left")


BY_THE_THOUSAND = """
one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
one.connect(os.environ["NOTIFY_SOCKET"])

def barrier():
    ours, theirs = os.pipe()
    send(one, b"BARRIER=1", theirs)
    os.close(theirs)
    os.read(ours, 1)

fds = [os.eventfd(0) for _ in range(1000)]
for i in range(0, 1000, 250):
    send(one, b"FDSTORE=1\\nFDNAME=a", *fds[i:i + 250])
one.send(b"READY=1")
while True:
    await_test()
    for _ in range(20):
        send(one, b"FDSTORE=1\\nFDNAME=b", *fds[-250:])
    send(one, b"FDSTORE=1\\nFDNAME=b", os.eventfd(0))
    barrier()
    one.send(b"STATUS=done")
"""


@test
def descriptors_stored_again_and_again(daemon):
    """Each counts once, whoever supervises; and to find that out does not take as long as there are descriptors."""
    scene = Scene(daemon, bad=(BY_THE_THOUSAND, "ready: notify, fd_store: { max: 1024 }"))
    daemon.baton("start", "bad")

    def stored():
        return json.loads(daemon.baton("fds", "bad", "--json").stdout)["fds"]
    for more in (1, 2):
        scene.tell()
        until(lambda: len(stored()) == 1000 + more and daemon.status("bad").get("status_text") == "done", "what is stored")
        assert [fd["name"] for fd in stored()] == 1000 * ["a"] + more * ["b"]
        daemon.baton("takeover")


# --------------------------------------------------------------------------------------------------------------- words


RULES_BROKEN = """
import baton_wire
from baton_wire import baton
peer = native()
await_test()
peer.send(0, baton.Envelope(kind=baton.CLOSE, status=3, message="\\x1b]0;mine\\x07 \\u009b31m\\nbaton-supervisor: error: all is lost"))
"""
TOO_MANY_RECORDS = """
from baton_wire import baton
peer = native()
def write(first, n):
    records = [baton.LogRecord(level=6, text="x")] * n
    return peer.wait(peer.message("baton.Log/Write", baton.LogWrite(first_seq=first, records=records))).status
assert write(1, 4096) == 0
assert write(4097, 4097) == 3
assert write(4097, 500000) == 3
assert write(4097, 1) == 0
await_test()
"""


@test
def who_broke_the_rules_is_said(daemon):
    """Also of one that then ends by itself; and what it says itself stays in its line, and moves no terminal."""
    scene = Scene(daemon, bad=(RULES_BROKEN, "ready: hello, channels: [filesystem, data]"))
    daemon.baton("start", "bad")
    scene.tell()
    until(lambda: daemon.status("bad")["state"] in ("done", "failed"), "its end")
    said = [line for line in daemon.said().splitlines() if "its connection ended: INVALID_ARGUMENT" in line]
    assert len(said) >= 1 and "runner bad: " in said[0], daemon.said()
    assert not [line for line in daemon.said().splitlines() if line.startswith("baton-supervisor: error: all is lost")]
    assert not any(c < " " and c != "\n" or "\x7f" <= c < "\xa0" for c in daemon.said()), ascii(daemon.said())
    scene.echo()


@test
def too_many_records(daemon):
    """What is taken in one turn of the loop is bounded."""
    scene = Scene(daemon, bad=(TOO_MANY_RECORDS, "ready: hello, channels: [filesystem, data], log: { ring_size: 1M }"))
    daemon.baton("start", "bad")
    until(lambda: daemon.status("bad")["log"]["lines"] == 4097, "the good ones")
    scene.echo()
    scene.tell()
    until(lambda: daemon.status("bad")["state"] == "done", "its end")


if __name__ == "__main__":
    main()
