#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The life of configured runners, in a daemon, seen by its events: order of starts and stops, restarts with back-off and limit,
readiness in all its kinds, watchdogs, groups, schedules, hooks, reload, the bounds of a stop, and storms.
"""

import json
import os
import signal
import socket
import sys

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from baton_wire import control  # noqa: E402
from daemon_tests import FACTOR, TIMEOUT, is_alive, memory, test, until, until_alone  # noqa: E402

State = control.RunnerStatus
Kind = control.Event
Cause = control.ExitRecord
ECHO = os.path.join(daemon_tests.BUILD, "baton-runner-echo")
INSTRUMENTED = bool(os.environ.get("BATON_TEST_INSTRUMENTED"))
LONG = bool(os.environ.get("BATON_SOAK"))


class Life:
    """A daemon, and a connection to it that follows its events."""

    def __init__(self, daemon, configuration, **environment):
        self.daemon, self.events, self.next = daemon, [], 0
        daemon.answers = lambda: self.connect() or self.ended()
        daemon.start(configuration, BATON_LOG_LEVEL="info", **environment)

    def ended(self):
        assert self.daemon.process.poll() is None, f"the supervisor ended: {self.daemon.said()}"
        return False

    def connect(self):
        lane = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lane.connect(os.path.join(self.daemon.runtime, "control"))
            self.peer = wire.Peer(lane)
        except (OSError, wire.Closed):
            lane.close()
            return False
        self.supervisor = next(pid for pid in daemon_tests.children(self.daemon.keeper())
                               if b"--generation" in daemon_tests.words_of(pid))
        return True

    def until_kept(self, name):
        """The keeper has done all that it was asked for before this: it answers in order."""
        self.call("Signal", name=name, signal=signal.SIGCONT)

    def call(self, method, **fields):
        request = getattr(control, method + "Request")(**fields)
        call = self.peer.wait(self.peer.message("baton.Control/" + method, request))
        assert call.status == wire.OK, (method, fields, call.status, call.message)
        return getattr(control, method + "Response").FromString(call.payload)

    def more(self, wait=True):
        answer = self.call("Events", from_seq=self.next, max_events=1024, wait=wait)
        assert answer.dropped == 0 or LONG, "events were lost"
        self.events += answer.events
        self.next = answer.next_seq

    def until_event(self, condition, after=0):
        """The first event from number `after` on that @condition() is true of, and the number behind it."""
        while True:
            while after < len(self.events):
                after += 1
                if condition(self.events[after - 1]):
                    return self.events[after - 1], after
            self.more()

    def until_state(self, name, state, after=0):
        return self.until_event(lambda e: e.kind == Kind.RUNNER_STATE and e.runner == name and e.state == state, after)

    def until_exit(self, name, after=0):
        return self.until_event(lambda e: e.kind == Kind.RUNNER_EXITED and e.runner == name, after)


    def index(self, name, state):
        """Where in the events it came into that state."""
        return self.until_state(name, state)[1]

    def up(self, name, after=0):
        """Its pid, as soon as it is up."""
        return self.until_state(name, State.UP, after)[0].pid

    def now(self):
        """The number of the next event."""
        self.more(wait=False)
        return len(self.events)

    def reload(self, configuration):
        """By SIGHUP; returns when it has been loaded or refused."""
        now = self.now()
        self.daemon.configure(configuration)
        os.kill(self.daemon.keeper(), signal.SIGHUP)
        return self.until_event(lambda e: e.kind in (Kind.CONFIGURATION_LOADED, Kind.CONFIGURATION_REFUSED), now)

    def descriptors(self):
        return [daemon_tests.descriptors(pid) for pid in (self.supervisor, self.daemon.keeper())]


def has(text, *parts):
    assert all(part in text for part in parts), f"{text!r} lacks one of {parts}"
    assert "\n" not in text, text


# ---------------------------------------------------------------------------------------------------------------- order


@test
def order_of_starts_and_stops(daemon):
    life = Life(daemon, """
      runners:
        top: { command: [sleep, 1000], requires: [middle] }
        middle: { command: [sleep, 1000], requires: [bottom], after: prepare }
        bottom: { command: [sleep, 1000] }
        prepare: { command: [sh, -c, "sleep 0.1; echo prepared"], oneshot: true }
        free: { command: [sleep, 1000] }
    """)
    life.up("top")
    order = [life.index(name, State.UP) for name in ("bottom", "middle", "top")]
    assert order == sorted(order), order
    assert life.index("prepare", State.DONE) < life.index("middle", State.STARTING)

    # A command stops those that require it, first.
    now = life.now()
    life.call("Stop", name="bottom")
    downs = [life.until_state(name, State.DOWN, now)[1] for name in ("top", "middle", "bottom")]
    assert downs == sorted(downs), downs

    assert daemon.stop() == 0


@test
def all_are_stopped_in_reverse(daemon):
    life = Life(daemon, """
      runners:
        a: { command: [sleep, 1000] }
        b: { command: [sleep, 1000], after: a }
        c: { command: [sleep, 1000], after: b }
    """)
    life.up("c")
    assert daemon.stop() == 0
    said = [line for line in daemon.said().splitlines() if "killed by signal 15" in line]
    assert [line.split("runner ")[1][0] for line in said] == ["c", "b", "a"], said


@test
def failure_of_what_is_required(daemon):
    life = Life(daemon, """
      runners:
        base: { command: [sh, -c, "echo $$ > base.pid; exec sleep 1000"], restart: never, cwd: %s }
        user: { command: [sleep, 1000], requires: base }
        more: { command: [sleep, 1000], requires: user }
        only: { command: [sleep, 1000], after: base }
    """ % daemon.folder)
    pid, only = life.up("base"), life.up("only")
    life.up("more")
    os.kill(pid, signal.SIGSEGV)
    event = life.until_state("user", State.FAILED)[0]
    has(event.text, "requires base, which has failed", "SIGSEGV")
    has(life.until_state("more", State.FAILED)[0].text, "requires user, which has failed: requires base")
    assert is_alive(only)


@test
def a_oneshot_that_fails(daemon):
    life = Life(daemon, """
      runners:
        prepare: { command: [sh, -c, "exit 4"], oneshot: true, restart: never }
        needs: { command: [sleep, 1000], requires: prepare }
        after: { command: [sleep, 1000], after: prepare }
    """)
    has(life.until_state("needs", State.FAILED)[0].text, "requires prepare, which has failed: exited with status 4")
    life.up("after")
    assert not [e for e in life.events if e.runner == "needs" and e.state == State.STARTING]


# -------------------------------------------------------------------------------------------------------------- restarts


@test
def backoff_and_limit(daemon):
    life = Life(daemon, """
      runners:
        flappy:
          command: [sh, -c, "exit 3"]
          backoff: { initial: 10ms, max: 30ms, factor: 2, jitter: 0% }
          intensity: { restarts: 4, within: 1min }
    """)
    event = life.until_state("flappy", State.FAILED)[0]
    has(event.text, "more than 4 restarts within 60 s", "exited with status 3")
    assert [e.number for e in life.events if e.kind == Kind.RUNNER_RESTART] == [10000, 20000, 30000, 30000]
    assert len([e for e in life.events if e.kind == Kind.RUNNER_EXITED]) == 5
    assert "runner flappy: failed: more than 4 restarts" in daemon.said()


@test
def policies(daemon):
    life = Life(daemon, """
      defaults: { backoff: { initial: 0s } }
      runners:
        never: { command: [sh, -c, "exit 1"], restart: never }
        ended: { command: ["true"], restart: on-failure }
        coded: { command: [sh, -c, "exit 7"], restart: on-failure, success_exit: [7, SIGUSR1] }
        always: { command: ["true"], restart: always, intensity: { restarts: 2, within: 1min } }
    """)
    has(life.until_state("never", State.FAILED)[0].text, "exited with status 1")
    life.until_state("ended", State.DONE)
    life.until_state("coded", State.DONE)
    has(life.until_state("always", State.FAILED)[0].text, "more than 2 restarts", "exited with status 0")


@test
def a_killed_one_comes_back(daemon):
    life = Life(daemon, "runners: { one: { command: [sleep, 1000], backoff: { initial: 0s } } }")
    pid = life.up("one")
    for _ in range(5):
        now = life.now()
        os.kill(pid, signal.SIGKILL)
        exited, _ = life.until_exit("one", now)
        assert (exited.exit.cause, exited.exit.exit.status) == (Cause.ITSELF, 9), exited
        again = life.up("one", now)
        assert again != pid
        pid = again


# ------------------------------------------------------------------------------------------------------------- readiness

NOTIFY = """
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(text): s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
"""


def python(daemon, name, code):
    path = os.path.join(daemon.folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(code)
    return f'[{sys.executable}, {path}]'


@test
def channels_wanted(daemon):
    """What it has not asked for it finds closed; the supervisor has no end of it."""
    script = python(daemon, "c.py", f"""
