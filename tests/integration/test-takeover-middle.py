#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Takeovers in the middle of everything: while runners start, stop, wait, are restarted together or by a schedule, while hooks
run, and while commands wait. Each command is answered once, by whoever serves then, as it would have been; no time-out
begins anew; what a runner has counted and said stays. And what is left of all that when a supervisor is killed right after.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import termios
import time

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from baton_wire import control  # noqa: E402
from daemon_tests import FACTOR, TIMEOUT, is_alive, test, until  # noqa: E402

daemon_tests.LIBEXEC = daemon_tests.CHECKING

ECHO = os.path.join(daemon_tests.BUILD, "baton-runner-echo")
# Of a runner that takes its time to stop: until somebody opens the gate. A second TERM, as of a supervisor that has to begin the
# stop again, means nothing to it.
SLOW = 'trap "trap \\"\\" TERM; cat {gate} > /dev/null; exit 0" TERM; echo up; while :; do sleep 1000 & wait; done'


class Gate:
    """A place where a runner waits, and where it can be told from: whoever reads from the FIFO hangs until opened()."""

    def __init__(self, daemon, name="gate"):
        self.path = os.path.join(daemon.folder, name)
        os.mkfifo(self.path)

    def open(self):
        """Lets the one that waits go on, or the one that will."""
        def ready():
            try:
                return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK) + 1
            except OSError:
                return 0
        os.close(until(ready, "somebody at the gate") - 1)


def connect(daemon):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.path.join(daemon.runtime, "control"))
    return wire.Peer(connection, side=1)


class Commands:
    """Commands under way, of one connection, that are answered one day."""

    def __init__(self, daemon):
        self.daemon, self.peer = daemon, connect(daemon)

    def begin(self, what, **fields):
        return self.peer.message("baton.Control/" + what, getattr(control, what + "Request")(**fields))

    def begun(self, state, of, what, **fields):
        """One that has led to @state of runner @of."""
        call = self.begin(what, **fields)
        self.daemon.until_state(of, state)
        return call

    def end(self, call, method):
        assert not call.done, (call.status, call.message)
        self.peer.wait(call)
        assert call.status == wire.OK, (call.status, call.message)
        return getattr(control, method + "Response").FromString(call.payload)


def take_over(daemon, *options):
    """The time of it is bounded: nothing that somebody else has to do is waited for."""
    answer = json.loads(daemon.baton("takeover", "--json", "--timeout", f"{5 * FACTOR:g}s", *options).stdout)
    assert answer["committed"], answer
    return answer


def twice(daemon, name=None):
    """Two of them, and what they leave of a runner the same."""
    before = daemon.status(name) if name else None
    for _ in range(2):
        take_over(daemon)
    if name:
        after = daemon.status(name)
        for key in ("state", "desired", "pid", "instance", "restarts", "reason", "state_time_us"):
            assert before.get(key) == after.get(key), (key, before, after)


def kill_supervisor(daemon):
    killed = daemon.supervisor()
    os.kill(killed, signal.SIGKILL)
    until(lambda: not is_alive(killed) and daemon.baton("status", check=False).returncode == 0, "the next supervisor")
    assert daemon.supervisor() != killed


def lines_of(daemon, name):
    return daemon.baton("logs", "-n", "1000", name).stdout.splitlines()


def commands_told(daemon):
    """The ends of commands, as the log has them."""
    return [line for line in daemon.said().splitlines() if " command: " in line or "command: uid" in line]


# ------------------------------------------------------------------------------------------------------------ one runner


def begin_start(daemon, name):
    """Of one that never says that it is there, and takes its time to stop."""
    peer = connect(daemon)
    call = peer.message("baton.Control/Start", control.StartRequest(
        name=name, program=b"/bin/sh", kind=control.StartRequest.NATIVE, environment=[b"PATH=" + os.environb[b"PATH"]],
        start_timeout_us=3600000000, arguments=[b"-c", b"trap '' TERM; while :; do sleep 0.2; done"]))
    daemon.until_state(name, "starting")
    return peer, call


@test
def starts_that_nobody_waits_for(daemon):
    """Whoever has asked for them has gone, or has changed his mind: what was started is stopped, whoever serves then."""
    daemon.start("runners: {}")
    gone, _ = begin_start(daemon, "gone")
    staying, call = begin_start(daemon, "cancelled")
    gone.close()
    staying.cancel(call)
    staying.wait(call)
    assert call.status == wire.CANCELLED, (call.status, call.message)
    for name in ("gone", "cancelled"):
        daemon.until_state(name, "stopping")
    supervisor = daemon.supervisor()
    daemon.baton("takeover")
    assert daemon.status()["supervisor"]["generation"] == 2 and daemon.supervisor() != supervisor
    for name in ("gone", "cancelled"):
        assert daemon.status(name)["state"] == "stopping"
        daemon.baton("signal", name, "KILL")
    until(lambda: not daemon.status()["runners"], "the end of both")
    staying.close()


