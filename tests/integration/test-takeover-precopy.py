#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The state of runners is given to a successor before the freeze, and given again where something has happened to them since.
The programs of tests/faults/ put off the freeze for BATON_TEST_HOLD_MS, when everything was given, and refuse a takeover for which
what was given of a runner is not what it is: whatever of its state can change has to change here, in that time."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.environ.get("abs_top_srcdir", "."), "tests/integration"))
import baton_wire as wire  # noqa: E402

wire.need_protobuf()

import daemon_tests  # noqa: E402
from baton_wire import control  # noqa: E402
from daemon_tests import FACTOR, TIMEOUT, test, until  # noqa: E402

daemon_tests.LIBEXEC = daemon_tests.CHECKING

ECHO = os.path.join(daemon_tests.BUILD, "baton-runner-echo")
HOLD = {"BATON_TEST_HOLD_MS": "400"}

# Says what its number N tells it to, all the time.
TALKS = """import os, socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
child = os.fork()
if child == 0:
    time.sleep(1000)
s.send(b"READY=1")
words = sys.argv[1:]
n = 0
while True:
    n += 1
    for word in words:
        s.send(word.replace("N", str(n)).replace("CHILD", str(child if n % 2 else os.getpid())).encode())
        time.sleep(0.02)
"""
WORDS = {
    "status": ["STATUS=N"],
    "alive": ["WATCHDOG=1"],
    "error": ["ERRNO=N"],
    "period": ["WATCHDOG_USEC=9N000000"],
    "main": ["MAINPID=CHILD"],
    "reloads": ["RELOADING=1\\nMONOTONIC_USEC=N", "READY=1"],
    "extends": ["EXTEND_TIMEOUT_USEC=N000000"],
}


def take_over(daemon):
    done = daemon.baton("takeover", "--json", "--timeout", "20s", check=False, timeout=40)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def connect(daemon):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.path.join(daemon.runtime, "control"))
    return wire.Peer(connection, side=1)


class Meanwhile(threading.Thread):
    """Does things while there are takeovers. What it asks for may be refused; that is for others to test."""

    def __init__(self, *actions):
        super().__init__(daemon=True)
        self.actions, self.over, self.count, self.error = actions, False, 0, None
        self.start()

    def run(self):
        try:
            while not self.over:
                self.actions[self.count % len(self.actions)]()
                self.count += 1
        except BaseException as error:  # whatever it is: the test is to see it
            self.error = error

    def end(self):
        self.over = True
        self.join(6 * TIMEOUT)
        assert not self.is_alive() and not self.error and self.count >= len(self.actions), (self.error, self.count)


@test
def what_notifies(daemon):
    """Each of the words that change what is known of a runner, and nothing else of it."""
    talks = os.path.join(daemon.folder, "talks.py")
    with open(talks, "w", encoding="utf-8") as file:
        file.write(TALKS)
    runners = "".join(f'  {name}: {{ command: [{sys.executable}, {talks}, {", ".join(json.dumps(word) for word in words)}], '
                      "ready: notify, watchdog: 30s }\n" for name, words in WORDS.items())
    daemon.start("runners:\n" + runners, **HOLD)
    pids = {name: daemon.until_state(name, "up")["pid"] for name in WORDS}
    for _ in range(3):
        before = int(daemon.status("status").get("status_text", "0"))
        take_over(daemon)
        assert int(daemon.status("status")["status_text"]) > before
    assert {name: daemon.pid(name) for name in WORDS} == pids
    assert daemon.stop() == 0


@test
def what_happens_by_itself(daemon):
    """Pings, ends, delays, schedules, one that waits for another, a group, time-outs."""
    daemon.start(f"""
      defaults: {{ intensity: {{ restarts: 0 }} }}
      runners:
        pinged: {{ command: [{ECHO}], ready: hello, watchdog: {FACTOR:g}s }}
        flaps: {{ command: [sh, -c, "exit 1"], backoff: {{ initial: 30ms, max: 30ms }} }}
        grows: {{ command: [sh, -c, "sleep 0.05; exit 1"], backoff: {{ initial: 10ms, max: 1s }} }}
        often: {{ command: ["true"], every: 100ms }}
        once: {{ command: [sh, -c, "sleep 0.1; exit 1"], oneshot: true, backoff: {{ initial: 20ms, max: 20ms }} }}
        slow: {{ command: [sh, -c, "sleep 0.05; exec {ECHO}"], ready: hello, start_timeout: 40ms, backoff: {{ initial: 30ms, max: 30ms }} }}
        waits: {{ command: [sleep, 1001], requires: [slow] }}
        one: {{ command: [sh, -c, "sleep 0.1; exit 1"], backoff: {{ initial: 10ms, max: 10ms }} }}
        two: {{ command: [sleep, 1002] }}
        rests: {{ command: [sleep, 1003] }}
      groups:
        both: {{ strategy: one_for_all, members: [one, two], intensity: {{ restarts: 0 }} }}
    """, **HOLD)
    pid = daemon.until_state("rests", "up")["pid"]
    pinged = daemon.until_state("pinged", "up")["pid"]
    count, end = 0, time.monotonic() + 2 * FACTOR
    while count < 5 or time.monotonic() < end:  # so that there are pings
        take_over(daemon)
        count += 1
    assert daemon.pid("rests") == pid and daemon.pid("pinged") == pinged
    assert daemon.stop() == 0


