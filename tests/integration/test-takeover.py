#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Takeover: one supervisor follows another that lives, under load. Calls by way of the supervisor and calls of attached clients
go on, whoever follows a log misses no line and reads none twice, new connections are served by whoever is there, and
processes and descriptors stay what they were. What fails changes nothing, and says why.
"""

import json
import os
import random
import resource
import signal
import socket
import subprocess
import time

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from baton_wire import control  # noqa: E402
from daemon_tests import TIMEOUT, Load, is_alive, memory, processes, test, until, until_alone  # noqa: E402

daemon_tests.LIBEXEC = daemon_tests.CHECKING

ECHO = os.path.join(daemon_tests.BUILD, "baton-runner-echo")
FLEET = f"""
runners:
  native: {{ command: [{ECHO}], ready: hello }}
  counts: {{ command: [sh, -c, "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.002; done"] }}
  rests: {{ command: [sleep, 1001] }}
"""
MANY = 1000 if os.environ.get("BATON_SOAK") else 300
ROW = int(os.environ.get("BATON_TAKEOVERS", "1000" if os.environ.get("BATON_SOAK") else "10"))


def connect(daemon):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.path.join(daemon.runtime, "control"))
    return wire.Peer(connection, side=1)


class Streaming(wire.Peer):
    """A connection that keeps the items of its one stream."""

    def __init__(self, daemon):
        self.items = []
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(os.path.join(daemon.runtime, "control"))
        super().__init__(connection, side=1, stream_window=1 << 16)

    def handle(self, number, envelope, payload):
        if envelope.kind == wire.baton.ITEM and payload:
            self.items.append(payload)
        else:
            super().handle(number, envelope, payload)


def take_over(daemon, *options):
    return json.loads(daemon.baton("takeover", "--json", *options).stdout)


def start(daemon):
    daemon.start(FLEET, BATON_LOG_LEVEL="info")
    for name in ("native", "counts", "rests"):
        daemon.until_state(name, "up")


def call_native(peer, payload):
    request = control.CallRequest(name="native", method="echo.Echo/Unary", payload=payload)
    call = peer.wait(peer.message("baton.Control/Call", request))
    assert call.status == wire.OK and call.payload == payload, (call.status, call.message)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@test
def a_row_under_load(daemon):
    start(daemon)
    before, keeper = processes(daemon), daemon.keeper()
    supervised, attacher = connect(daemon), connect(daemon)
    call = attacher.wait(attacher.message("baton.Control/Attach", control.AttachRequest(name="native")))
    assert call.status == wire.OK, call.message
    response = control.AttachResponse.FromString(call.payload)
    attached = wire.Peer(socket.socket(fileno=call.fds[response.lane]), side=0)

    def one_attached(i):
        assert attached.call("echo.Echo/Unary", b"%d" % i).payload == b"%d" % i

    def one_connection(i):
        peer = connect(daemon)
        call_native(peer, b"new %d" % i)
        peer.lane.close()

    follower = subprocess.Popen([daemon_tests.BATON, "logs", "-f", "counts"], env=daemon.environment, text=True,
                                stdout=subprocess.PIPE)
    daemon_tests.owned.add(follower.pid)
    first = int(follower.stdout.readline().split()[-1])
    loads = [Load(lambda i: call_native(supervised, b"%d" % i)), Load(one_attached), Load(one_connection)]
    former = take_over(daemon)["former_pid"]  # from here on there is nothing that is made for the first time
    until(lambda: not is_alive(former), "the end of the predecessor")
    pids, fds = [], descriptors(keeper)
    for _ in range(ROW):
        answer = take_over(daemon)
        assert answer["committed"] and answer["former_generation"] < answer["generation"], answer
        pids.append(answer["pid"])
    counts = [load.end() for load in loads]
    assert min(counts) > 0, counts
    assert daemon.supervisor() == pids[-1] and processes(daemon) == before
    assert len(set(pids)) == ROW, pids
    until(lambda: not any(is_alive(pid) for pid in pids[:-1]), "the end of all predecessors")
    until(lambda: descriptors(keeper) <= fds, f"the {fds} descriptors of before in the keeper")

    for n in range(first + 1, first + 200):
        line = follower.stdout.readline()
        assert int(line.split()[-1]) == n, (n, line)
    follower.kill()
    follower.wait()
    daemon_tests.owned.discard(follower.pid)
    print(f"# {ROW} takeovers; calls: supervised {counts[0]}, attached {counts[1]}, in connections of their own {counts[2]}")
    assert daemon.stop() == 0


@test
def what_waits_is_answered(daemon):
    """A stream stays open, a call runs, and both kinds of long polls wait; the next supervisor goes on with each."""
    start(daemon)
    peer, other = connect(daemon), connect(daemon)
    events = control.EventsResponse.FromString(
        other.wait(other.message("baton.Control/Events", control.EventsRequest(max_events=1000))).payload)
    event = other.message("baton.Control/Events", control.EventsRequest(from_seq=events.next_seq, wait=True, names=["rests"]))
    line = other.message("baton.Control/Logs", control.LogsRequest(name="rests", from_seq=1, wait=True))
    slow = peer.message("baton.Control/Call", control.CallRequest(
        name="native", method="echo.Echo/Sleep", type="baton.Values",
        payload=wire.values.Values(values=[wire.values.Value(u=1000000, width=64)]).SerializeToString()))
    streaming = Streaming(daemon)
    stream = streaming.message("baton.Control/Call", control.CallRequest(name="native", method="echo.Echo/Bidi"), end=False)
    for n in range(3):
        streaming.send(0, wire.baton.Envelope(kind=wire.baton.ITEM, id=stream.id), b"item %d" % n)
        streaming.run_until(lambda n=n: streaming.items == [b"item %d" % i for i in range(n + 1)])
        assert take_over(daemon)["calls"] == 5  # the event, the line, the slow one, the stream, and this
    assert not slow.done
    call = peer.wait(slow)
    assert call.status == wire.OK, (call.status, call.message)
    streaming.send(0, wire.baton.Envelope(kind=wire.baton.ITEM, id=stream.id, end=True))
    assert streaming.wait(stream).status == wire.OK, stream.message
    daemon.baton("stop", "rests")
    call = other.wait(event)
    assert call.status == wire.OK, call.message
    told = control.EventsResponse.FromString(call.payload)
    assert told.events and told.dropped == 0 and told.events[0].seq >= events.next_seq
    call = other.wait(line)
    assert call.status == wire.OK and control.LogsResponse.FromString(call.payload).ended, call.message
    # Nothing was numbered twice, and nothing that had been kept is missing.
    kept = control.EventsResponse.FromString(
        other.wait(other.message("baton.Control/Events", control.EventsRequest(max_events=1000))).payload)
    numbers = [event.seq for event in kept.events]
    assert numbers == list(range(1, len(numbers) + 1)), numbers
    assert daemon.stop() == 0


@test
def what_fails_changes_nothing(daemon):
    start(daemon)
    before, supervisor = processes(daemon), daemon.supervisor()
    until_alone(daemon)
    fds = descriptors(supervisor)
    for program, reason in (("/nonexistent", "cannot open /nonexistent: No such file or directory"),
                            ("/etc/passwd", "the keeper cannot start the successor: Permission denied"),
                            ("/bin/true", "the program ended before it could take anything")):
        done = daemon.baton("takeover", "--exec", program, check=False)
        assert done.returncode != 0 and reason in done.stderr, (program, done.stderr)
        assert daemon.supervisor() == supervisor and processes(daemon) == before
    until(lambda: descriptors(supervisor) == fds, "the same descriptors")
    assert not take_over(daemon, "--check")["committed"]
    assert daemon.supervisor() == supervisor and processes(daemon) == before
    until(lambda: descriptors(supervisor) == fds, "the same descriptors")
    assert take_over(daemon)["former_pid"] == supervisor
    assert processes(daemon) == before and daemon.stop() == 0


@test
def one_that_never_answers(daemon):
    start(daemon)
    supervisor = daemon.supervisor()
    sleeper = os.path.join(daemon.folder, "sleeper")
    with open(sleeper, "w", encoding="ascii") as file:
        file.write("#!/bin/sh\nexec sleep 1000\n")
    os.chmod(sleeper, 0o755)
    begun = subprocess.Popen([daemon_tests.BATON, "takeover", "--exec", "/bin/sleep", "--timeout", "200ms"],
                             env=daemon.environment, text=True, stderr=subprocess.PIPE)
    begun.wait()
    assert begun.returncode != 0 and "goes on" in begun.stderr.read()
    assert daemon.supervisor() == supervisor and daemon.stop() == 0


@test
def killed_in_the_middle(daemon):
    """The supervisor, or its successor, is killed at some moment of a takeover: runners stay, and somebody serves."""
    daemon.start(FLEET, BATON_LOG_LEVEL="info")
    for name in ("native", "counts", "rests"):
        daemon.until_state(name, "up")
    before, chance = processes(daemon), random.Random(20)
    for n in range(6):  # more deaths in a row would end in a back-off
        predecessor = daemon.supervisor()
        begun = subprocess.Popen([daemon_tests.BATON, "takeover", "--timeout", "5s"], env=daemon.environment,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if n % 2 == 0:
            time.sleep(chance.uniform(0, 0.02))  # no event tells the moments between two of its steps
            victim = predecessor
        else:
            others = set(before.values()) | {predecessor}
            victim = until(lambda: begun.poll() is not None or
                           next((pid for pid in daemon_tests.children(daemon.keeper()) if pid not in others), 0), "it")
        if victim is not True:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                pass
        begun.wait(TIMEOUT)
        until(lambda: daemon.baton("status", check=False).returncode == 0, "a supervisor that serves")
        until(lambda: processes(daemon) == before, "the same processes")
        call_native(connect(daemon), b"%d" % n)
    assert daemon.stop() == 0


@test
def while_runners_come_and_go(daemon):
    """Runners die and are started again, write, are scaled, and clients come and go, all through the pre-copy."""
    daemon.start(FLEET + """
  flaps: { command: [sh, -c, "echo $$; exit 3"], restart: always, backoff: { initial: 5ms, max: 5ms },
           intensity: { restarts: 0 }, instances: 6 }
  still: { command: [sleep, 1003], instances: 40 }