def unread(connection):
    return struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, bytes(4)))[0]


@test
def what_is_not_read(daemon):
    """A client that reads nothing has answers on their way to it, and is not read from any more: both go on when it reads, though
    it says nothing that the successor could wake up by."""
    daemon.start(f"runners: {{ native: {{ command: [{ECHO}], ready: hello }} }}")
    daemon.until_state("native", "up")
    peer, payload = connect(daemon), bytes(300000)
    calls = [peer.message("baton.Control/Call", control.CallRequest(name="native", method="echo.Echo/Unary", payload=payload))
             for _ in range(3)]
    until(lambda: unread(peer.channels[0]) > 100000, "as much as the socket takes")
    for _ in range(3):
        daemon.baton("takeover")
    for call in calls:
        peer.wait(call)
        assert call.status == wire.OK and call.payload == payload, (call.status, call.message)


@test
def a_stop_that_waits(daemon):
    gate = Gate(daemon)
    daemon.start(f"runners: {{ one: {{ command: [sh, -c, '{SLOW.format(gate=gate.path)}'], stop_timeout: 30s }} }}",
                 BATON_LOG_LEVEL="info")
    pid = daemon.until_state("one", "up")["pid"]
    until(lambda: lines_of(daemon, "one"), "its line")
    commands = Commands(daemon)
    call = commands.begun("stopping", "one", "Stop", name="one")
    another = Commands(daemon)
    second = another.begin("Stop", name="one")
    twice(daemon, "one")
    assert is_alive(pid) and not call.done
    gate.open()
    for who, one in ((commands, call), (another, second)):
        answer = who.end(one, "Stop")
        assert answer.exit.how == control.Exit.EXITED and answer.exit.status == 0 and not answer.killed, answer
    assert daemon.status("one")["state"] == "down"
    assert sum("Stop one: OK" in line for line in commands_told(daemon)) == 2, commands_told(daemon)
    kill_supervisor(daemon)
    assert daemon.status("one")["state"] == "down"
    assert daemon.stop() == 0


@test
def a_stop_that_is_cancelled(daemon):
    """Whoever waits no more is not answered by the successor either; what was begun goes on."""
    gate = Gate(daemon)
    daemon.start(f"runners: {{ one: {{ command: [sh, -c, '{SLOW.format(gate=gate.path)}'], stop_timeout: 30s }} }}")
    daemon.until_state("one", "up")
    until(lambda: lines_of(daemon, "one"), "its line")
    commands = Commands(daemon)
    commands.begun("stopping", "one", "Stop", name="one")
    take_over(daemon)
    commands.peer.close()
    until(lambda: daemon.status()["supervisor"]["clients"] == 1, "its end")
    take_over(daemon)
    gate.open()
    daemon.until_state("one", "down")
    assert daemon.stop() == 0


@test
def a_stop_whose_time_runs_out(daemon):
    """The deadline stays: it is killed when it would have been."""
    limit = 2 * FACTOR
    daemon.start(f"""runners: {{ one: {{ command: [sh, -c, 'trap "" TERM; echo up; while :; do sleep 1000; done'],
                                         stop_timeout: {limit:g}s }} }}""")
    daemon.until_state("one", "up")
    until(lambda: lines_of(daemon, "one"), "its line")
    begun, commands = time.monotonic(), Commands(daemon)
    call = commands.begun("stopping", "one", "Stop", name="one")
    until(lambda: time.monotonic() > begun + limit / 2, "half of the time")  # no event tells that time passes
    twice(daemon, "one")
    answer = commands.end(call, "Stop")
    took = time.monotonic() - begun
    assert answer.killed and answer.exit.status == signal.SIGKILL, answer
    assert 0.95 * limit < took < limit + TIMEOUT / 2, took
    assert daemon.status("one")["last_exit"]["cause"] == "killed", daemon.status("one")
    assert daemon.stop() == 0


@test
def a_native_one_that_is_asked_to_stop(daemon):
    """It has got Stop, and has not answered; its answer is the successor's, which then asks it to exit."""
    daemon.start(f"runners: {{ one: {{ command: [{ECHO}], ready: hello, stop_timeout: 30s }} }}")
    pid = daemon.until_state("one", "up")["pid"]
    commands = Commands(daemon)
    os.kill(pid, signal.SIGSTOP)
    call = commands.begun("stopping", "one", "Stop", name="one")
    twice(daemon, "one")
    os.kill(pid, signal.SIGCONT)
    answer = commands.end(call, "Stop")
    assert answer.exit.how == control.Exit.EXITED and answer.exit.status == 0 and not answer.killed, answer
    assert daemon.stop() == 0


