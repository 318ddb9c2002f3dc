#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Takeovers and deaths of the supervisor in a row, with everything going on at once: calls of attached clients, calls by way of
the supervisor, somebody who follows a log whose lines are numbered, and a new control connection every few milliseconds. Short,
unless BATON_SOAK is set: then 1,000 takeovers and 200 deaths.

A takeover costs nobody anything. A death ends what goes by way of the supervisor, with UNAVAILABLE and nothing else; no
connection is ever refused, and whoever follows a log goes on by himself, with the next line.
"""

import json
import os
import signal
import socket
import subprocess
import time

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from baton_wire import control  # noqa: E402
from daemon_tests import TIMEOUT, Load, descriptors, memory, processes, test, until  # noqa: E402

daemon_tests.LIBEXEC = daemon_tests.CHECKING

LONG = bool(os.environ.get("BATON_SOAK"))
INSTRUMENTED = bool(os.environ.get("BATON_TEST_INSTRUMENTED"))
TAKEOVERS = int(os.environ.get("BATON_TAKEOVERS", "1000" if LONG else "12"))
DEATHS = 200 if LONG else 6
PAUSE = 0.004  # between two connections
ECHO = os.path.join(daemon_tests.BUILD, "baton-runner-echo")
FLEET = f"""
runners:
  native: {{ command: [{ECHO}], ready: hello }}
  counts: {{ command: [sh, -c, "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.002; done"] }}
  rests: {{ command: [sleep, 1001], instances: 10 }}
"""


def connect(daemon):
    """Whatever becomes of the supervisor, the socket is there, and somebody is behind it."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(3 * TIMEOUT)
    connection.connect(os.path.join(daemon.runtime, "control"))
    return wire.Peer(connection, side=1)


def connect_to_next(daemon):
    """The same, where there may be none for a while, or who is there dies: that is told, by the end of the connection."""
    while True:
        try:
            return connect(daemon)
        except (wire.Closed, ConnectionResetError, BrokenPipeError):
            time.sleep(PAUSE)


def supervised(peer, payload):
    """The status of one call; a connection that ends is what a client calls UNAVAILABLE."""
    request = control.CallRequest(name="native", method="echo.Echo/Unary", payload=payload)
    try:
        call = peer.wait(peer.message("baton.Control/Call", request))
    except (wire.Closed, OSError):
        return None
    assert call.status != wire.OK or call.payload == payload, (call.payload, payload)
    return call.status


class Load4:
    """The four of them. @mortal: whoever serves may die."""

    def __init__(self, daemon, mortal):
        self.daemon, self.mortal, self.ended = daemon, mortal, 0
        attacher = connect(daemon)
        call = attacher.wait(attacher.message("baton.Control/Attach", control.AttachRequest(name="native")))
        assert call.status == wire.OK, call.message
        response = control.AttachResponse.FromString(call.payload)
        self.attached = wire.Peer(socket.socket(fileno=call.fds[response.lane]), side=0)
        attacher.lane.close()
        self.peer = connect(daemon)
        self.follower = subprocess.Popen([daemon_tests.BATON, "logs", "-f", "counts"], env=daemon.environment, text=True,
                                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        daemon_tests.owned.add(self.follower.pid)
        self.last = int(self.follower.stdout.readline().split()[-1])
        self.loads = [Load(self.one_attached), Load(self.one_supervised), Load(self.one_connection), Load(self.one_line)]

    def one_attached(self, i):
        assert self.attached.call("echo.Echo/Unary", b"%d" % i).payload == b"%d" % i

    def one_supervised(self, i):
        status = supervised(self.peer, b"%d" % i)
        if status == wire.OK:
            return
        assert self.mortal and status in (None, wire.UNAVAILABLE), status
        self.ended += 1
        if status is None:
            self.peer.lane.close()
            self.peer = connect_to_next(self.daemon)

    def one_connection(self, i):
        peer = connect_to_next(self.daemon) if self.mortal else connect(self.daemon)
        status = supervised(peer, b"new %d" % i)
        assert status == wire.OK or (self.mortal and status in (None, wire.UNAVAILABLE)), status
        peer.lane.close()
        time.sleep(PAUSE)

    def one_line(self, i):
        number = int(self.follower.stdout.readline().split()[-1])
        assert number == self.last + 1, f"line {number} after {self.last}"
        self.last = number

    def end(self):
        counts = [load.end() for load in self.loads]
        assert min(counts) > 0, counts
        self.follower.kill()
        self.follower.wait()
        self.follower.stdout.close()
        daemon_tests.owned.discard(self.follower.pid)
        self.attached.lane.close()
        self.peer.lane.close()
        return dict(zip(("attached", "supervised", "connections", "lines"), counts))


def start(daemon, forgiving=False):
    """@forgiving: every death of a supervisor that has served is the first in a row."""
    if forgiving:
        daemon.configure(FLEET)
        command = [os.path.join(daemon_tests.BUILD, "baton-keeper"), "--runtime-dir", daemon.runtime, "--state-dir",
                   daemon.folder + "/state", "--log-dir", daemon.folder + "/log", "--socket",
                   daemon.runtime + "/control", "--healthy-time=1us", "--restart-delay=1ms", daemon.configuration]
        with open(daemon.log, "ab") as log:
            daemon.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                              env={**daemon.environment, "BATON_LOG_LEVEL": "warning"})
        daemon_tests.owned.add(daemon.process.pid)
        until(lambda: os.path.exists(daemon.runtime + "/control") and daemon.answers(), "an answer")
    else:
        daemon.start(FLEET, BATON_LOG_LEVEL="warning")
    for name in ("native", "counts", "rests.10"):
        daemon.until_state(name, "up")