import os, socket, sys, time
sys.path.insert(0, {os.path.dirname(wire.__file__)!r})
import baton_wire
class Peer(baton_wire.Peer):
    def read_channel(self, number):
        try:
            super().read_channel(number)
        except baton_wire.Closed:
            print(number, "closed", flush=True)
            del self.channels[number]
lane = socket.socket(socket.AF_UNIX)
lane.connect(os.environ["BATON_BOOTSTRAP"])
peer = Peer(lane, channels=3)
peer.run_until(lambda: 1 not in peer.channels)
print(2, peer.call("x", channel=2).status, flush=True)
time.sleep(1000)
""")
    life = Life(daemon, f"runners: {{ wants: {{ command: {script}, ready: hello, channels: [data] }} }}")
    life.up("wants")
    said = until(lambda: len(s := daemon.baton("logs", "wants").stdout.splitlines()) >= 2 and s, "two lines")
    assert [line.split()[3:] for line in said] == [["1", "closed"], ["2", "12"]], said
    descriptors = f"/proc/{life.supervisor}/fd"
    until_alone(daemon, 1)
    n = len(os.listdir(descriptors))
    daemon.configure(f"runners: {{ wants: {{ command: {script}, ready: hello, channels: [rpc] }} }}")
    assert "wants: channels (restart)" in daemon.baton("reload").stdout
    until(lambda: len(os.listdir(descriptors)) == n - 1, "one descriptor less")


@test
def a_sandbox_in_front(daemon):
    """What executes the runner is no matter to it, as docs/configuration.md says."""
    life = Life(daemon, f"""
      runners:
        native: {{ command: [setpriv, --no-new-privs, --bounding-set=-all, --inh-caps=-all, --, {ECHO}], ready: hello }}
        fd: {{ command: [setpriv, --no-new-privs, --, sh, -c, "echo >&3; exec sleep 1000"], ready: fd }}
    """)
    for name in ("native", "fd"):
        with open(f"/proc/{life.up(name)}/status", encoding="ascii") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        assert status["NoNewPrivs"] == "1" and (name == "fd" or int(status["CapBnd"], 16) == 0), (name, status)
    assert daemon.baton("call", "native", "--", "echo.Echo/Unary", "string:hello").stdout == "hello\n"


@test
def readiness(daemon):
    gate = os.path.join(daemon.folder, "gate")
    os.mkfifo(gate)
    script = python(daemon, "n.py", NOTIFY + f"""