""")
    for name in ("native", "counts", "rests"):
        daemon.until_state(name, "up")
    until(lambda: sum(r["state"] == "up" for r in daemon.status()["runners"] if r["name"].startswith("still")) == 40, "all")
    names = {"native", "counts", "rests"} | {f"still.{i}" for i in range(1, 41)}
    before = {r["name"]: r["pid"] for r in daemon.status()["runners"] if r["name"] in names}

    def one_connection(i):
        peer = connect(daemon)
        call_native(peer, b"%d" % i)
        peer.lane.close()

    load = Load(one_connection)
    for n in range(10):
        # The command may be answered before, in the middle of, or after the takeover.
        scale = subprocess.Popen([daemon_tests.BATON, "scale", f"still={40 + n % 3}"], env=daemon.environment,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert take_over(daemon)["committed"]
        error = scale.communicate(timeout=TIMEOUT)[1]
        assert scale.returncode == 0, error
    load.end()
    now = {r["name"]: r.get("pid") for r in daemon.status()["runners"]}
    assert {name: now[name] for name in before} == before
    until(lambda: {r["name"] for r in daemon.status()["runners"] if r["name"].startswith("still")} ==
          {f"still.{i}" for i in range(1, 41)}, "as many as were scaled to last")
    daemon.baton("stop", "flaps.*", check=False)
    assert daemon.stop() == 0


@test
def too_few_descriptors(daemon):
    """What a successor would not have room for is refused before anything has begun."""
    start(daemon)
    supervisor = daemon.supervisor()
    until_alone(daemon)
    limit = descriptors(supervisor) + 20
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (limit, limit))
    done = daemon.baton("takeover", check=False)
    assert done.returncode != 0 and f"may have {limit}: raise the limit of open files" in done.stderr, done.stderr
    assert daemon.supervisor() == supervisor and "follows" not in daemon.said()
    assert daemon.stop() == 0


@test
def many_runners(daemon):
    """Ten takeovers of many runners: the same processes, and neither descriptors nor memory grow."""
    daemon.start(f"runners: {{ idle: {{ command: [sleep, 1004], instances: {MANY} }} }}")
    until(lambda: sum(r["state"] == "up" for r in daemon.status()["runners"]) == MANY, "all to be up")
    before, fds, sizes = processes(daemon), descriptors(take_over(daemon)["pid"]), []
    for _ in range(10):
        pid = take_over(daemon)["pid"]
        # The connection of whoever asked is closed when he has his answer, or a moment later.
        until(lambda pid=pid: descriptors(pid) <= fds + 2, "no more descriptors than after the first")
        sizes.append(memory(pid))
    assert processes(daemon) == before and len(before) == MANY
    assert max(sizes[5:]) <= max(sizes[1:5]) * 1.1, sizes
    assert daemon.stop() == 0


@test
def a_reload_and_a_crash_after_it(daemon):
    """The successor is a supervisor like any other: it loads the configuration again, and is followed when it dies."""
    start(daemon)
    before = processes(daemon)
    take_over(daemon)
    daemon.configure(FLEET + "  more: { command: [sleep, 1002] }\n")
    os.kill(daemon.keeper(), signal.SIGHUP)
    daemon.until_state("more", "up")
    killed = daemon.supervisor()
    os.kill(killed, signal.SIGKILL)
    until(lambda: daemon.supervisor() not in (None, killed) and daemon.baton("status", check=False).returncode == 0,
          "the next supervisor")
    assert {name: pid for name, pid in processes(daemon).items() if name != "more"} == before
    call_native(connect(daemon), b"again")
    assert take_over(daemon)["committed"] and daemon.stop() == 0


daemon_tests.main()
