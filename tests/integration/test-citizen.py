#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A daemon and who started it: what a service manager is told, by whom and in which order; the unit of systemd; and as the
first process of a pid namespace, where it reaps whatever there is and is ended by signals."""

import os
import re
import shutil
import signal
import socket
import struct
import subprocess

from daemon_tests import BATON, BUILD, FACTOR, Skip, children, is_alive, main, owned, test, until

SOURCE = os.environ.get("abs_top_srcdir", os.path.join(os.path.dirname(__file__), "../.."))
ONE = 'runners: { one: { command: [sleep, "1000"] } }'
TWO = 'runners: { one: { command: [sleep, "1000"] }, two: { command: [sleep, "1000"] } }'


class ServiceManager:
    """A socket as that of systemd. Each message is a mapping, and comes from the main process alone."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.path = os.path.join(daemon.folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(self.path)
        self.socket.settimeout(10 * FACTOR)

    def receive(self):
        data, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(12))
        (pid, _, _), = (struct.unpack("3i", cmsg[2]) for cmsg in ancillary if cmsg[1] == socket.SCM_CREDENTIALS)
        assert pid == self.daemon.keeper(), f"{data} is from {pid}"
        message = dict(line.split("=", 1) for line in data.decode().split("\n") if line)
        assert "MAINPID" not in message, data
        return message

    def until(self, word):
        """The next message with it; those before are none of another state."""
        while word not in (message := self.receive()):
            assert not set(message) & {"READY", "RELOADING", "STOPPING"}, (word, message)
        return message


@test
def says_ready_and_stopping(daemon):
    manager = ServiceManager(daemon)
    daemon.start(ONE, NOTIFY_SOCKET=manager.path)
    assert manager.until("READY")["READY"] == "1"
    with open(f"/proc/{daemon.pid('one')}/environ", encoding="utf-8") as file:
        assert "NOTIFY_SOCKET" not in file.read(), "a runner that is not asked to could speak for the service"
    assert daemon.stop() == 0
    manager.until("STOPPING")


@test
def says_reloading_and_ready(daemon):
    manager = ServiceManager(daemon)
    daemon.start(ONE, NOTIFY_SOCKET=manager.path)
    manager.until("READY")
    daemon.configure(TWO)
    daemon.process.send_signal(signal.SIGHUP)
    moment = int(manager.until("RELOADING")["MONOTONIC_USEC"])
    manager.until("READY")
    daemon.until_state("two", "up")
    daemon.configure(ONE)
    daemon.baton("reload")
    assert int(manager.until("RELOADING")["MONOTONIC_USEC"]) > moment
    manager.until("READY")
    daemon.configure("runners: { one: { comand: [] } }")
    daemon.process.send_signal(signal.SIGHUP)
    manager.until("RELOADING")
    manager.until("READY")
    assert daemon.status("one")["state"] == "up"


@test
def stays_the_main_process_over_a_crash(daemon):
    manager = ServiceManager(daemon)
    daemon.start(ONE, NOTIFY_SOCKET=manager.path)
    manager.until("READY")
    pid, supervisor = daemon.pid("one"), daemon.supervisor()
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: daemon.baton("status", check=False).returncode == 0 and daemon.supervisor() != supervisor, "the next one")
    assert daemon.pid("one") == pid
    assert daemon.stop() == 0
    while "STOPPING" not in (message := manager.receive()):
        assert "RELOADING" not in message, message


@test
def keeps_the_watchdog(daemon):
    manager = ServiceManager(daemon)
    daemon.start(ONE, NOTIFY_SOCKET=manager.path, WATCHDOG_USEC=str(int(500000 * FACTOR)))
    manager.until("READY")
    for _ in range(3):
        manager.until("WATCHDOG")


@test
def takeovers_are_not_noticed(daemon):
    """All that is said comes from the keeper, whose signs of life go on."""
    manager = ServiceManager(daemon)
    daemon.start(ONE, NOTIFY_SOCKET=manager.path, WATCHDOG_USEC=str(int(500000 * FACTOR)))
    manager.until("READY")
    supervisors = {daemon.supervisor()}
    for _ in range(3):
        assert daemon.baton("takeover").returncode == 0
        supervisors.add(daemon.supervisor())
        while "WATCHDOG" not in (message := manager.receive()):
            assert not set(message) & {"RELOADING", "STOPPING"}, message
    assert len(supervisors) == 4
    assert daemon.stop() == 0