@test
def a_start_that_is_not_ready(daemon):
    gate = Gate(daemon)
    daemon.start(f"""
      runners:
        one: {{ command: [sh, -c, "cat {gate.path} >/dev/null; echo >&3; exec sleep 1000"], ready: fd, autostart: false,
                start_timeout: 30s }}
        two: {{ command: [sleep, 1000], requires: one, autostart: false }}
    """)
    commands = Commands(daemon)
    call = commands.begun("starting", "one", "Start", name="one")
    other = Commands(daemon)
    second = other.begun("waiting", "two", "Start", name="two")
    twice(daemon, "one")
    gate.open()
    answer = commands.end(call, "Start")
    assert answer.name == "one" and answer.pid == daemon.pid("one") and not answer.already, answer
    assert other.end(second, "Start").pid == daemon.pid("two")
    assert daemon.stop() == 0


@test
def a_start_whose_time_runs_out(daemon):
    limit = 2 * FACTOR
    daemon.start(f"""
      runners:
        native: {{ command: [sleep, 1000], ready: hello, autostart: false, start_timeout: {limit:g}s, restart: never }}
        notify: {{ command: [sleep, 1000], ready: notify, autostart: false, start_timeout: {limit:g}s, restart: never }}
    """)
    begun, waiting = time.monotonic(), []
    for name in ("native", "notify"):
        commands = Commands(daemon)
        waiting.append((commands, commands.begun("starting", name, "Start", name=name)))
    until(lambda: time.monotonic() > begun + limit / 2, "half of the time")
    twice(daemon, "native")
    for commands, call in waiting:
        commands.peer.wait(call)
        assert call.status == wire.UNAVAILABLE and f"within {limit:g} s, and was killed" in call.message, call.message
    assert time.monotonic() < begun + limit + TIMEOUT / 2
    for name in ("native", "notify"):
        status = daemon.until_state(name, "failed")
        assert status["last_exit"]["cause"] == "start_timeout", status
    assert daemon.stop() == 0


@test
def a_native_one_that_connects_late(daemon):
    """Its way in crosses: the directory, the socket in it, what is already in its channels. Once more when it has connected."""
    gate, boot = Gate(daemon), os.path.join(daemon.runtime, "boot")
    daemon.start(f"""
      runners:
        one: {{ command: [sh, -c, "cat {gate.path} >/dev/null; exec {ECHO}"], ready: hello, autostart: false,
                start_timeout: 30s }}
    """)
    commands, caller = Commands(daemon), connect(daemon)
    call = commands.begun("starting", "one", "Start", name="one")
    request = control.CallRequest(name="one", method="echo.Echo/Unary", payload=b"early")
    early = caller.message("baton.Control/Call", request)
    twice(daemon, "one")
    assert len(os.listdir(boot)) == 1 and not early.done
    gate.open()
    answer = commands.end(call, "Start")
    assert answer.pid == daemon.pid("one") and answer.software.startswith("baton-runner-echo"), answer
    assert caller.wait(early).payload == b"early", early.message
    assert os.listdir(boot) == []
    take_over(daemon)
    assert caller.wait(caller.message("baton.Control/Call", request)).payload == b"early"
    assert daemon.stop() == 0


@test
def a_client_s_own_that_starts(daemon):
    """A program that no configuration has: its whole configuration crosses, and that of one which has ended."""
    gate = Gate(daemon)
    daemon.start()
    commands = Commands(daemon)
    done = commands.end(commands.begin("Start", name="done", program=b"/bin/sh", kind=control.StartRequest.PLAIN,
                                       arguments=[b"-c", b"echo last words; exit 3"]), "Start")
    daemon.until_state("done", "failed")
    script = b"cat %s > /dev/null; exec %s" % (gate.path.encode(), ECHO.encode())
    call = commands.begun("starting", "mine", "Start", name="mine", program=b"/bin/sh", arguments=[b"-c", script],
                          kind=control.StartRequest.NATIVE, environment=[b"PATH=" + os.environb[b"PATH"]],
                          start_timeout_us=30000000)
    twice(daemon, "mine")
    gate.open()
    answer = commands.end(call, "Start")
    assert answer.name == "mine" and answer.pid == daemon.pid("mine"), answer
    assert daemon.baton("call", "mine", "--", "echo.Echo/Unary", "string:hello").stdout.strip() == "hello"
    ended = daemon.status("done")
    assert ended["transient"] and "3" in json.dumps(ended["last_exit"]), ended
    assert lines_of(daemon, "done")[-1].endswith("last words")
    logs = commands.end(commands.begin("Logs", name="done", from_seq=1), "Logs")
    assert logs.ended and logs.exit.status == 3, logs
    call = commands.peer.wait(commands.begin("Call", name="done", method="x.Y/Z"))
    assert call.status == 9 and "status 3" in call.message, call.message
    assert done.instance
    assert daemon.stop() == 0