open({gate!r}).read()
say("STATUS=loading\\nEXTENDED=1")
say("READY=1\\nSTATUS=serving")
time.sleep(1000)
""")
    life = Life(daemon, f"""
      runners:
        fd: {{ command: [sh, -c, "cat {gate} >/dev/null; echo >&3; exec sleep 1000"], ready: fd }}
        notify: {{ command: {script}, ready: notify }}
        native: {{ command: [{ECHO}], ready: hello }}
        late: {{ command: [sleep, 1000], requires: [fd, notify, native] }}
    """)
    life.up("native")
    life.until_state("late", State.WAITING)
    assert not [e for e in life.events if e.runner == "late" and e.state == State.STARTING]
    while not [e for e in life.events if e.runner == "late" and e.state == State.UP]:
        try:  # as long as one of the two waits for it
            os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            pass
        life.more(wait=False)
    ready = max(life.index("fd", State.UP), life.index("notify", State.UP))
    assert ready < life.index("late", State.STARTING)


@test
def never_ready(daemon):
    silent = python(daemon, "silent.py", "import time\ntime.sleep(1000)")
    life = Life(daemon, f"""
      defaults: {{ start_timeout: 300ms, restart: never }}
      runners:
        fd: {{ command: [sleep, 1000], ready: fd }}
        notify: {{ command: {silent}, ready: notify }}
        native: {{ command: [sleep, 1000], ready: hello }}
        early: {{ command: [sh, -c, "exit 5"], ready: notify, start_timeout: 1min }}
    """)
    has(life.until_state("fd", State.FAILED)[0].text, "start failed: was not ready within 0.3 s, and was killed")
    has(life.until_state("notify", State.FAILED)[0].text, "start failed: was not ready within 0.3 s, and was killed")
    has(life.until_state("native", State.FAILED)[0].text, "start failed: did not connect within 0.3 s, and was killed")
    has(life.until_state("early", State.FAILED)[0].text, "start failed: exited with status 5 before it was ready")
    assert life.until_exit("fd")[0].exit.cause == Cause.START_TIMEOUT


@test
def whoever_else_notifies_is_refused(daemon):
    path = os.path.join(daemon.folder, "where")
    script = python(daemon, "n.py", NOTIFY + f"""
