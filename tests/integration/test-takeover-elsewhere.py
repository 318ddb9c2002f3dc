#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ways in which handovers of other programs have gone wrong, which no other test walks (docs/takeover.md): the program's file is
replaced or gone, what a process inherits grows or goes stale, counters go back, connections that nobody has accepted yet are
lost, the service manager's watchdog fires, a second takeover begins in the first.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from baton_wire import control  # noqa: E402
from daemon_tests import FACTOR, HOST, TIMEOUT, is_alive, own_programs, processes, test, until  # noqa: E402

daemon_tests.LIBEXEC = daemon_tests.CHECKING

ECHO = os.path.join(daemon_tests.BUILD, "baton-runner-echo")
FLEET = f"""
runners:
  native: {{ command: [{ECHO}], ready: hello }}
  rests: {{ command: [sleep, 1001] }}
"""


def take_over(daemon, *options):
    answer = json.loads(daemon.baton("takeover", "--json", *options).stdout)
    assert answer["committed"], answer
    return answer


def kill_supervisor(daemon):
    killed = daemon.supervisor()
    os.kill(killed, signal.SIGKILL)
    until(lambda: not is_alive(killed) and daemon.baton("status", check=False).returncode == 0, "the next supervisor")
    assert daemon.supervisor() != killed


def connect(daemon):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.path.join(daemon.runtime, "control"))
    return connection


@test
def the_program_is_replaced_and_gone(daemon):
    """A takeover has what lies there now; a recovery what had served, even where its file is no more, or something else."""
    libexec = own_programs(daemon)
    program = os.path.join(libexec, "baton-supervisor")
    daemon.environment["BATON_LIBEXEC"] = libexec
    daemon.start(FLEET, BATON_LOG_LEVEL="info")
    for name in ("native", "rests"):
        daemon.until_state(name, "up")
    before, kept = processes(daemon), os.path.join(daemon.folder, "kept")
    os.rename(program, kept)
    os.symlink("/bin/true", program)  # an installation that went wrong
    for reason in ("the program ended before it could take anything", f"cannot open {program}: No such file or directory"):
        supervisor = daemon.supervisor()
        refused = daemon.baton("takeover", check=False)
        assert refused.returncode == 25 and reason in refused.stderr, refused
        assert daemon.supervisor() == supervisor and processes(daemon) == before
        kill_supervisor(daemon)
        assert os.path.samefile(f"/proc/{daemon.supervisor()}/exe", kept) and processes(daemon) == before
        if os.path.islink(program):
            os.unlink(program)
    shutil.copy(kept, program)
    assert os.path.samefile(f"/proc/{take_over(daemon)['pid']}/exe", program) and processes(daemon) == before
    os.unlink(program)
    kill_supervisor(daemon)
    assert processes(daemon) == before and daemon.stop() == 0


def inherited(pid):
    """What an exec hands over: words, environment, signals, limits, directory."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().split(b"\0")
    with open(f"/proc/{pid}/environ", "rb") as file:
        environment = file.read().split(b"\0")
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        signals = re.findall(r"^Sig(?:Blk|Ign|Cgt):\s+\w+$", file.read(), re.M)
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        limits = file.read()
    return ([word for word in words if not word.startswith((b"--generation=", b"--handover="))], environment, signals, limits,
            os.readlink(f"/proc/{pid}/cwd"))


@test
def what_is_inherited_stays(daemon):
    """Over a row of takeovers, of the supervisor and of the keeper: nothing is lost, added, or from a process before."""
    daemon.start(FLEET, BATON_TEST_MARK="here")
    take_over(daemon)  # the first of all had no one before it
    keeper, supervisor = daemon.keeper(), daemon.supervisor()
    first = inherited(supervisor), inherited(keeper)[1:]
    assert first[0][1].count(b"BATON_TEST_MARK=here") == 1
    for _ in range(5):
        daemon.baton("takeover", "--keeper")
        pid = take_over(daemon)["pid"]
        assert (inherited(pid), inherited(keeper)[1:]) == first
    kill_supervisor(daemon)
    assert inherited(daemon.supervisor())[1:] == first[0][1:]
    assert daemon.stop() == 0


COUNTERS = re.compile(r"^(\w+_(?:total|count|sum|bucket)(?:\{.*\})?) ([0-9.e+]+)$", re.M)


@test
def counters_never_go_back(daemon):
    """Whatever is counted for ever, of all that is told, while runners end and clients come."""
    daemon.start(FLEET + """
  ends: { command: [sh, -c, "echo one; echo two; exit 3"], restart: always, backoff: { initial: 5ms, max: 5ms },
          intensity: { restarts: 0 } }