@test
def a_restart(daemon):
    gate = Gate(daemon)
    daemon.start(f"runners: {{ one: {{ command: [sh, -c, '{SLOW.format(gate=gate.path)}'], stop_timeout: 30s }} }}")
    before = daemon.until_state("one", "up")
    until(lambda: lines_of(daemon, "one"), "its line")
    commands = Commands(daemon)
    call = commands.begun("stopping", "one", "Restart", name="one")
    twice(daemon, "one")
    gate.open()
    answer = commands.end(call, "Restart")
    after = daemon.status("one")
    assert answer.pid == after["pid"] != before["pid"] and answer.exit.status == 0, answer
    assert len(daemon.status("one")["last_exit"]) > 0 and after["state"] == "up"
    # And killed in the middle of one: who had asked is told, the runner goes on being restarted.
    until(lambda: lines_of(daemon, "one").count("up") > 1 or len(lines_of(daemon, "one")) > 1, "its second line")
    call = commands.begun("stopping", "one", "Restart", name="one")
    take_over(daemon)
    kill_supervisor(daemon)
    with contextlib.suppress(wire.Closed, ConnectionError):
        commands.peer.wait(call)
        assert call.status != wire.OK
    gate.open()
    until(lambda: daemon.status("one").get("pid", 0) not in (0, after["pid"]), "the next instance")
    daemon.until_state("one", "up")
    os.kill(daemon.pid("one"), signal.SIGKILL)
    assert daemon.stop() == 0


# ----------------------------------------------------------------------------------------------------------- several of them


@test
def a_scale(daemon):
    gate, below = Gate(daemon), Gate(daemon, "gate.down")
    daemon.start(f"""
      runners:
        up: {{ command: [sh, -c, "[ %i -lt 3 ] || cat {gate.path} >/dev/null; echo >&3; exec sleep 1000"], ready: fd,
               instances: 2, start_timeout: 30s }}
        down: {{ command: [sh, -c, '{SLOW.format(gate=below.path)}'], instances: 3, stop_timeout: 30s }}
    """)
    for name in ("up.1", "up.2", "down.3"):
        daemon.until_state(name, "up")
    until(lambda: lines_of(daemon, "down.3"), "its line")
    commands = Commands(daemon)
    call = commands.begun("starting", "up.3", "Scale", name="up", instances=3)
    other = Commands(daemon)
    second = other.begun("stopping", "down.3", "Scale", name="down", instances=2)
    twice(daemon, "up.3")
    names = {runner["name"]: runner["state"] for runner in daemon.status()["runners"]}
    assert names == {"up.1": "up", "up.2": "up", "up.3": "starting", "down.1": "up", "down.2": "up", "down.3": "stopping"}, names
    gate.open()
    answer = commands.end(call, "Scale")
    assert (answer.before, answer.after, list(answer.failed)) == (2, 3, []), answer
    below.open()
    answer = other.end(second, "Scale")
    assert (answer.before, answer.after) == (3, 2), answer
    assert sum("Scale up 3: OK" in line for line in commands_told(daemon)) == 1, commands_told(daemon)
    for pid in (daemon.pid("down.1"), daemon.pid("down.2")):
        os.kill(pid, signal.SIGKILL)
    assert daemon.stop() == 0


@test
def a_number_stays(daemon):
    """Of a template that was scaled, in a takeover and in a crash, down to none too; until the configuration says another."""
    text = "runners: { t: { command: [sleep, 1000], instances: %d }, u: { command: [sleep, 1000], instances: 3 } }"
    daemon.start(text % 4)
    names = lambda: sorted(runner["name"] for runner in daemon.status()["runners"])  # noqa: E731
    daemon.until_state("u.3", "up")
    daemon.baton("scale", "t=2")
    daemon.baton("scale", "u=0")
    for again in (take_over, kill_supervisor, kill_supervisor, take_over):
        again(daemon)
        assert names() == ["t.1", "t.2"], (again, names())
    daemon.baton("scale", "t=5")
    daemon.baton("scale", "u=3")
    for again in (kill_supervisor, take_over):
        again(daemon)
        assert names() == ["t.1", "t.2", "t.3", "t.4", "t.5", "u.1", "u.2", "u.3"], (again, names())
    daemon.configure(text % 3)
    daemon.baton("reload")
    kill_supervisor(daemon)
    assert names() == ["t.1", "t.2", "t.3", "u.1", "u.2", "u.3"], names()
    assert daemon.stop() == 0