with open({path!r} + ".new", "w") as f: f.write(os.environ["NOTIFY_SOCKET"])
os.rename({path!r} + ".new", {path!r})
say("MAINPID=1")
time.sleep(1000)
""")
    life = Life(daemon, f"runners: {{ one: {{ command: {script}, ready: notify, start_timeout: {2 * FACTOR:g}s,"
                f" restart: never }} }}")
    until(lambda: os.path.exists(path), "the runner")
    with open(path, encoding="utf-8") as file:
        where = file.read()
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.sendto(b"READY=1", where)
    life.until_state("one", State.FAILED)
    assert not [e for e in life.events if e.state == State.UP]
    assert "refused from pid" in daemon.said() and "not of the runner's session" in daemon.said()
    assert "MAINPID=1: it is not of the runner's session" in daemon.said()
    assert not os.path.exists(where)


# -------------------------------------------------------------------------------------------------------------- watchdog


@test
def watchdog(daemon):
    lively = python(daemon, "lively.py", NOTIFY + """
us = int(os.environ["WATCHDOG_USEC"])
trouble = os.path.exists("trouble")
if trouble:
    os.unlink("trouble")
say("READY=1")
if trouble:
    say("WATCHDOG=trigger")
while True:
    time.sleep(us / 10e6)
    say("WATCHDOG=1")