@test
def unit_is_verified(daemon):
    if not shutil.which("systemd-analyze"):
        raise Skip("systemd-analyze is not installed")
    with open(os.path.join(SOURCE, "examples/systemd/baton.service.in"), encoding="utf-8") as file:
        unit = file.read().replace("@bindir@", BUILD).replace("@sysconfdir@", daemon.folder)
    path = os.path.join(daemon.folder, "baton.service")
    version = int(re.search(r"systemd (\d+)", subprocess.check_output(["systemd-analyze", "--version"], text=True))[1])
    with open(path, "w", encoding="utf-8") as file:
        file.write(unit)
    if version >= 253:
        os.mkdir(path + ".d")
        shutil.copy(os.path.join(SOURCE, "examples/systemd/notify-reload.conf"), path + ".d")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], text=True, capture_output=True, check=False,
                          env={**os.environ, "SYSTEMD_LOG_LEVEL": "notice"})
    said = [line for line in (done.stdout + done.stderr).split("\n") if "baton" in line]
    assert not said and done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    with open(path, "a", encoding="utf-8") as file:
        file.write("[Service]\nKilMode=mixed\n")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], text=True, capture_output=True, check=False)
    assert "KilMode" in done.stderr, "it finds nothing in whatever unit"


# ---- as PID 1 ----

def start_as_first(daemon, configuration, *options):
    """`baton supervise' as PID 1 of a namespace: its pid here. Its end is that of daemon.process."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        raise Skip("no pid namespace is to be had")
    daemon.configure(configuration)
    with open(daemon.log, "ab") as log:
        daemon.process = subprocess.Popen(
            [*command, BATON, "supervise", "--runtime-dir", daemon.runtime, "--state-dir", daemon.folder + "/state",
             "--log-dir", daemon.folder + "/log", *options, daemon.configuration],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=daemon.environment)
    owned.add(daemon.process.pid)
    until(daemon.answers, "an answer of the supervisor")
    first, = children(daemon.process.pid)
    with open(f"/proc/{first}/status", encoding="ascii") as file:
        assert re.search(r"^NSpid:\s+\d+\s+1$", file.read(), re.M)
    return first


def end_first(daemon, first, number):
    os.kill(first, number)
    return daemon.process.wait(10 * FACTOR)


@test
def first_process_reaps_orphans(daemon):
    # Each orphan has left the group and the session of the runner that made it, and ends by itself.
    orphans = "for i in 1 2 3 4 5; do setsid sh -c 'exec 9<fifo; read line <&9; echo $i' & done; sleep 1000"
    os.mkfifo(os.path.join(daemon.folder, "fifo"))
    first = start_as_first(daemon, f"""
runners:
  parent: {{ command: [sh, -c, "{orphans}"], cwd: {daemon.folder}, restart: never }}
  other: {{ command: [sleep, "1000"] }}
""")
    daemon.until_state("parent", "up")
    until(lambda: len(set(sessions(named(first, "sh")))) == 6, "five sessions, besides that of the runner")
    daemon.baton("signal", "parent", "KILL")
    until(lambda: len([pid for pid in children(first) if name_of(pid) == "sh"]) == 5, "the orphans, adopted")
    with open(os.path.join(daemon.folder, "fifo"), "wb", buffering=0):
        pass
    until(lambda: not [pid for pid in children(first) if name_of(pid) == "sh"], "the orphans' end, reaped")
    until(lambda: all(is_alive(pid) for pid in children(first)), "the end of every zombie")
    assert daemon.status("other")["state"] == "up"
    assert end_first(daemon, first, signal.SIGTERM) == 0


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def named(pid, *names):
    """Of the descendants."""
    found, rest = [], [pid]
    while rest:
        try:
            below = children(rest.pop())
        except OSError:
            continue
        rest += below
        found += [one for one in below if name_of(one) in names]
    return found


def sessions(pids):
    for pid in pids:
        try:
            yield os.getsid(pid)
        except ProcessLookupError:
            pass


@test
def first_process_ends_by_signals(daemon):
    for number in (signal.SIGTERM, signal.SIGINT):
        first = start_as_first(daemon, ONE)
        one = until(lambda: named(first, "sleep"), "the runner")
        assert end_first(daemon, first, number) == 0
        assert len(one) == 1 and not is_alive(one[0]) and not is_alive(first)


@test
def first_process_says_what_had_to_be_killed(daemon):
    first = start_as_first(daemon, """
runners: { deaf: { command: [sh, -c, "trap '' TERM; echo deaf; exec sleep 1000"], stop_timeout: 100ms } }
""", "--stop-timeout=500ms")
    until(lambda: "deaf" in daemon.baton("logs", "deaf").stdout, "its word")
    assert end_first(daemon, first, signal.SIGTERM) == 0, "a runner that had to be killed is no failure of the daemon"
    first = start_as_first(daemon, ONE, "--stop-timeout=500ms")
    # What it starts has its name for a moment.
    supervisor, = until(lambda: len(one := named(first, "baton-superviso")) == 1 and one, "the supervisor alone")
    os.kill(supervisor, signal.SIGSTOP)
    assert end_first(daemon, first, signal.SIGTERM) == 1, "a supervisor that hangs is"
    assert not is_alive(first) and not is_alive(supervisor)


@test
def first_process_is_told_to_shut_down(daemon):
    first = start_as_first(daemon, ONE)
    daemon.baton("shutdown")
    assert daemon.process.wait(10 * FACTOR) == 0 and not is_alive(first)


main()