@test
def a_reload(daemon):
    """One that is removed and takes its time, one that is changed, one that is new."""
    gate = Gate(daemon)
    slow = SLOW.format(gate=gate.path)
    daemon.start(f"""
      runners:
        goes: {{ command: [sh, -c, '{slow}'], stop_timeout: 30s }}
        stays: {{ command: [sleep, 1000], stop_timeout: 1s }}
    """)
    daemon.until_state("stays", "up")
    daemon.until_state("goes", "up")
    until(lambda: lines_of(daemon, "goes"), "its line")
    pid = daemon.pid("stays")
    daemon.configure("""
      runners:
        stays: { command: [sleep, 1000], stop_timeout: 2s }
        comes: { command: [sleep, 1001] }
    """)
    commands = Commands(daemon)
    call = commands.begun("stopping", "goes", "Reload")
    twice(daemon, "goes")
    assert daemon.pid("stays") == pid
    daemon.until_state("comes", "up")
    gate.open()
    answer = commands.end(call, "Reload")
    changes = {change.name: (change.action, list(change.keys)) for change in answer.changes}
    Change = control.ConfigChange
    assert changes == {"goes": (Change.REMOVE, []), "stays": (Change.UPDATE, ["stop_timeout"]),
                       "comes": (Change.ADD, [])}, changes
    assert [runner["name"] for runner in daemon.status()["runners"]] == ["stays", "comes"] or \
        sorted(runner["name"] for runner in daemon.status()["runners"]) == ["comes", "stays"]
    assert daemon.stop() == 0


@test
def a_group_that_is_restarted(daemon):
    gate = Gate(daemon)
    daemon.start(f"""
      runners:
        a: {{ command: [sh, -c, 'echo a; exec sleep 1000'], backoff: {{ initial: 0s }} }}
        b: {{ command: [sh, -c, '{SLOW.format(gate=gate.path)}'], stop_timeout: 30s }}
        c: {{ command: [sleep, 1000] }}
      groups:
        g: {{ strategy: one_for_all, intensity: {{ restarts: 2, within: 1min }}, members: [a, b, c] }}
    """)
    before = {name: daemon.until_state(name, "up")["pid"] for name in "abc"}
    until(lambda: lines_of(daemon, "b"), "its line")
    os.kill(before["a"], signal.SIGKILL)
    daemon.until_state("b", "stopping")
    daemon.until_state("c", "waiting")
    daemon.until_state("a", "waiting")
    twice(daemon, "a")
    assert daemon.status("c")["state"] == "waiting" and daemon.status("b")["state"] == "stopping"
    gate.open()
    after = {name: daemon.until_state(name, "up")["pid"] for name in "abc"}
    assert not set(before.values()) & set(after.values()), (before, after)
    # The limit goes on counting: two more are one too many.
    until(lambda: lines_of(daemon, "b").__len__() >= 2, "its second line")
    os.kill(after["b"], signal.SIGKILL)
    until(lambda: daemon.status("b").get("pid", 0) not in (0, after["b"]), "the next one")
    after = {name: daemon.until_state(name, "up")["pid"] for name in "abc"}
    take_over(daemon)
    os.kill(after["b"], signal.SIGKILL)
    assert "group g has failed" in daemon.until_state("c", "failed")["reason"]
    assert daemon.stop() == 0


# ---------------------------------------------------------------------------------------------------------- what waits for time


@test
def a_back_off(daemon):
    delay = 2 * FACTOR
    daemon.start(f"""
      runners:
        one: {{ command: [sh, -c, "echo again; exit 7"], backoff: {{ initial: {delay:g}s, max: {delay:g}s, jitter: 0% }},
               restart: always, intensity: {{ restarts: 2, within: 10min }} }}
    """)
    before = daemon.until_state("one", "backoff")
    begun = time.monotonic()
    twice(daemon, "one")
    after = daemon.status("one")
    assert 0 < after["next_start_us"] < before["next_start_us"] <= delay * 1e6, (before, after)
    assert after["reason"] == before["reason"] and after["last_exit"] == before["last_exit"], (before, after)
    until(lambda: daemon.status("one")["restarts"] == 2, "its next start")
    assert time.monotonic() - begun < delay + TIMEOUT / 2
    take_over(daemon)  # the third end is one too many, as two were counted before
    status = daemon.until_state("one", "failed")
    assert "more than 2 restarts within 600 s" in status["reason"], status
    history = json.loads(daemon.baton("status", "--json", "--history", "one", check=False).stdout or "{}")
    take_over(daemon)
    assert daemon.status("one")["reason"] == status["reason"]
    if history:
        assert json.loads(daemon.baton("status", "--json", "--history", "one").stdout)["runners"] == history["runners"]
    kill_supervisor(daemon)
    assert daemon.status("one")["state"] == "failed"
    assert daemon.stop() == 0


@test
def schedules(daemon):
    """`every' keeps its phase, in a crash as well; `at' its time."""
    daemon.start("""
      runners:
        often: { command: [sh, -c, "date +%%s.%%N"], every: 2s }
        running: { command: [sh, -c, "echo up; exec sleep 1000"], every: 1h }
        rarely: { command: ["true"], at: "0 0 1 1 *" }
    """)
    until(lambda: lines_of(daemon, "often"), "its first run")
    until(lambda: daemon.status("often")["state"] == "scheduled", "its end")
    before = daemon.status("rarely")
    pid = daemon.pid("running")
    for again in (take_over, kill_supervisor, take_over):
        again(daemon)
        status = daemon.status("rarely")
        assert status["state"] == "scheduled" and abs(status["next_start_us"] - before["next_start_us"]) < 60e6
        assert daemon.pid("running") == pid
    until(lambda: len(lines_of(daemon, "often")) >= 3, "three runs")
    kill_supervisor(daemon)
    until(lambda: len(lines_of(daemon, "often")) >= 4, "four runs")
    times = [float(line.split()[-1]) for line in lines_of(daemon, "often")]
    slack = 0.8 * FACTOR
    for former, latter in zip(times, times[1:]):
        periods = max(1, round((latter - former) / 2))
        assert abs(latter - former - 2 * periods) < slack, times
        assert latter - former > 2 - slack, times
    assert daemon.stop() == 0