""")
    life = Life(daemon, f"""
      defaults: {{ watchdog: {FACTOR:g}s, backoff: {{ initial: 0s }}, cwd: {daemon.folder} }}
      runners:
        native: {{ command: [{ECHO}], ready: hello }}
        notify: {{ command: {lively}, ready: notify }}
        plain: {{ command: [sleep, 1000], watchdog: 0s }}
    """)
    pids = {name: life.up(name) for name in ("native", "notify")}
    for name, pid in pids.items():
        os.kill(pid, signal.SIGSTOP)
        event = life.until_exit(name)[0]
        assert event.exit.cause == Cause.WATCHDOG and event.exit.exit.status == 9, event
        has(event.text, f"gave no sign of life for {FACTOR:g} s, and was killed")
    now = life.now()
    for name in pids:
        life.up(name, life.until_exit(name)[1])
    open(os.path.join(daemon.folder, "trouble"), "w", encoding="ascii").close()
    now = life.now()
    os.kill([e.pid for e in life.events if e.runner == "notify" and e.state == State.UP][-1], signal.SIGKILL)
    _, after = life.until_exit("notify", now)
    assert life.until_exit("notify", after)[0].exit.cause == Cause.WATCHDOG
    # Those that do give signs live on.
    _, after = life.until_state("notify", State.UP, after)


# ---------------------------------------------------------------------------------------------------------------- groups

GROUP = """
  defaults: { backoff: { initial: 0s } }
  runners:
    a: { command: [sleep, 1000] }
    b: { command: [sleep, 1000] }
    c: { command: [sleep, 1000] }
    out: { command: [sleep, 1000] }
  groups:
    g: { strategy: %s, intensity: { restarts: %d, within: 1min }, members: [a, b, c] }