def settle(daemon, values):
    """Descriptors and memory of the keeper and of who serves, in a quiet moment."""
    keeper, supervisor = daemon.keeper(), daemon.supervisor()
    values.append((descriptors(keeper), descriptors(supervisor), memory(keeper), memory(supervisor)))


def is_constant(values, slack_fds, slack_kib):
    first, last = values[1], values[-1]  # the first of all came without a predecessor
    same = abs(last[0] - first[0]) <= slack_fds and abs(last[1] - first[1]) <= slack_fds
    # What a sanitizer keeps of freed memory and of stacks says nothing.
    return same and (INSTRUMENTED or all(last[i] - first[i] <= slack_kib for i in (2, 3)))


@test
def takeovers(daemon):
    start(daemon)
    before, keeper, values, pauses = processes(daemon), daemon.keeper(), [], []
    load = Load4(daemon, mortal=False)
    for n in range(TAKEOVERS):
        answer = json.loads(daemon.baton("takeover", "--json", timeout=6 * TIMEOUT).stdout)
        assert answer["committed"], answer
        pauses.append(answer["pause_us"])
        if n % 10 == 9:
            daemon.baton("takeover", "--keeper", timeout=6 * TIMEOUT)
        if n % max(TAKEOVERS // 5, 1) == 0:
            settle(daemon, values)
    settle(daemon, values)
    counts = load.end()
    assert processes(daemon) == before and daemon.keeper() == keeper
    assert is_constant(values, 8, 512), values  # a connection or two; what the allocator keeps
    pauses.sort()
    print(f"# {TAKEOVERS} takeovers, {TAKEOVERS // 10} of the keeper; {counts}; none failed, lost or doubled; pause "
          f"{pauses[len(pauses) // 2]} us, at most {pauses[-1]} us; descriptors and KiB of keeper, supervisor: {values}")
    assert daemon.stop() == 0


takeovers.seconds = 1500 if LONG else 24 * TIMEOUT


@test
def deaths(daemon):
    """By SIGKILL, SIGSEGV and SIGABRT in turn."""
    start(daemon, forgiving=True)
    before, keeper, values = processes(daemon), daemon.keeper(), []
    load = Load4(daemon, mortal=True)
    for n in range(DEATHS):
        supervisor = until(lambda: who_serves(daemon), "somebody who serves", 3 * TIMEOUT)
        attached = load.loads[0].count
        os.kill(supervisor, (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)[n % 3])
        until(lambda: (pid := who_serves(daemon)) and pid != supervisor, "the next one", 3 * TIMEOUT)
        until(lambda: load.loads[0].count > attached or load.loads[0].error, "an attached call")
        if n % max(DEATHS // 5, 1) == 0:
            settle(daemon, values)
    settle(daemon, values)
    counts = load.end()
    assert processes(daemon) == before and daemon.keeper() == keeper
    assert is_constant(values, 8, 512), values
    print(f"# {DEATHS} deaths; {counts}, of which {load.ended} supervised ones ended UNAVAILABLE; descriptors and KiB of "
          f"keeper, supervisor: {values}")
    assert daemon.stop() == 0


def who_serves(daemon):
    done = daemon.baton("status", "--json", check=False, timeout=3 * TIMEOUT)
    assert done.returncode in (0, 1, 48), done  # it dies under us, or there is none for a moment
    return json.loads(done.stdout)["supervisor"]["pid"] if done.returncode == 0 else 0


deaths.seconds = 1500 if LONG else 24 * TIMEOUT

daemon_tests.main()
