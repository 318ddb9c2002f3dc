#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Recovery: the supervisor of a daemon is killed, at rest and in the middle of everything. Runners go on with their processes,
their output and their clients; what had ended, failed, was stopped or waits is as it was; nothing runs twice, nothing is
lost in the keeper. The keeper itself: as a service, as PID 1, killed.
"""

import glob
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from baton_wire import control  # noqa: E402
from daemon_tests import FACTOR, TIMEOUT, Skip, is_alive, test, until  # noqa: E402

ECHO = os.path.join(daemon_tests.BUILD, "baton-runner-echo")
LONG = bool(os.environ.get("BATON_SOAK"))


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return [b""]


class Fleet:
    """A daemon by its processes: the supervisor is told from runners by what it is called."""

    def __init__(self, daemon, configuration, forgiving=False, **environment):
        self.daemon = daemon
        daemon.answers = lambda: self.ended() or self.supervisor() and os.path.exists(os.path.join(daemon.runtime, "control"))
        environment = {"BATON_LOG_LEVEL": "info", **environment}
        if forgiving:
            self.start_keeper(configuration, environment)
        else:
            daemon.start(configuration, **environment)

    def start_keeper(self, configuration, environment):
        """As `baton supervise' would, but every death of a supervisor that has served is the first in a row."""
        daemon = self.daemon
        daemon.configure(configuration)
        command = [os.path.join(daemon_tests.BUILD, "baton-keeper"), "--runtime-dir", daemon.runtime,
                   "--state-dir", daemon.folder + "/state", "--log-dir", daemon.folder + "/log",
                   "--socket", daemon.runtime + "/control", "--healthy-time=1us", "--restart-delay=1ms",
                   daemon.configuration]
        with open(daemon.log, "ab") as log:
            daemon.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                              env={**daemon.environment, **environment})
        daemon_tests.owned.add(daemon.process.pid)
        self.connect().lane.close()

    def ended(self):
        assert self.daemon.process.poll() is None, f"the supervisor ended: {self.daemon.said()}"
        return False

    def children(self):
        return [pid for pid in daemon_tests.children(self.daemon.keeper()) if is_alive(pid)]

    def supervisor(self):
        found = [pid for pid in self.children() if command_line(pid)[0] == b"baton-supervisor"]
        return found[0] if found else 0

    def generation(self):
        pid = self.supervisor()
        words = command_line(pid) if pid else []
        return int(words[1].split(b"=")[1]) if len(words) > 1 else 0

    def runners(self):
        """Pids, in the order of their starts; the supervisor's own copies on their way to exec are none."""
        return [pid for pid in self.children() if command_line(pid)[0] not in (b"", b"baton-supervisor")]

    def of(self, *words):
        """The pids of those that were started with exactly these words."""
        wanted = [str(word).encode() for word in words]
        return [pid for pid in self.runners() if command_line(pid)[:-1] == wanted]

    def until_runners(self, n):
        return until(lambda: len(r := self.runners()) == n and r, f"{n} runners")

    def until_up(self, n):
        """As many have been said to be up. The line comes before the keeper is told: who kills between the two sees it again."""
        until(lambda: self.daemon.said().count(": up, pid") == n, f"{n} to be up")
        self.connect().lane.close()

    def until_kept(self, *names):
        """The keeper has read all that it was told of these, that their starts succeeded above all: it answers in order. A
        supervisor that is killed before it has said so takes them along."""
        for name in names:
            self.call("Signal", name=name, signal=signal.SIGCONT)

    def same(self, before):
        """Those runners are there, and no other. The kernel's list of children may lack some while one of them ends."""
        assert all(is_alive(pid) for pid in before), [pid for pid in before if not is_alive(pid)]
        until(lambda: self.runners() == before, "the list of all runners")

    def descriptors(self):
        """Of the keeper."""
        return daemon_tests.descriptors(self.daemon.keeper())

    def kill(self, number=signal.SIGKILL):
        """Kills the supervisor; returns when the next one serves."""
        pid = until(self.supervisor, "a supervisor")
        before = self.generation()
        os.kill(pid, number)
        until(lambda: self.ended() or self.generation() > before, "the next supervisor")
        self.connect().lane.close()

    def connect(self):
        """A control connection to whoever serves now; it answers only when the beginning is over."""
        def attempt():
            lane = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                lane.connect(os.path.join(self.daemon.runtime, "control"))
                peer = wire.Peer(lane)
                peer.lane = lane
                peer.wait(peer.message("baton.Control/Events", control.EventsRequest()))
                return peer
            except (OSError, wire.Closed):
                lane.close()
                return None
        return until(attempt, "an answer of the supervisor")

    def call(self, method, **fields):
        peer = self.connect()
        call = peer.wait(peer.message("baton.Control/" + method, getattr(control, method + "Request")(**fields)))
        peer.lane.close()
        assert call.status == wire.OK, (method, fields, call.status, call.message)
        return getattr(control, method + "Response").FromString(call.payload)


# ---------------------------------------------------------------------------------------------------------------- at rest

ALL = f"""
  runners:
    plain: {{ command: [sleep, 1001] }}
    web: {{ command: [sleep, 1002], instances: 3 }}
    native: {{ command: [{ECHO}], ready: hello }}
    fd: {{ command: [sh, -c, "echo >&3; exec sleep 1003"], ready: fd }}
    notifies: {{ command: [{sys.executable}, -c, "%s"], ready: notify, watchdog: {int(10 * FACTOR)}s }}
""" % ("import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
       "a = os.environ['NOTIFY_SOCKET']; s.sendto(b'READY=1', a); "
       "[(s.sendto(b'WATCHDOG=1', a), time.sleep(0.2)) for i in range(10000)]")


@test
def everything_goes_on(daemon):
    fleet = Fleet(daemon, ALL)
    before = fleet.until_runners(7)
    fleet.until_up(7)
    fleet.until_kept("plain", "web.1", "web.2", "web.3", "native", "fd", "notifies")
    descriptors = fleet.descriptors()
    for _ in range(3):
        fleet.kill()
        fleet.same(before)
        until(lambda: fleet.descriptors() == descriptors, "the same descriptors in the keeper")
    assert daemon.said().count(": up, pid") == 7, "something was started again"
    assert daemon.stop() == 0
    assert not glob.glob(os.path.join(daemon.runtime, "boot", "*")), "directories are left"


@test
def attached_clients_notice_nothing(daemon):
    fleet = Fleet(daemon, f"runners: {{ native: {{ command: [{ECHO}], ready: hello }} }}", forgiving=True)
    fleet.until_runners(1)
    fleet.until_up(1)
    peer = fleet.connect()
    call = peer.wait(peer.message("baton.Control/Attach", control.AttachRequest(name="native")))
    assert call.status == wire.OK, call.message
    response = control.AttachResponse.FromString(call.payload)
    client = wire.Peer(socket.socket(fileno=call.fds[response.lane]), side=0)
    for i in range(20 if LONG else 5):
        assert client.call("echo.Echo/Unary", b"%d" % i).payload == b"%d" % i
        os.kill(until(fleet.supervisor, "a supervisor"), signal.SIGKILL)
        for j in range(50):
            assert client.call("echo.Echo/Unary", b"%d" % j).payload == b"%d" % j
        fleet.connect().lane.close()

    # And calls through the supervisor work again.
    peer = fleet.connect()
    request = control.CallRequest(name="native", method="echo.Echo/Unary", payload=b"again")
    assert peer.wait(peer.message("baton.Control/Call", request)).status == wire.OK


@test
def out_of_memory(daemon):
    """A supervisor that gets no more memory refuses, or dies of it and is followed: runners and attached clients notice nothing."""
    if os.environ.get("BATON_TEST_INSTRUMENTED"):
        raise Skip("AddressSanitizer has its own idea of address space")
    fleet = Fleet(daemon, f"runners: {{ native: {{ command: [{ECHO}], ready: hello }}, a: {{ command: [sleep, 1001] }} }}",
                  forgiving=True)
    before = fleet.until_runners(2)
    fleet.until_up(2)
    peer = fleet.connect()
    call = peer.wait(peer.message("baton.Control/Attach", control.AttachRequest(name="native")))
    assert call.status == wire.OK, call.message
    response = control.AttachResponse.FromString(call.payload)
    client = wire.Peer(socket.socket(fileno=call.fds[response.lane]), side=0)
    supervisor, hungry = fleet.supervisor(), []
    with open(f"/proc/{supervisor}/status", encoding="ascii") as file:
        size = 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmSize:"))
    limit = resource.prlimit(supervisor, resource.RLIMIT_AS)
    resource.prlimit(supervisor, resource.RLIMIT_AS, (size, limit[1]))
    refused = 0
    for i in range(100):  # connections that stay, each with calls that wait
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT)
        hungry.append(connection)
        try:
            connection.connect(os.path.join(daemon.runtime, "control"))
            one = wire.Peer(connection, side=1)
            for _ in range(20):
                one.message("baton.Control/Logs", control.LogsRequest(name="a", from_seq=1, wait=True))
            call = one.wait(one.message("baton.Control/Call", control.CallRequest(
                name="native", method="echo.Echo/Unary", payload=b"x" * 300000)))
            refused += call.status != wire.OK
        except (wire.Closed, OSError):
            refused += 1
        assert client.call("echo.Echo/Unary", b"%d" % i).payload == b"%d" % i
    died = fleet.supervisor() != supervisor
    if not died:
        resource.prlimit(supervisor, resource.RLIMIT_AS, limit)
    for connection in hungry:
        connection.close()
    assert refused > 0, "there was memory for everything"
    print(f"# refused {refused} of 100; the supervisor {'died and was followed' if died else 'lived'}")
    fleet.same(before)
    assert client.call("echo.Echo/Unary", b"still").payload == b"still"
    peer = fleet.connect()
    request = control.CallRequest(name="native", method="echo.Echo/Unary", payload=b"again")
    assert peer.wait(peer.message("baton.Control/Call", request)).status == wire.OK


out_of_memory.seconds = 12 * TIMEOUT


@test
def output_is_whole(daemon):
    fleet = Fleet(daemon, """
      runners:
        counts: { command: [sh, -c, "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.002; done"] }
    """, forgiving=True)
    fleet.until_runners(1)
    fleet.until_kept("counts")
    for _ in range(30 if LONG else 6):
        before = len(fleet.call("Logs", name="counts").lines)
        until(lambda: len(fleet.call("Logs", name="counts").lines) > before + 4, "lines between any two")
        fleet.kill()
    said = fleet.call("Logs", name="counts").lines
    numbers = [int(line.text.split()[1]) for line in said]
    assert len(numbers) > 20 and numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
    sequence = [line.seq for line in said]
    assert sequence == list(range(sequence[0], sequence[0] + len(sequence))), sequence


@test
def what_is_at_rest_stays(daemon):
    fleet = Fleet(daemon, """
      runners:
        fails: { command: ["false"], intensity: { restarts: 1, within: 1h }, backoff: { initial: 1ms } }
        once: { command: [sh, -c, "echo >> $BATON_TEST_FOLDER/once"], oneshot: true, restart: never }
        stopped: { command: [sleep, 1001] }
        waits: { command: ["false"], backoff: { initial: 1h, max: 1h, jitter: 0% } }
        never: { command: [sleep, 1002], autostart: false }
        later: { command: [sleep, 1003], autostart: false }
    """)
    until(lambda: "runner fails: failed" in daemon.said() and "started again in 3.6e+03 s" in daemon.said(), "both to fail")
    until(lambda: os.path.exists(os.path.join(daemon.folder, "once")), "the oneshot")
    fleet.call("Stop", name="stopped")
    until(lambda: not fleet.runners(), "no runner")
    count = daemon.said().count("started again in")
    for _ in range(3):
        fleet.kill()
        assert fleet.runners() == []
    assert daemon.said().count("runner fails: up") == 2 and daemon.said().count("runner waits: up") == 1
    assert daemon.said().count("started again in") == count
    with open(os.path.join(daemon.folder, "once"), encoding="ascii") as file:
        assert file.read() == "\n"


@test
def what_was_is_known(daemon):
    """Ends, upgrades, reasons, a program that an upgrade has brought, and what a client's runner was started with."""
    runner, other = os.path.join(daemon_tests.BUILD, "tests", "state-runner"), os.path.join(daemon.folder, "other-program")
    shutil.copy(runner, other)
    plan = os.path.join(daemon.folder, "plan")
    with open(daemon.folder + "/script", "w", encoding="utf-8") as file:
        file.write("#!/nowhere/at-all\n")
    os.chmod(daemon.folder + "/script", 0o755)
    fleet = Fleet(daemon, f"""
      runners:
        s: {{ command: [{runner}, --plan, {plan}], ready: hello }}
        t: {{ command: [{runner}, --plan, {plan}], ready: hello, instances: 2 }}
        fails: {{ command: [{daemon.folder}/script], intensity: {{ restarts: 1, within: 1h }}, backoff: {{ initial: 1ms }} }}
        ends: {{ command: [sh, -c, "exit 3"], intensity: {{ restarts: 4, within: 1h }}, backoff: {{ initial: 1ms }} }}
    """)
    for name in ("s", "t.1", "t.2"):
        daemon.until_state(name, "up")
    for name in ("fails", "ends"):
        daemon.until_state(name, "failed")
    before = {name: daemon.status(name) for name in ("fails", "ends")}
    assert len(before["ends"]["history"]) == 5 and "/script" in before["fails"]["reason"]
    with open(plan, "w", encoding="utf-8") as file:
        file.write("restore=die\n")
    assert daemon.baton("upgrade", "s", check=False).returncode != 0
    os.unlink(plan)
    for name in ("s", "t.2"):
        daemon.baton("upgrade", "--exec", other, name)
    fleet.call("Start", name="client", program=ECHO.encode(), max_attached=1)
    upgrades = daemon.status("s")["upgrades"]
    assert [bool(one.get("reason")) for one in upgrades] == [True, False] and daemon.status("s")["upgrades_failed"] == 1
    for _ in range(3):
        fleet.kill()
        status = daemon.status("s")
        assert status["upgrades"] == upgrades and status["upgrades_done"] == status["upgrades_failed"] == 1, status
        for name, was in before.items():
            status = daemon.status(name)
            assert [status[key] for key in ("history", "reason", "state")] == [was[key] for key in ("history", "reason", "state")], status

    peer = fleet.connect()
    attached = [peer.wait(peer.message("baton.Control/Attach", control.AttachRequest(name="client"))) for _ in range(2)]
    assert [call.status for call in attached] == [wire.OK, wire.RESOURCE_EXHAUSTED], [call.message for call in attached]
    peer.lane.close()

    def program(name):
        return command_line(daemon.pid(name))[0].decode()
    for name, wanted in (("s", other), ("t.1", runner), ("t.2", other)):  # and the next one is of it, too
        daemon.baton("restart", name)
        assert program(name) == wanted, name
    daemon.baton("takeover")
    assert daemon.status("s")["upgrades"] == upgrades
    fleet.kill()
    daemon.baton("restart", "s")
    assert program("s") == other and daemon.status("s")["upgrades"] == upgrades
    assert len(daemon.status("s")["history"]) == 3, daemon.status("s")["history"]
    daemon.baton("reload")
    fleet.kill()
    daemon.baton("restart", "s")
    assert program("s") == runner


# ---------------------------------------------------------------------------------------------------- in the middle of it


@test
def an_exit_that_nobody_saw(daemon):
    """It ends while no supervisor can hear of it: its exit takes effect once, under the next one."""
    fleet = Fleet(daemon, "runners: { a: { command: [sleep, 1001], backoff: { initial: 0s }, restart: always } }")
    first, = fleet.until_runners(1)
    fleet.until_kept("a")
    os.kill(until(fleet.supervisor, "a supervisor"), signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    until(lambda: not is_alive(first), "its end")
    fleet.kill()
    second, = fleet.until_runners(1)
    assert second != first and daemon.said().count(f"pid {first} killed by signal 9") == 1
    fleet.until_kept("a")
    fleet.kill()
    assert fleet.runners() == [second] and daemon.said().count("runner a: pid") == 1


@test
def a_stop_under_way(daemon):
    """What was told to stop when the supervisor died, stops."""
    fleet = Fleet(daemon, """
      runners:
        slow: { command: [sh, -c, "trap '' TERM; echo ready; while :; do sleep 1; done"], stop_timeout: 300ms }
    """)
    slow, = fleet.until_runners(1)
    until(lambda: fleet.call("Logs", name="slow").lines, "its word")
    fleet.until_kept("slow")
    fleet.call("Stop", name="slow", no_wait=True)
    fleet.kill()
    until(lambda: not is_alive(slow), "its end")
    fleet.kill()
    assert fleet.runners() == []


@test
def a_stop_in_the_beginning(daemon):
    """SIGTERM comes while the next supervisor begins: what it has not adopted yet is stopped in order all the same."""
    fleet = Fleet(daemon, """
      runners:
        a: { command: [sh, -c, "trap 'echo >> $BATON_TEST_FOLDER/asked; exit' TERM; echo; while :; do sleep 0.01; done"] }
    """)
    fleet.until_runners(1)
    until(lambda: fleet.call("Logs", name="a").lines, "its word")
    fleet.until_kept("a")
    supervisor = until(fleet.supervisor, "a supervisor")
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: fleet.supervisor() not in (0, supervisor), "the next supervisor")
    assert daemon.stop() == 0
    assert os.path.exists(os.path.join(daemon.folder, "asked")), "it was killed"


# Says so when another one of its name is there: a lock that goes with its holder.
EXCLUSIVE = """
import fcntl, os, sys, time
name = os.environ["BATON_TEST_FOLDER"] + "/" + sys.argv[1]
lock = os.open(name, os.O_CREAT | os.O_RDWR, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    open(name + ".twice", "a").close()
time.sleep(float(sys.argv[2]))
"""


@test
def killed_at_any_moment(daemon):
    """Runners that come and go all the time, and a supervisor that is killed at random: none ever runs twice."""
    with open(os.path.join(daemon.folder, "exclusive.py"), "w", encoding="ascii") as file:
        file.write(EXCLUSIVE)
    fleet = Fleet(daemon, f"""
      defaults: {{ restart: always, backoff: {{ initial: 1ms, max: 1ms }}, intensity: {{ restarts: 0, within: 1h }} }}
      runners:
        flaps: {{ command: [{sys.executable}, -S, exclusive.py, "flaps.%i", "0.01"], cwd: {daemon.folder}, instances: 4 }}
        stays: {{ command: [{sys.executable}, -S, exclusive.py, "stays.%i", "1000"], cwd: {daemon.folder}, instances: 4 }}
    """, forgiving=True, BATON_LOG_LEVEL="error")
    def staying():
        return [pid for pid in fleet.runners() if b"stays" in b" ".join(command_line(pid))]

    until(lambda: len(glob.glob(os.path.join(daemon.folder, "stays.*"))) == 4, "all of them")
    fleet.until_kept(*(f"stays.{n}" for n in range(1, 5)))
    stays = until(lambda: len(pids := staying()) == 4 and pids, "all of them in the list")
    rounds, seed = 200 if LONG else 12, random.randrange(1 << 32)
    print(f"# seed {seed}")
    delays, given_up = random.Random(seed), 0

    def next_supervisor(pid):
        """Whether there is one. Where too many died in a row before they could serve, somebody has to ask for it."""
        nonlocal given_up
        if daemon.said().count("no supervisor runs: it died too often") > given_up:
            given_up += 1
            os.kill(daemon.keeper(), signal.SIGHUP)
        return fleet.ended() or fleet.supervisor() not in (0, pid)

    for _ in range(rounds):
        time.sleep(delays.uniform(0, 0.06))
        pid = until(fleet.supervisor, "a supervisor")
        os.kill(pid, signal.SIGKILL)
        until(lambda: next_supervisor(pid), "the next supervisor")
    fleet.connect().lane.close()
    assert not glob.glob(os.path.join(daemon.folder, "*.twice"))
    until(lambda: staying() == stays, "the list of those that stay, as it was")
    until(lambda: fleet.descriptors() < 12 + 8 * 4 + 24, "no descriptor left behind")
    assert daemon.stop() == 0


killed_at_any_moment.seconds = 600 if LONG else 12 * TIMEOUT


@test
def two_hundred_deaths(daemon):
    """A short version of it, unless told otherwise."""
    fleet = Fleet(daemon, "runners: { a: { command: [sleep, 1001], instances: 50 } }", forgiving=True, BATON_LOG_LEVEL="error")
    before, names = fleet.until_runners(50), [f"a.{n}" for n in range(1, 51)]
    fleet.until_kept(*names)
    descriptors = fleet.descriptors()
    for _ in range(200 if LONG else 20):
        fleet.kill()
        fleet.same(before)
        until(lambda: fleet.descriptors() == descriptors, "the same descriptors")
    assert daemon.stop() == 0


two_hundred_deaths.seconds = 600 if LONG else 6 * TIMEOUT


# --------------------------------------------------------------------------------------------------------------- the keeper


@test
def keeper_killed(daemon):
    fleet = Fleet(daemon, ALL)
    pids = fleet.until_runners(7)
    supervisor = fleet.supervisor()
    daemon.process.kill()
    daemon.process.wait()
    until(lambda: not any(map(is_alive, [*pids, supervisor])), "the end of all")
    Fleet(daemon, ALL).until_runners(7)  # what it left behind is replaced


@test
def second_on_the_directory(daemon):
    fleet = Fleet(daemon, "runners: { a: { command: [sleep, 1001] } }")
    fleet.until_runners(1)
    again = daemon.baton("supervise", "--runtime-dir", daemon.runtime, check=False)
    assert again.returncode == 1 and f"already (pid {daemon.keeper()})" in again.stderr, again
    again = daemon.baton("supervise", check=False)  # by BATON_SOCKET
    assert again.returncode == 1, again
    fleet.connect().lane.close()


@test
def service_manager(daemon):
    """READY, RELOADING and STOPPING come from the keeper alone, whoever supervises."""
    path = os.path.join(daemon.folder, "notify")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(path)
    manager.settimeout(TIMEOUT)
    fleet = Fleet(daemon, "runners: { a: { command: [sleep, 1001] } }", NOTIFY_SOCKET=path, WATCHDOG_USEC="300000")
    runner, = fleet.until_runners(1)
    fleet.until_kept("a")

    def hear(pattern):
        until(lambda: re.search(pattern, manager.recv(4096).decode()), pattern)

    hear("^READY=1$")
    hear("^WATCHDOG=1$")
    with open(f"/proc/{runner}/environ", "rb") as file:
        assert b"NOTIFY_SOCKET" not in file.read()
    fleet.kill()
    hear("^READY=1$")
    hear("^WATCHDOG=1$")
    os.kill(daemon.keeper(), signal.SIGHUP)
    hear(r"^RELOADING=1\nMONOTONIC_USEC=\d+$")
    hear("^READY=1$")
    supervisor = until(fleet.supervisor, "a supervisor")
    os.kill(supervisor, signal.SIGSTOP)  # found by the watchdog, long before it would be by a time-out of ours
    until(lambda: fleet.supervisor() not in (0, supervisor), "another supervisor")
    hear("^READY=1$")
    assert fleet.runners() == [runner]
    daemon.process.send_signal(signal.SIGTERM)
    hear("^STOPPING=1$")
    assert daemon.process.wait(TIMEOUT) == 0


@test
def as_pid_1(daemon):
    """In a pid namespace of its own: orphans are reaped, signals do what they do elsewhere."""
    if subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False, capture_output=True).returncode:
        raise Skip("no namespace can be made here")
    daemon.configure("""
      runners:
        orphans: { command: [sh, -c, "(sleep 0.05 & sleep 0.05 &); exec sleep 1000"] }
    """)
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", daemon_tests.BATON, "supervise", "--runtime-dir",
               daemon.runtime, "--state-dir", daemon.folder + "/state", "--log-dir", daemon.folder + "/log",
               daemon.configuration]
    with open(daemon.log, "ab") as log:
        outer = subprocess.Popen(command, env={**daemon.environment, "BATON_LOG_LEVEL": "info"}, stdout=log, stderr=log)
    daemon_tests.owned.add(outer.pid)
    keeper, = until(lambda: daemon_tests.children(outer.pid), "the keeper")
    until(lambda: "runner orphans: up" in daemon.said(), "its runner")
    until(lambda: len(daemon_tests.children(keeper)) == 2, "the orphans to be reaped")
    os.kill(keeper, signal.SIGHUP)
    until(lambda: "configuration loaded again" in daemon.said(), "the reload")
    daemon.baton("takeover", "--keeper")  # it stays PID 1, and goes on as such
    assert "goes on, pid 1" in daemon.said()
    daemon.baton("restart", "orphans")
    until(lambda: len(daemon_tests.children(keeper)) == 2, "the orphans to be reaped")
    supervisor, = [pid for pid in daemon_tests.children(keeper) if command_line(pid)[0] == b"baton-supervisor"]
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: "runners go on without: 1" in daemon.said(), "its end")
    until(lambda: len([pid for pid in daemon_tests.children(keeper) if is_alive(pid)]) == 2, "another supervisor")
    os.kill(keeper, signal.SIGTERM)
    assert outer.wait(TIMEOUT) == 0, daemon.said()


daemon_tests.main()