""")
    daemon.until_state("native", "up")
    until(lambda: daemon.status("ends")["restarts"] > 3, "some ends")
    crowd = [connect(daemon) for _ in range(520)]  # more than there may be
    crowd[-1].recv(1)
    for connection in crowd:
        connection.close()
    until(lambda: re.search(r"^baton_control_refused_total [1-9]", daemon.baton("metrics", check=False).stdout, re.M), "refused ones")
    names, before = set(), {}
    for _ in range(8):
        now = {name: float(value) for name, value in COUNTERS.findall(daemon.baton("metrics").stdout)}
        back = {name: (value, now.get(name)) for name, value in before.items() if now.get(name, -1) < value}
        assert not back, back
        before, names = now, names | {name.split("{")[0] for name in now}
        take_over(daemon)
    assert len(names) >= 8 and any(value > 3 for value in before.values()), names
    assert daemon.stop() == 0


@test
def who_waits_in_the_queue_is_served(daemon):
    """Connections that the kernel has taken and nobody has accepted: of the control socket, and of a runner's listener that
    belongs to supervisors."""
    probe = socket.socket()
    probe.bind((HOST, 0))
    port = probe.getsockname()[1]
    probe.close()
    gate = os.path.join(daemon.folder, "gate")
    os.mkfifo(gate)
    program = ("import socket, sys; open(sys.argv[1]).close(); s = socket.socket(fileno=3)\n"
               "while True:\n  c, _ = s.accept(); c.sendall(b'hello'); c.close()")
    daemon.start(json.dumps({"runners": {"web": {
        "command": [sys.executable, "-S", "-c", program, gate],
        "sockets": [{"tcp": f"{HOST}:{port}"}]}}}))
    daemon.until_state("web", "up")
    clients = [socket.create_connection((HOST, port), TIMEOUT) for _ in range(5)]
    for _ in range(2):
        supervisor = daemon.supervisor()
        os.kill(supervisor, signal.SIGSTOP)  # what comes now it has not accepted
        waiting = [connect(daemon) for _ in range(5)]
        os.kill(supervisor, signal.SIGCONT)
        take_over(daemon)
        for connection in waiting:
            connection.settimeout(TIMEOUT)
            peer = wire.Peer(connection, side=1)
            call = peer.wait(peer.message("baton.Control/Takeovers", control.TakeoversRequest()))
            assert call.status == wire.OK, call.message
            peer.lane.close()
        kill_supervisor(daemon)
    with open(gate, "wb", buffering=0):
        pass
    for client in clients:
        assert client.recv(16) == b"hello"
        client.close()
    assert daemon.stop() == 0


@test
def a_second_in_the_first(daemon):
    daemon.start(FLEET)
    supervisor = daemon.supervisor()
    hangs = os.path.join(daemon.folder, "hangs")
    shutil.copy(os.path.join(daemon_tests.BUILD, "tests", "keeper-impostor"), hangs)
    first = subprocess.Popen([daemon_tests.BATON, "takeover", "--exec", hangs], env=daemon.environment,
                             stderr=subprocess.PIPE, text=True)
    daemon_tests.owned.add(first.pid)

    def is_there():
        for pid in daemon_tests.children(daemon.keeper()):
            try:
                if os.path.samefile(f"/proc/{pid}/exe", hangs):
                    return pid
            except OSError:
                pass
        return 0

    successor = until(is_there, "the successor")
    for options, reason in (([], "one is under way"), (["--keeper"], "under way")):
        refused = daemon.baton("takeover", *options, check=False)
        assert refused.returncode == 25 and reason in refused.stderr, refused
    os.kill(successor, signal.SIGKILL)
    assert first.wait(TIMEOUT) != 0 and f"pid {supervisor} goes on" in first.stderr.read()
    first.stderr.close()
    assert take_over(daemon)["former_pid"] == supervisor and take_over(daemon) and daemon.stop() == 0


@test
def the_watchdog_goes_on(daemon):
    """A successor that hangs while the predecessor is frozen: the service manager hears of us in time, all along."""
    path, interval = os.path.join(daemon.folder, "notify"), 3 * FACTOR
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(path)
    manager.settimeout(interval)  # it would kill us
    libexec = os.path.join(daemon.folder, "libexec")
    os.mkdir(libexec)
    for name in ("baton-keeper", "baton-supervisor"):
        os.symlink(os.path.join(daemon_tests.CHECKING, name), os.path.join(libexec, name))
    daemon.environment["BATON_LIBEXEC"] = libexec
    daemon.start(FLEET, NOTIFY_SOCKET=path, WATCHDOG_USEC=str(int(interval * 1e6)))
    supervisor = daemon.supervisor()
    begun = subprocess.Popen([daemon_tests.BATON, "takeover", "--timeout", f"{int(1400 * interval)}ms", "--fault",
                              "delta@successor:hang"], env=daemon.environment, stderr=subprocess.PIPE, text=True)
    daemon_tests.owned.add(begun.pid)
    while begun.poll() is None:
        until(lambda: b"WATCHDOG=1" in manager.recv(4096), "a sign of life")
    assert begun.returncode == 25 and "goes on" in (said := begun.stderr.read()), said
    begun.stderr.close()
    assert daemon.supervisor() == supervisor
    manager.settimeout(TIMEOUT)
    take_over(daemon)
    manager.close()
    assert daemon.stop() == 0


daemon_tests.main()
