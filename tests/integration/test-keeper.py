#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The keeper replaced in its own process (baton takeover --keeper): nothing of the tree is lost, whatever happens meanwhile;
what fails changes nothing. And the end of the ladder: a supervisor that hangs is replaced by force, one that cannot be started
any more leaves its runners running.
"""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from baton_wire import control  # noqa: E402
from daemon_tests import TIMEOUT, is_alive, own_programs, test, until  # noqa: E402

ECHO = os.path.join(daemon_tests.BUILD, "baton-runner-echo")
IMPOSTOR = os.path.join(daemon_tests.BUILD, "tests", "keeper-impostor")
KEEPER_ALONE = 48
FLEET = f"""
runners:
  native: {{ command: [{ECHO}], ready: hello }}
  rests: {{ command: [sleep, 1001] }}
  short: {{ command: [sh, -c, "exit 3"], restart: always, backoff: {{ initial: 10ms, max: 10ms }}, intensity: {{ restarts: 0 }} }}
  waits: {{ command: [sh, -c, "exit 4"], restart: always, backoff: {{ initial: 1h, max: 1h }} }}
  many: {{ command: [sleep, 1002], instances: 20, restart: always, backoff: {{ initial: 0 }}, intensity: {{ restarts: 0 }} }}
"""


def replace(daemon, *options, **more):
    return daemon.baton("takeover", "--keeper", *options, **more)


def start(daemon, text=FLEET, **environment):
    daemon.start(text, BATON_LOG_LEVEL="info", **environment)
    for name in ("native", "rests"):
        daemon.until_state(name, "up")


def pids(daemon, *but):
    return {r["name"]: r["pid"] for r in daemon.status()["runners"] if r["name"] not in ("short", "waits", *but)}


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def attach(daemon):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.path.join(daemon.runtime, "control"))
    attacher = wire.Peer(connection, side=1)
    call = attacher.wait(attacher.message("baton.Control/Attach", control.AttachRequest(name="native")))
    assert call.status == wire.OK, call.message
    response = control.AttachResponse.FromString(call.payload)
    return attacher, wire.Peer(socket.socket(fileno=call.fds[response.lane]), side=0)


def impostor(daemon, name):
    path = os.path.join(daemon.folder, name)
    shutil.copy(IMPOSTOR, path)
    return path


def hanging(daemon):
    """The keeper's children that execute `hangs'; others may end while they are looked at."""
    found = []
    for pid in daemon_tests.children(daemon.keeper()):
        try:
            if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "hangs":
                found.append(pid)
        except OSError:
            pass
    return found


@test
def ten_in_a_row(daemon):
    """With takeovers of the supervisor in between, and runners that start and end all the time."""
    start(daemon)
    keeper, before, fds = daemon.keeper(), pids(daemon), []
    attacher, attached = attach(daemon)
    for n in range(10):
        answer = json.loads(replace(daemon, "--json").stdout)
        assert answer["replaced"] and answer["keeper"] == keeper, answer
        fds.append(descriptors(keeper))
        assert attached.call("echo.Echo/Unary", b"%d" % n).payload == b"%d" % n
        if n % 3 == 0:
            daemon.baton("takeover")
    assert daemon.keeper() == keeper and pids(daemon) == before
    assert max(fds) - min(fds) <= 6, fds  # of `short', which comes and goes
    short = daemon.status("short")["restarts"]
    until(lambda: daemon.status("short")["restarts"] > short + 3, "its next ends")
    assert daemon.status("waits")["state"] == "backoff"
    daemon.baton("restart", "native")
    second = subprocess.run([daemon_tests.BATON, "supervise", "--runtime-dir", daemon.runtime, daemon.configuration],
                            env=daemon.environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert second.returncode == 1 and f"pid {keeper}" in second.stderr, second.stderr  # the lock went along
    attacher.lane.close()
    attached.lane.close()


@test
def ends_meanwhile(daemon):
    """Runners that are killed while the keeper is replaced: each end is heard of, once."""
    start(daemon)
    for n in range(5):
        victims = [r["pid"] for r in daemon.status()["runners"] if r["name"].startswith("many.")]
        client = subprocess.Popen([daemon_tests.BATON, "takeover", "--keeper"], env=daemon.environment,
                                  stdout=subprocess.DEVNULL)
        daemon_tests.owned.add(client.pid)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        assert client.wait(TIMEOUT) == 0

        def all_again():
            runners = [r for r in daemon.status()["runners"] if r["name"].startswith("many.")]
            return all(r["state"] == "up" and r["restarts"] == n + 1 for r in runners)

        until(all_again, f"restart {n + 1} of each")


@test
def failures_change_nothing(daemon):
    start(daemon)
    keeper, before, fds = daemon.keeper(), pids(daemon), descriptors(daemon.keeper())
    script = os.path.join(daemon.folder, "script")
    with open(script, "w", encoding="ascii") as file:
        file.write("#!/bin/sh\nexit 0\n")
    plain = os.path.join(daemon.folder, "plain")
    shutil.copy(script, plain)
    os.chmod(script, 0o755)
    cut = os.path.join(daemon.folder, "cut")
    with open(os.path.join(daemon_tests.BUILD, "baton-keeper"), "rb") as whole, open(cut, "wb") as file:
        file.write(whole.read(20000))
    os.chmod(cut, 0o755)
    rows = [("/nowhere/keeper", "cannot open /nowhere/keeper: No such file"), (plain, "Permission denied"),
            (script, "a script"), ("/bin/true", "exited with status 0 in the rehearsal, without a word"),
            (os.path.join(daemon_tests.BUILD, "baton-supervisor"), "exited with status 2 in the rehearsal"),
            (impostor(daemon, "dies"), "killed by signal 6 SIGABRT in the rehearsal"),
            (impostor(daemon, "mute"), "without a word"), (cut, "in the rehearsal")]
    for path, reason in rows:
        failed = replace(daemon, "--exec", path, check=False)
        assert failed.returncode == 25 and reason in failed.stderr, (path, failed)
        assert daemon.keeper() == keeper and pids(daemon) == before
    daemon.baton("stop", "short")
    until(lambda: descriptors(keeper) <= fds, "the descriptors of before")
    assert "could be replaced" in replace(daemon, "--check").stdout
    assert daemon.said().count("the keeper is not replaced: ") == 2 * (len(rows) - 1)  # keeper, and who asked
    replace(daemon)


def with_limit(daemon, resource_number, limit):
    """Of the keeper, and so of whatever it executes; returns the one before."""
    return resource.prlimit(daemon.keeper(), resource_number, limit)


@test
def without_memory(daemon):
    """What is executed has no room for a stack: the copy finds that out, and not the keeper."""
    if os.environ.get("BATON_TEST_INSTRUMENTED"):
        raise daemon_tests.Skip("instrumented programs need all the memory there is")
    start(daemon)
    keeper, before = daemon.keeper(), pids(daemon)
    limit = with_limit(daemon, resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
    failed = replace(daemon, check=False)
    assert failed.returncode == 25 and "in the rehearsal" in failed.stderr, failed
    assert daemon.keeper() == keeper and pids(daemon) == before
    with_limit(daemon, resource.RLIMIT_AS, limit)
    replace(daemon)
    assert pids(daemon) == before


@test
def without_descriptors(daemon):
    """None for the rehearsal, and none after it: refused, with the reason; when there are some, it is done."""
    start(daemon)
    keeper = daemon.keeper()
    daemon.baton("stop", "short", "many.*")  # which would need some, too
    before = pids(daemon, *(f"many.{n}" for n in range(1, 21)))
    limit = with_limit(daemon, resource.RLIMIT_NOFILE, (8, resource.prlimit(keeper, resource.RLIMIT_NOFILE)[1]))
    failed = replace(daemon, check=False)
    assert failed.returncode == 25 and "Too many open files" in failed.stderr, failed
    with_limit(daemon, resource.RLIMIT_NOFILE, limit)
    failed = replace(daemon, "--exec", impostor(daemon, "starves"), check=False)
    assert failed.returncode == 25 and "exec: Too many open files" in failed.stderr, failed
    with_limit(daemon, resource.RLIMIT_NOFILE, limit)
    assert daemon.keeper() == keeper and os.readlink(f"/proc/{keeper}/exe").endswith("baton-keeper")
    replace(daemon)
    daemon.baton("start", "many.1")
    assert all(daemon.pid(name) == pid for name, pid in before.items())


@test
def one_that_turns_back(daemon):
    """A program that was fine in the rehearsal and is not afterwards: the one before goes on, with everything."""
    start(daemon)
    keeper, before = daemon.keeper(), pids(daemon)
    failed = replace(daemon, "--exec", impostor(daemon, "turncoat"), check=False)
    assert failed.returncode == 25 and "could not go on" in failed.stderr, failed
    assert daemon.keeper() == keeper and pids(daemon) == before
    assert os.readlink(f"/proc/{keeper}/exe").endswith("baton-keeper")
    replace(daemon)
    daemon.baton("takeover")


@test
def one_that_hangs(daemon):
    """In the rehearsal: everything goes on meanwhile, a second request and a takeover are refused."""
    start(daemon)
    client = subprocess.Popen([daemon_tests.BATON, "takeover", "--keeper", "--exec", impostor(daemon, "hangs")],
                              env=daemon.environment, stderr=subprocess.PIPE, text=True)
    daemon_tests.owned.add(client.pid)
    rehearsal = until(lambda: hanging(daemon), "the rehearsal")[0]
    for options in (["--keeper"], []):
        refused = daemon.baton("takeover", *options, check=False)
        assert refused.returncode == 25 and "is under way" in refused.stderr, refused
    daemon.baton("restart", "rests")
    os.kill(rehearsal, signal.SIGKILL)
    assert client.wait(TIMEOUT) == 25 and "killed by signal 9" in client.stderr.read()
    client.stderr.close()
    replace(daemon)


@test
def the_supervisor_dies_meanwhile(daemon):
    start(daemon)
    before = pids(daemon)
    client = subprocess.Popen([daemon_tests.BATON, "takeover", "--keeper", "--exec", impostor(daemon, "hangs")],
                              env=daemon.environment, stderr=subprocess.DEVNULL)
    daemon_tests.owned.add(client.pid)
    rehearsal = until(lambda: hanging(daemon), "the rehearsal")[0]
    os.kill(daemon.supervisor(), signal.SIGKILL)
    assert client.wait(TIMEOUT) != 0
    until(lambda: not is_alive(rehearsal), "the end of the rehearsal")
    assert pids(daemon) == before
    replace(daemon)


@test
def a_service(daemon):
    """The service manager is told what it was told before, by the same process."""
    path = os.path.join(daemon.folder, "notify")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(path)
    manager.settimeout(TIMEOUT)
    start(daemon, NOTIFY_SOCKET=path, WATCHDOG_USEC=str(int(1500000 * daemon_tests.FACTOR)))
    until(lambda: b"READY=1" in manager.recv(4096), "READY")
    replace(daemon)
    for _ in range(5):
        until(lambda: b"WATCHDOG=1" in manager.recv(4096), "a sign of life")
    assert "goes on" in daemon.said()
    daemon.baton("reload")
    until(lambda: b"RELOADING=1" in manager.recv(4096), "RELOADING")
    daemon.stop()
    until(lambda: b"STOPPING=1" in manager.recv(4096), "STOPPING")
    manager.close()


# ------------------------------------------------------------------------------------------------------------- by force

def force(daemon, *options, **more):
    return daemon.baton("takeover", "--force", *options, timeout=6 * TIMEOUT, **more)


@test
def by_force(daemon):
    start(daemon)
    before, supervisor = pids(daemon), daemon.supervisor()
    refused = force(daemon, check=False)
    assert refused.returncode == 25 and f"(pid {supervisor}) answers" in refused.stderr, refused
    assert daemon.supervisor() == supervisor
    attacher, attached = attach(daemon)
    os.kill(supervisor, signal.SIGSTOP)
    said = json.loads(force(daemon, "--json").stdout)
    assert said["former_pid"] == supervisor and "SIGABRT" in said["reason"] and said["keeper"] == daemon.keeper(), said
    assert said["pid"] != supervisor and not is_alive(supervisor)
    assert attached.call("echo.Echo/Unary", b"still").payload == b"still"
    assert pids(daemon) == before
    for options in (["--keeper"], ["--check"], ["--exec", "/bin/true"]):
        assert force(daemon, *options, check=False).returncode == 2
    attacher.lane.close()
    attached.lane.close()


@test
def by_force_of_a_stranger(daemon):
    if os.geteuid() != 0:
        raise daemon_tests.Skip("only root can be two users")
    start(daemon)
    os.chmod(daemon.folder, 0o755)
    supervisor = daemon.supervisor()
    os.kill(supervisor, signal.SIGSTOP)
    try:
        refused = subprocess.run([daemon_tests.BATON, "takeover", "--force"], env=daemon.environment, text=True,
                                 capture_output=True, timeout=6 * TIMEOUT, check=False, user=65534, group=65534)
        assert refused.returncode in (23, 126) and is_alive(supervisor), refused
    except PermissionError:  # the build is where strangers do not come
        pass
    finally:
        os.kill(supervisor, signal.SIGCONT)


# ---------------------------------------------------------------------------------------------------- the end of the ladder

@test
def none_can_be_started(daemon):
    """Past the limit runners go on, one line says so, and so does every command; it goes on where somebody wants it to."""
    libexec = own_programs(daemon)
    program = os.path.join(libexec, "baton-supervisor")
    daemon.configure(FLEET)
    command = [os.path.join(libexec, "baton-keeper"), "--runtime-dir", daemon.runtime, "--state-dir",
               daemon.folder + "/state", "--log-dir", daemon.folder + "/log", "--socket", daemon.runtime + "/control",
               "--restart-delay=1ms", daemon.configuration]
    daemon.environment["BATON_LIBEXEC"] = libexec
    with open(daemon.log, "ab") as log:
        daemon.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env=daemon.environment)
    daemon_tests.owned.add(daemon.process.pid)
    until(daemon.answers, "the control socket")
    for name in ("native", "rests"):
        daemon.until_state(name, "up")
    before, keeper = pids(daemon), daemon.keeper()
    for way in ("HUP", "force"):
        os.chmod(program, 0o644)
        os.kill(daemon.supervisor(), signal.SIGKILL)
        until(lambda: "no supervisor runs: it died too often; runners go on:" in daemon.said(), "the last line")
        assert all(is_alive(pid) for pid in before.values())
        alone = daemon.baton("status", check=False)
        assert alone.returncode == KEEPER_ALONE and f"the keeper (pid {keeper}) runs, but no supervisor" in alone.stderr
        assert daemon.said().count("no supervisor runs: it died too often") == 1
        os.chmod(program, 0o755)
        if way == "HUP":
            os.kill(keeper, signal.SIGHUP)
        else:
            force(daemon)
        until(daemon.answers, "an answer")
        assert pids(daemon) == before
        os.truncate(daemon.log, 0)


daemon_tests.main()