"""


def group(daemon, strategy, restarts=10):
    life = Life(daemon, GROUP % (strategy, restarts))
    return life, {name: life.up(name) for name in ("a", "b", "c", "out")}


def changed(life, pids, now, names):
    """That exactly these come up anew."""
    for name in names:
        assert life.up(name, now) != pids[name]
    for name in set(pids) - set(names):
        assert is_alive(pids[name]), name


@test
def one_for_one(daemon):
    life, pids = group(daemon, "one_for_one")
    now = life.now()
    os.kill(pids["b"], signal.SIGKILL)
    changed(life, pids, now, ["b"])


@test
def one_for_all(daemon):
    life, pids = group(daemon, "one_for_all")
    now = life.now()
    os.kill(pids["b"], signal.SIGKILL)
    changed(life, pids, now, ["a", "b", "c"])
    # All are down before one comes back.
    downs = [life.until_exit(name, now)[1] for name in "abc"]
    ups = [life.until_state(name, State.STARTING, now)[1] for name in "abc"]
    assert max(downs) < min(ups), (downs, ups)


@test
def rest_for_one(daemon):
    life, pids = group(daemon, "rest_for_one")
    now = life.now()
    os.kill(pids["b"], signal.SIGKILL)
    changed(life, pids, now, ["b", "c"])


@test
def a_group_fails(daemon):
    life, pids = group(daemon, "one_for_one", 2)
    pid = pids["a"]
    for _ in range(2):
        now = life.now()
        os.kill(pid, signal.SIGKILL)
        pid = life.up("a", now)
    os.kill(pid, signal.SIGKILL)
    for name in "abc":
        has(life.until_state(name, State.FAILED)[0].text, "group g has failed: more than 2 restarts within 60 s",
            "a, which killed by signal 9")
    assert is_alive(pids["out"])
    assert "group g: failed" in daemon.said()


@test
def a_group_in_a_group(daemon):
    life = Life(daemon, """
      defaults: { backoff: { initial: 0s } }
      runners:
        a: { command: [sleep, 1000] }
        b: { command: [sleep, 1000] }
        c: { command: [sleep, 1000] }
      groups:
        inner: { strategy: one_for_one, intensity: { restarts: 1, within: 1min }, members: [a, b] }
        outer: { strategy: rest_for_one, intensity: { restarts: 1, within: 1min }, members: [inner, c] }
    """)
    pids = {name: life.up(name) for name in "abc"}

    def kill(name):
        now = life.now()
        os.kill([e.pid for e in life.events if e.runner == name and e.state == State.UP][-1], signal.SIGKILL)
        life.until_exit(name, now)
        return now

    life.up("a", kill("a"))
    assert is_alive(pids["b"]) and is_alive(pids["c"])
    now = kill("a")  # too often for inner: outer restarts it, and what is behind it
    for name in "abc":
        life.up(name, now)
    life.up("b", kill("b"))  # inner counts anew
    kill("b")  # too often for inner, and that too often for outer
    for name in "abc":
        has(life.until_state(name, State.FAILED)[0].text, "group outer has failed: more than 1 restart")


# ------------------------------------------------------------------------------------------------------------- schedules


@test
def every(daemon):
    life = Life(daemon, """
      runners:
        tick: { command: [sh, -c, "exit 0"], every: 100ms, oneshot: true }
        fail: { command: [sh, -c, "exit 1"], every: 100ms, oneshot: true, restart: never }
        slow: { command: [sleep, "0.25"], every: 100ms, oneshot: true }
    """)
    for name in ("tick", "fail", "slow"):
        after = 0
        for _ in range(4):
            _, after = life.until_exit(name, after)
        starts = [e for e in life.events if e.runner == name and e.state == State.STARTING]
        ends = [e for e in life.events if e.runner == name and e.kind == Kind.RUNNER_EXITED]
        period = 300000 if name == "slow" else 100000
        for before, begin in zip(starts, starts[1:]):
            assert begin.monotonic_us - before.monotonic_us >= period - 20000, (name, begin.monotonic_us)
        for end, begin in zip(ends, starts[1:]):  # never two at once
            assert end.seq < begin.seq


# ----------------------------------------------------------------------------------------------------------------- hooks


@test
def hooks(daemon):
    broken = os.path.join(daemon.folder, "broken")
    with open(broken, "w", encoding="ascii") as file:
        file.write("#!/no/such/interpreter\n")
    os.chmod(broken, 0o755)
    life = Life(daemon, f"""
      runners:
        one:
          command: [sh, -c, "exit 6"]
          restart: never
          cwd: {daemon.folder}
          env: ["COLOUR=100%%"]
          hooks:
            - {{ on: [exit, failed], command: [sh, -c, 'echo "$BATON_RUNNER $BATON_EVENT $BATON_EXIT_CODE $COLOUR %n" >> told'], timeout: 5s }}
            - {{ on: [failed], command: [sh, -c, "echo trouble >&2; exit 9"], timeout: 5s }}
            - {{ on: [failed], command: [sleep, 1000], timeout: 200ms }}
        none:
          command: [sleep, 1000]
          hooks:
            - {{ on: [up], command: [{broken}], timeout: 1s }}
    """)
    life.until_state("one", State.FAILED)
    path = os.path.join(daemon.folder, "told")

    def told():
        try:
            with open(path, encoding="utf-8") as file:
                return sorted(file.read().splitlines())
        except OSError:
            return []
    until(lambda: told() == ["one exit 6 100% one", "one failed 6 100% one"], "both hooks")
    until(lambda: "hook on failed failed: exited with status 9; it wrote: trouble" in daemon.said(), "the second")
    until(lambda: "hook on failed was not done within 0.2 s, and was killed" in daemon.said(), "the third")
    until(lambda: "runner none: hook on up failed: start failed" in daemon.said(), "the fourth")
    life.up("none")


# ---------------------------------------------------------------------------------------------------------------- reload


@test
def reload(daemon):
    before = """
      runners:
        same: { command: [sleep, 1000] }
        gone: { command: [sleep, 1000], after: same }
        changed: { command: [sleep, 1000] }
        policy: { command: [sleep, 1000], stop_timeout: 1s }
        web: { command: [sleep, 1000], instances: 3 }
    """
    life = Life(daemon, before)
    pids = {name: life.up(name) for name in ("same", "gone", "changed", "policy", "web.1", "web.2", "web.3")}

    event, _ = life.reload(before.rstrip() + "\n        bad: { command: [sleep, 1000], requires: nothing }\n")
    assert event.kind == Kind.CONFIGURATION_REFUSED, event
    has(event.text, "baton.yaml:8: runners.bad.requires", "nothing")
    assert all(is_alive(pid) for pid in pids.values())

    now = life.now()
    event, _ = life.reload("""
      runners:
        same: { command: [sleep, 1000] }
        changed: { command: [sleep, 1001] }
        policy: { command: [sleep, 1000], stop_timeout: 2s }
        web: { command: [sleep, 1000], instances: 2 }
        new: { command: [sleep, 1000], requires: changed }
    """)
    assert event.kind == Kind.CONFIGURATION_LOADED and event.number == 5, event
    assert life.up("changed", now) != pids["changed"]
    life.up("new", now)
    until(lambda: not is_alive(pids["gone"]) and not is_alive(pids["web.3"]), "their end")
    for name in ("same", "policy", "web.1", "web.2"):
        assert is_alive(pids[name]), name
    assert sorted(e.runner for e in life.events if e.kind == Kind.RUNNER_REMOVED) == ["gone", "web.3"]

    # What is removed and configured again before it is down is just started again.
    now = life.now()
    life.reload("runners: { same: { command: [sleep, 1000] } }")
    life.reload("runners: { same: { command: [sleep, 1000] }, new: { command: [sleep, 1000] } }")
    life.up("new", now)
    assert is_alive(pids["same"])


# ------------------------------------------------------------------------------------------------------------------ stop


@test
def a_stop_has_a_bound(daemon):
    life = Life(daemon, """
      runners:
        stubborn:
          command: [sh, -c, "trap '' TERM; sleep 1000 & while :; do wait; done"]
          stop_timeout: 300ms
        polite: { command: [sh, -c, "trap 'exit 0' USR1; while :; do sleep 0.01; done"], stop_signal: USR1 }
    """)
    pid = life.up("stubborn")
    life.up("polite")
    until(lambda: daemon_tests.children(pid), "its child")
    child = daemon_tests.children(pid)[0]
    answer = life.call("Stop", name="stubborn")
    assert answer.killed and answer.exit.status == 9
    event = life.until_exit("stubborn")[0]
    assert event.exit.cause == Cause.KILLED
    until(lambda: not is_alive(child), "the end of its group")
    answer = life.call("Stop", name="polite")
    assert not answer.killed and answer.exit.how == control.Exit.EXITED and answer.exit.status == 0, answer
    assert life.until_exit("polite")[0].exit.cause == Cause.STOPPED


@test
def out_of_memory(daemon):
    hungry = python(daemon, "hungry.py", "x = []\nwhile True: x.append(bytearray(1 << 20))")
    life = Life(daemon, f"""
      runners:
        hungry: {{ command: {hungry}, cgroup: {{ memory_max: 20M, swap_max: "0" }}, restart: never }}
        other: {{ command: [sleep, 1000] }}
    """)
    life.up("other")
    event = life.until_state("hungry", State.FAILED)[0]
    if "start failed" in event.text:  # nothing is delegated to us here: that is what it says
        has(event.text, "cgroup")
        raise daemon_tests.Skip(event.text)
    has(event.text, "ran out of the memory that its cgroup may have")
    assert life.until_exit("hungry")[0].exit.cause == Cause.OUT_OF_MEMORY


# ---------------------------------------------------------------------------------------------------------------- storms


@test
def many_die_at_once(daemon):
    n = 200
    life = Life(daemon, f"""
      defaults: {{ backoff: {{ initial: 10ms, max: 50ms }}, intensity: {{ restarts: 0, within: 1min }} }}
      runners: {{ w: {{ command: [sleep, 1000], instances: {n} }} }}
    """)
    names = [f"w.{i}" for i in range(1, n + 1)]
    pids = [life.up(name) for name in names]
    life.until_kept(names[-1])
    before = life.descriptors()
    for _ in range(2):
        now = life.now()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        pids = [life.up(name, now) for name in names]
    assert len(set(pids)) == n and all(is_alive(pid) for pid in pids)
    assert until(lambda: life.descriptors() == before, "as many descriptors as before")


@test
def restarts_cost_nothing_that_stays(daemon):
    rounds = 10000 if LONG else 100 if INSTRUMENTED else 500
    life = Life(daemon, """
      runners:
        dies:
          command: ["true"]
          restart: always
          backoff: { initial: 0s }
          intensity: { restarts: 0, within: 1min }
          autostart: false
        lives: { command: [sleep, 1000] }
    """)
    life.up("lives")
    life.until_kept("lives")
    quiet = life.descriptors()

    def both():
        return [memory(pid) for pid in (life.supervisor, life.daemon.keeper())]

    def run_rounds(n):
        done = 0
        while done < n:
            del life.events[:]
            life.more()
            done += sum(e.kind == Kind.RUNNER_EXITED for e in life.events)

    life.call("Start", name="dies")
    run_rounds(300 if not INSTRUMENTED else 20)  # rings are full, tables have their sizes
    grows = True
    for _ in range(3):  # once it may: we read too slowly, and what we have not read waits in there; what leaks grows each time
        before = both()
        run_rounds(rounds)
        after = both()
        print(f"# {rounds} restarts: {before} KiB of its own before, {after} after; descriptors {quiet}, {life.descriptors()}")
        grows = grows and any(b > a + 64 for a, b in zip(before, after))
        if not grows:
            break
    life.call("Stop", name="dies")
    assert INSTRUMENTED or not grows, "memory grows"
    until(lambda: life.descriptors() == quiet, "as many descriptors as before")


restarts_cost_nothing_that_stays.seconds = 600 if LONG else 6 * TIMEOUT


FORKS = """
import os, signal, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        with open("forked.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename("forked.new", "forked")
        time.sleep(1000)
    %s
    os._exit(0)
%s
time.sleep(1000)
"""


def stop_with_daemon(daemon, name, parent, main):
    """One whose process has forked a daemon, and that is stopped: the daemon's pid, and what `baton stop' says."""
    script = python(daemon, "forks.py", FORKS % (parent, main))
    life = Life(daemon, f"runners: {{ {name}: {{ command: {script}, cwd: {daemon.folder} }} }}")
    forked = os.path.join(daemon.folder, "forked")
    life.up(name)
    until(lambda: os.path.exists(forked), "its daemon")
    with open(forked) as file:
        pid = int(file.read())
    return pid, json.loads(daemon.baton("stop", name, "--json").stdout)


@test
def daemons_of_its_own(daemon):
    """What forked itself out of its runner's group is in the answer to the stop, in the status, and in the log."""
    pid, outcome = stop_with_daemon(daemon, "one", "pass", "os.wait()")
    assert outcome["leftovers"][0]["pid"] == pid and len(outcome["leftovers"]) == 1, outcome
    name = outcome["leftovers"][0]["name"]
    assert name.startswith("python"), name
    assert f"runner one: left a process behind that is not of its group: {pid} {name}; " in daemon.said(), daemon.said()
    assert f"\n  left       {pid} {name}\n" in daemon.baton("status", "one").stdout
    assert json.loads(daemon.baton("status", "--json").stdout)["runners"][0]["leftovers"] == outcome["leftovers"]
    daemon.baton("start", "one")
    assert "leftovers" not in json.loads(daemon.baton("status", "--json").stdout)["runners"][0]
    said = daemon.baton("stop", "one").stdout
    assert said.startswith("one: down; ") and f"; it left behind, and they live on: {pid} {name}" in said, said
    assert "leftovers" not in json.loads(daemon.baton("stop", "one", "--json").stdout)
    assert daemon.stop() == 0  # and nothing is left: the end of this test looks


@test
def daemons_whose_parent_is_being_killed(daemon):
    """One whose parent is of the group comes to the keeper when that was killed, which may be after the runner's end."""
    pid, outcome = stop_with_daemon(daemon, "one", "time.sleep(1000)", "pass")
    assert [one["pid"] for one in outcome["leftovers"]] == [pid], outcome
    assert daemon.stop() == 0


if __name__ == "__main__":
    daemon_tests.main()