@test
def signs_of_life(daemon):
    """The watchdog of one that notifies goes on from its last sign; a ping that was not answered is the successor's."""
    lively = os.path.join(daemon.folder, "lively.py")
    with open(lively, "w", encoding="utf-8") as file:
        file.write("""import os, socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
s.send(b"READY=1\\nSTATUS=at work")
while not os.path.exists(sys.argv[1]):
    s.send(b"WATCHDOG=1")
    time.sleep(0.1)
time.sleep(1000)
""")
    stop = os.path.join(daemon.folder, "stop")
    daemon.start(f"""
      runners:
        notify: {{ command: [{sys.executable}, {lively}, {stop}], ready: notify, watchdog: {2 * FACTOR:g}s, restart: never }}
        native: {{ command: [{ECHO}], ready: hello, watchdog: {2 * FACTOR:g}s, restart: never }}
    """)
    pids = {name: daemon.until_state(name, "up")["pid"] for name in ("notify", "native")}
    until(lambda: daemon.status("notify").get("status_text") == "at work", "its status")
    twice(daemon, "notify")
    assert daemon.status("notify")["status_text"] == "at work"
    os.kill(pids["native"], signal.SIGSTOP)
    with open(stop, "w", encoding="utf-8"):
        pass
    twice(daemon, "native")
    for name in pids:
        status = daemon.until_state(name, "failed", 2 * FACTOR + TIMEOUT)
        assert status["last_exit"]["cause"] == "watchdog", status
    assert daemon.stop() == 0


# --------------------------------------------------------------------------------------------------------------- and the rest


@test
def an_attach(daemon):
    daemon.start(f"runners: {{ one: {{ command: [{ECHO}], ready: hello }} }}")
    pid = daemon.until_state("one", "up")["pid"]
    commands = Commands(daemon)
    os.kill(pid, signal.SIGSTOP)
    call = commands.begin("Attach", name="one")
    twice(daemon, "one")
    os.kill(pid, signal.SIGCONT)
    answer = commands.end(call, "Attach")
    attached = wire.Peer(socket.socket(fileno=call.fds[answer.lane]), side=0)
    assert attached.call("echo.Echo/Unary", b"direct").payload == b"direct"
    take_over(daemon)
    assert attached.call("echo.Echo/Unary", b"again").payload == b"again"
    assert daemon.stop() == 0


@test
def a_service_that_is_driven(daemon):
    """An event of a service that somebody waits for, and what it says of itself."""
    daemon.start(f"runners: {{ one: {{ command: [{ECHO}], ready: hello, stop_timeout: 30s }} }}")
    pid = daemon.until_state("one", "up")["pid"]
    commands, other = Commands(daemon), Commands(daemon)
    os.kill(pid, signal.SIGSTOP)
    info = other.begin("ServiceInfo", name="one")
    call = commands.begin("Service", name="one", event="stop")
    twice(daemon, "one")
    os.kill(pid, signal.SIGCONT)
    assert other.end(info, "ServiceInfo").name == "one"
    answer = commands.end(call, "Service")
    assert list(answer.sent), answer
    assert daemon.stop() == 0


@test
def a_hook_that_runs(daemon):
    """It goes on, and is told about; one that takes too long is killed when it would have been; those that wait begin."""
    gate, many, told = Gate(daemon), Gate(daemon, "gate.many"), os.path.join(daemon.folder, "told")
    daemon.start(f"""
      runners:
        one:
          command: [sleep, 1000]
          hooks:
            - {{ on: [up], command: [sh, -c, 'cat {gate.path} >/dev/null; echo "$BATON_RUNNER $BATON_EVENT" >> {told}'], timeout: 30s }}
            - {{ on: [up], command: [sh, -c, 'echo $$ > {told}.pid; exec sleep 1000'], timeout: {2 * FACTOR:g}s }}
        many:
          command: [sleep, 1000]
          instances: 12
          autostart: false
          hooks:
            - {{ on: [up], command: [sh, -c, 'cat {many.path} >/dev/null; echo "$BATON_RUNNER" >> {told}'], timeout: 60s }}
    """, BATON_LOG_LEVEL="info")
    daemon.until_state("one", "up")
    slow = int(until(lambda: os.path.exists(told + ".pid") and open(told + ".pid", encoding="ascii").read().strip(), "it"))
    twice(daemon, "one")
    assert is_alive(slow)
    gate.open()
    until(lambda: os.path.exists(told) and open(told, encoding="ascii").read() == "one up\n", "its word")
    until(lambda: not is_alive(slow), "the end of the one that takes too long")
    assert daemon.said().count(f"hook on up was not done within {2 * FACTOR:g} s, and was killed") == 1, daemon.said()
    for n in range(1, 13):
        daemon.baton("start", f"many.{n}")
    twice(daemon, "many.12")
    for _ in range(12):
        many.open()
        until(lambda: True, "")
    until(lambda: len(open(told, encoding="ascii").read().splitlines()) == 13 or many_again(many), "all of them")
    assert sorted(open(told, encoding="ascii").read().splitlines()[1:]) == sorted(f"many.{n}" for n in range(1, 13))
    assert daemon.stop() == 0