@test
def what_is_asked_for(daemon):
    """Commands, of several connections at a time; kills; runners that come and go, under names that come again."""
    daemon.start(f"""
      defaults: {{ backoff: {{ initial: 20ms, max: 20ms }}, intensity: {{ restarts: 0 }} }}
      runners:
        native: {{ command: [{ECHO}], ready: hello }}
        plain: {{ command: [sleep, 1001] }}
        failed: {{ command: ["false"], restart: never }}
        many: {{ command: [sleep, 1002], instances: 3 }}
        parks: {{ command: [sh, -c, "while :; do echo x; sleep 0.01; done"], log: {{ full: park }} }}
        dies: {{ command: [sleep, 1003] }}
        rests: {{ command: [sleep, 1004] }}
    """, **HOLD)
    pid = daemon.until_state("rests", "up")["pid"]

    def does(*words):
        return lambda: daemon.baton(*words, check=False, timeout=40)

    def own():
        peer = connect(daemon)
        try:
            peer.wait(peer.message("baton.Control/Start", control.StartRequest(
                name="own", program=b"/bin/sh", kind=control.StartRequest.PLAIN, arguments=[b"-c", b"exit 3"])))
        except (OSError, EOFError):
            pass
        peer.lane.close()

    def kill():
        done = daemon.baton("status", "--json", "dies", check=False)
        pid = done.returncode == 0 and json.loads(done.stdout)["runners"][0].get("pid")
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    follows = subprocess.Popen([daemon_tests.BATON, "logs", "-f", "parks"], env=daemon.environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    loads = [
        Meanwhile(does("restart", "native"), does("stop", "native"), does("start", "native")),
        Meanwhile(does("restart", "plain"), does("stop", "plain"), does("start", "plain")),
        Meanwhile(does("reset", "failed"), does("start", "failed")),
        Meanwhile(does("scale", "many=5"), does("scale", "many=1")),
        Meanwhile(own, kill),
    ]
    for _ in range(6):
        take_over(daemon)
    for load in loads:
        load.end()
    follows.kill()
    follows.wait()
    daemon.baton("start", "native", "plain")
    daemon.baton("scale", "many=2")
    names = {runner["name"] for runner in daemon.status()["runners"]} - {"own"}
    assert names == {"native", "plain", "failed", "many.1", "many.2", "parks", "dies", "rests"}, names
    assert daemon.pid("rests") == pid
    assert daemon.stop() == 0


@test
def a_number(daemon):
    """Of a template that is scaled while a successor follows: what it sees of instances on their way is nobody's wish. Whoever
    comes after a crash has the last one."""
    daemon.start("runners: { many: { command: [sleep, 1002], instances: 3 } }", **HOLD)
    for last in (4, 1, 5):
        daemon.baton("scale", "many=5")
        taking = Meanwhile(lambda: take_over(daemon))
        for n in (1, 5, last):
            daemon.baton("scale", f"many={n}", timeout=40)
        taking.end()
        killed = daemon.supervisor()
        os.kill(killed, signal.SIGKILL)
        until(lambda: daemon.baton("status", check=False).returncode == 0 and daemon.supervisor() != killed, "the next supervisor")
        names = sorted(runner["name"] for runner in daemon.status()["runners"])
        assert names == [f"many.{n}" for n in range(1, last + 1)], (last, names)
    assert "RECORD for instance" not in daemon.said()
    assert daemon.stop() == 0


@test
def made_again(daemon):
    """A runner that is removed and made again under its name while a successor follows: what the keeper has of the second one is
    not taken for the first's."""
    daemon.start("runners: { many: { command: [sleep, 1002], instances: 3 } }", **HOLD)
    scaling = [Meanwhile(*[lambda n=n: daemon.baton("scale", f"many={n}", check=False, timeout=40) for n in numbers])
               for numbers in ((5, 1), (2, 4))]
    for _ in range(8):
        take_over(daemon)
    for one in scaling:
        one.end()
    assert daemon.stop() == 0
    assert "has no effect" not in daemon.said()


@test
def what_was_starting(daemon):
    """The way in of a native one is there when the table is told, and is used, or closed, before the freeze."""
    gates = {name: os.path.join(daemon.folder, name) for name in ("comes", "stops")}
    for path in gates.values():
        os.mkfifo(path)
    daemon.start("".join(["runners:\n"] + [
        f"  {name}: {{ command: [sh, -c, 'read x < {path}; exec {ECHO}'], ready: hello, start_timeout: 1min, autostart: false }}\n"
        for name, path in gates.items()]), **HOLD)
    for _ in range(3):
        daemon.baton("start", "--no-wait", *gates)
        for name in gates:
            daemon.until_state(name, "starting")
        generation = daemon.status()["supervisor"]["generation"]
        taking = Meanwhile(lambda: take_over(daemon))
        until(lambda: json.loads((daemon.baton("takeovers", "--json").stdout.splitlines() or ["{}"])[-1]).get("phase") == "copy",
              "the pre-copy")
        pid = daemon.pid("comes")
        with open(gates["comes"], "w", encoding="ascii") as gate:
            gate.write("x\n")
        daemon.until_state("comes", "up")
        daemon.baton("stop", "stops")
        taking.end()
        assert daemon.status()["supervisor"]["generation"] > generation
        assert daemon.pid("comes") == pid and daemon.status("stops")["state"] == "down"
        assert daemon.baton("call", "comes", "--", "echo.Echo/Unary", "string:hello").stdout.strip() == "hello"
        daemon.baton("stop", "comes")
    assert os.listdir(os.path.join(daemon.runtime, "boot")) == []
    assert daemon.stop() == 0


@test
def what_rests_is_the_same(daemon):
    """Whatever state a runner rests in: all that is told of it is the same afterwards, as it was given before the freeze."""
    talks = os.path.join(daemon.folder, "talks.py")
    with open(talks, "w", encoding="utf-8") as file:
        file.write("""import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
s.send(b"READY=1\\nSTATUS=at work\\nERRNO=5")
time.sleep(1000)
""")
    daemon.start(f"""
      runners:
        up: {{ command: [sleep, 1001] }}
        native: {{ command: [{ECHO}], ready: hello, watchdog: 1h }}
        says: {{ command: [{sys.executable}, {talks}], ready: notify, watchdog: 1h }}
        failed: {{ command: [sh, -c, "exit 7"], restart: never }}
        done: {{ command: ["true"], oneshot: true }}
        down: {{ command: ["true"], autostart: false }}
        stopped: {{ command: [sleep, 1002] }}
        backs: {{ command: [sh, -c, "exit 8"], backoff: {{ initial: 1h, max: 1h }} }}
        sleeps: {{ command: ["true"], every: 1h }}
        waits: {{ command: ["true"], requires: [failed] }}
        runs: {{ command: [sleep, 1003], oneshot: true, start_timeout: 1h }}
        killed: {{ command: [sleep, 1004], backoff: {{ initial: 0s }} }}
        web: {{ command: [sleep, 1005], instances: 3 }}
      groups:
        g: {{ strategy: rest_for_one, members: [up, killed] }}
    """)
    states = {"up": "up", "native": "up", "says": "up", "failed": "failed", "done": "done", "backs": "backoff", "sleeps": "scheduled",
              "waits": "failed", "runs": "starting", "killed": "up", "web.3": "up"}
    for name, state in states.items():
        daemon.until_state(name, state)
    until(lambda: daemon.status("says").get("status_text") == "at work", "its status")
    daemon.baton("stop", "stopped")
    os.kill(daemon.pid("killed"), signal.SIGKILL)
    until(lambda: daemon.status("killed").get("restarts") == 1 and daemon.status("killed")["state"] == "up", "its restart")
    daemon.baton("scale", "web=2")
    peer = connect(daemon)
    call = peer.wait(peer.message("baton.Control/Start", control.StartRequest(
        name="own", program=b"/bin/sh", kind=control.StartRequest.PLAIN, arguments=[b"-c", b"echo words; exit 3"])))
    assert call.status == wire.OK, call.message
    daemon.until_state("own", "failed")

    def all_of_it():
        told = {runner.pop("name"): runner for runner in daemon.status()["runners"]}
        for runner in told.values():  # these are counted from or to the moment of asking
            runner.pop("uptime_us", None)
        assert told["backs"].pop("next_start_us") > 1800e6 and told["sleeps"].pop("next_start_us") > 1800e6
        return told

    before = all_of_it()
    assert len(before) == 15, before.keys()
    for _ in range(3):
        take_over(daemon)
        after = all_of_it()
        assert after.keys() == before.keys()
        for name, runner in before.items():
            assert after[name] == runner, (name, runner, after[name])
    assert daemon.stop() == 0


daemon_tests.main()