def many_again(gate):
    """One that came to the gate when it was just being closed waits for the next time."""
    with contextlib.suppress(OSError):
        os.close(os.open(gate.path, os.O_WRONLY | os.O_NONBLOCK))
    return False


@test
def the_metrics(daemon):
    """Their listener crosses: whoever connects at any moment is served, by a path and by an address."""
    path = os.path.join(daemon.folder, "metrics")
    daemon.start(f"supervisor: {{ metrics: {path} }}\nrunners: {{ one: {{ command: [sleep, 1000] }} }}")
    daemon.until_state("one", "up")

    def scrape():
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT)
            client.connect(path)
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            return b"".join(iter(lambda: client.recv(65536), b""))

    for _ in range(3):
        assert b"baton_" in scrape()
        take_over(daemon)
    assert b"baton_" in scrape() and "metrics cannot be had" not in daemon.said()
    assert daemon.stop() == 0


OTHER = os.path.join(daemon_tests.BUILD, "tests", "other-version")
VERSION = 2  # of supervisor/snapshot.h
AT_REST = f"""
  runners:
    native: {{ command: [{ECHO}], ready: hello }}
    plain: {{ command: [sleep, 1000], instances: 2 }}
    failed: {{ command: ["false"], restart: never }}
"""


def at_rest(daemon, version):
    daemon.start(AT_REST, BATON_TEST_SNAPSHOT_VERSION=str(version), BATON_LOG_LEVEL="info")
    daemon.until_state("failed", "failed")
    return {name: daemon.until_state(name, "up")["pid"] for name in ("native", "plain.1", "plain.2")}


@test
def one_version_down(daemon):
    """A program that knows nothing of what runners are in the middle of, and back again."""
    pids = at_rest(daemon, VERSION - 1)
    for options in (("--exec", OTHER), ("--exec", os.path.join(daemon_tests.BUILD, "baton-supervisor")), ()):
        take_over(daemon, *options)
        assert {name: daemon.pid(name) for name in pids} == pids
        assert daemon.status("failed")["state"] == "failed"
        assert daemon.baton("call", "native", "--", "echo.Echo/Unary", "string:hello").stdout.strip() == "hello"
    # Where none is named it is the one that is installed, whichever was named before.
    assert os.path.samefile(f"/proc/{daemon.supervisor()}/exe", os.path.join(daemon_tests.LIBEXEC, "baton-supervisor"))
    assert daemon.stop() == 0


@test
def one_version_up(daemon):
    """Fields that we do not know come back to the program that does."""
    pids = at_rest(daemon, VERSION + 1)
    ours = os.path.join(daemon_tests.BUILD, "baton-supervisor")
    for program in (OTHER, ours, ours, OTHER):
        take_over(daemon, "--exec", program)
        assert {name: daemon.pid(name) for name in pids} == pids
    # One of each message, of which there may be several rounds: of ours it has none, of those that had come from its like all.
    said = [line.split("fields of a later version: ")[1] for line in daemon.said().splitlines() if "fields of a later" in line]
    numbers = [tuple(map(int, line.split(" of "))) for line in said]
    assert sum(n for n, _ in numbers) == 5 and sum(of for n, of in numbers if n == 0) >= 5, said
    assert daemon.stop() == 0


@test
def two_versions_up(daemon):
    """It is refused before anything is frozen, and both versions are named."""
    pids = at_rest(daemon, VERSION + 2)
    supervisor = daemon.supervisor()
    done = daemon.baton("takeover", "--exec", OTHER, check=False)
    assert done.returncode != 0 and f"the state is of version {VERSION}, and {VERSION + 1} to {VERSION + 3} is understood" \
        in done.stderr, done.stderr
    assert daemon.supervisor() == supervisor and {name: daemon.pid(name) for name in pids} == pids
    assert daemon.stop() == 0


@test
def one_that_does_not_say_the_words(daemon):
    """Runners are given ahead of the freeze where both sides have said so. A program of this version of the snapshot that has
    never heard of it gets all of them at the end, and gives them then; one that has, gets them before."""
    ours = os.path.join(daemon_tests.BUILD, "baton-supervisor")
    gate = Gate(daemon)
    names = ["failed", "native", "plain.1", "plain.2", "slow"]
    # What only a predecessor can tell: that the stop has gone as far as it has, and what waits for its end.
    slow = f"slow: {{ command: [sh, -c, '{SLOW.format(gate=gate.path)}'], stop_timeout: 30s }}"
    daemon.start(AT_REST + f"    {slow}\n", BATON_TEST_NO_WORDS="1", BATON_LOG_LEVEL="info")
    daemon.until_state("failed", "failed")
    pids = {name: daemon.until_state(name, "up")["pid"] for name in names[1:]}
    until(lambda: lines_of(daemon, "slow"), "its line")
    commands = Commands(daemon)
    call = commands.begun("stopping", "slow", "Stop", name="slow")
    for program in (OTHER, ours, OTHER, OTHER):
        take_over(daemon, "--exec", program)
        assert {name: daemon.pid(name) for name in pids} == pids
        assert daemon.status("failed")["state"] == "failed" and daemon.status("slow")["state"] == "stopping"

    def told(how):
        return sorted(line.split(how + ": ")[1].split()[0] for line in daemon.said().splitlines() if how + ": " in line)

    assert told("came before the freeze") == told("went before the freeze") == []
    assert told("came at the end") == sorted(3 * names), told("came at the end")
    assert told("went at the end") == sorted(2 * names), told("went at the end")
    gate.open()
    commands.end(call, "Stop")
    assert daemon.stop() == 0


@test
def one_that_says_them(daemon):
    daemon.start(AT_REST, BATON_LOG_LEVEL="info")
    daemon.until_state("failed", "failed")
    for name in ("native", "plain.1", "plain.2"):
        daemon.until_state(name, "up")
    take_over(daemon, "--exec", OTHER)
    take_over(daemon)
    for how in ("came", "went"):  # one that something happens to just then goes twice
        said = [line.split("freeze: ")[1].split()[0] for line in daemon.said().splitlines() if f"{how} before the freeze: " in line]
        assert set(said) == {"failed", "native", "plain.1", "plain.2"}, (how, said)
    assert daemon.stop() == 0


@test
def in_a_storm(daemon):
    """Runners come and go all the time, as fast as they can; a takeover takes place all the same, and none is lost."""
    daemon.start("""
      runners:
        quick: { command: ["true"], restart: always, backoff: { initial: 0s }, intensity: { restarts: 0 }, instances: 8 }
        rests: { command: [sleep, 1000] }
    """)
    pid = daemon.until_state("rests", "up")["pid"]
    starts = lambda: [runner["restarts"] for runner in daemon.status()["runners"] if runner["name"] != "rests"]  # noqa: E731
    for _ in range(5):
        before = starts()
        take_over(daemon)
        until(lambda before=before: all(a > b for a, b in zip(starts(), before)), "more of each")
    assert daemon.pid("rests") == pid and len(starts()) == 8
    assert "was not taken over" not in daemon.said(), daemon.said()
    daemon.baton("stop", *[f"quick.{n}" for n in range(1, 9)])
    assert daemon.stop() == 0


@test
def killed_right_after(daemon):
    """A supervisor that dies as soon as it has taken over leaves what a crash leaves: every runner, in order."""
    gate, late = Gate(daemon), Gate(daemon, "gate.late")
    daemon.start(f"""
      runners:
        up: {{ command: [sleep, 1000] }}
        native: {{ command: [{ECHO}], ready: hello }}
        slow: {{ command: [sh, -c, '{SLOW.format(gate=gate.path)}'], stop_timeout: 30s }}
        backs: {{ command: [sh, -c, "exit 1"], backoff: {{ initial: 1h, max: 1h }} }}
        late: {{ command: [sh, -c, "cat {late.path} > /dev/null; exec {ECHO}"], ready: hello, start_timeout: 30s }}
    """)
    pids = {name: daemon.until_state(name, "up")["pid"] for name in ("up", "native", "slow")}
    until(lambda: lines_of(daemon, "slow"), "its line")
    daemon.until_state("backs", "backoff")
    daemon.until_state("late", "starting")
    daemon.baton("stop", "--no-wait", "slow")
    daemon.until_state("slow", "stopping")
    for _ in range(2):
        take_over(daemon)
        kill_supervisor(daemon)
        assert {name: daemon.pid(name) for name in pids} == pids
        assert daemon.status("slow")["state"] == "stopping" and daemon.status("backs")["state"] == "backoff"
        daemon.until_state("late", "starting")
    late.open()
    daemon.until_state("late", "up")
    gate.open()
    daemon.until_state("slow", "down")
    assert os.listdir(os.path.join(daemon.runtime, "boot")) == []
    assert daemon.stop() == 0


daemon_tests.main()
