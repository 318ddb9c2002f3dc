#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The upgrade of a native runner, from the supervisor's side: another process has its state and serves; calls by way of the
supervisor lose nothing; whatever fails on the way, and whoever is killed, one of the two serves at the end and nothing is left.
"""

import json
import os
import signal
import subprocess
import threading

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from daemon_tests import FACTOR, is_alive, test, until  # noqa: E402
from state_runner import RUNNER, call, plan, who  # noqa: E402


def start(daemon, *arguments, **keys):
    daemon.plan = os.path.join(daemon.folder, "plan")
    command = json.dumps([RUNNER, "--plan", daemon.plan, *arguments])
    more = "".join(f", {key}: {value}" for key, value in keys.items())
    daemon.start(f"runners:\n  s: {{ command: {command}, ready: hello{more} }}\n", BATON_LOG_LEVEL="info")
    return daemon.until_state("s", "up")


def upgrade(daemon, *options):
    return json.loads(daemon.baton("upgrade", "s", "--json", *options, timeout=60).stdout)


def fails(daemon, code, text, *options):
    done = daemon.baton("upgrade", "s", *options, check=False, timeout=60)
    assert done.returncode == code and text in done.stderr, (done.returncode, done.stdout, done.stderr)
    return done.stderr


def runners(daemon):
    """Processes of the runner that live."""
    def is_one(pid):
        try:
            return os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "state-runner"
        except OSError:  # it has ended meanwhile
            return False
    return [pid for pid in daemon_tests.descendants(daemon.keeper()) if is_one(pid)]


def serves(daemon, pid, value):
    """That process alone is there, and has the state."""
    # That a process has ended is seen here before the supervisor is told.
    until(lambda: runners(daemon) == [pid] and "past" not in daemon.status("s"), "the end of the other one")
    assert call(daemon, "Get") == value and who(daemon)[0] == pid
    status = daemon.status("s")
    assert status["state"] == "up" and status["pid"] == pid and status["service_state"] == 2, status
    assert "upgrade_phase" not in status, status


@test
def another_process_goes_on(daemon):
    before = start(daemon, "--size", 1000, "--fds", 3)["pid"]
    call(daemon, "Add", 41)
    done = upgrade(daemon)
    assert done["outcome"] == "upgraded" and done["pid"] != before and done["upgrade"]["done"], done
    serves(daemon, done["pid"], "41")
    assert who(daemon) == (done["pid"], "state", 1000, 3)
    status = daemon.status("s")
    assert status["upgrades_done"] == 1 and status["restarts"] == 0, status
    assert status["last_exit"]["cause"] == "stopped" and status["last_exit"]["pid"] == before, status
    assert call(daemon, "Add") == "42"


@test
def a_check_changes_nothing(daemon):
    before = start(daemon)["pid"]
    call(daemon, "Add", 7)
    assert daemon.baton("upgrade", "s", "--check").stdout == "s: an upgrade would succeed\n"
    serves(daemon, before, "7")
    plan(daemon, "restore=refuse")
    assert "no restore today" in fails(daemon, 26, "Takeover", "--check")
    serves(daemon, before, "7")
    events = daemon.baton("events", "--json").stdout
    assert "runner_upgraded" not in events, events


@test
def to_another_program(daemon):
    start(daemon)
    call(daemon, "Add", 5)
    script = os.path.join(daemon.folder, "new 100%")
    with open(script, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\nexec {RUNNER} --name new \"$@\"\n")
    os.chmod(script, 0o755)
    done = upgrade(daemon, "--exec", script)
    assert who(daemon)[:2] == (done["pid"], "new")
    daemon.baton("restart", "s")
    assert who(daemon)[1] == "new"
    fails(daemon, 26, "No such file or directory", "--exec", "/nope")
    assert who(daemon)[1] == "new"


@test
def a_large_state_and_many_descriptors_cross(daemon):
    start(daemon, "--size", 10 << 20, "--fds", 1000)
    done = upgrade(daemon)
    assert who(daemon) == (done["pid"], "state", 10 << 20, 1000)


@test
def one_that_cannot_says_why(daemon):
    daemon.start(f"""runners:
  echo: {{ command: [{daemon_tests.BUILD}/baton-runner-echo], ready: hello }}
  down: {{ command: [{RUNNER}], ready: hello, autostart: false }}
  once: {{ command: [sleep, 1000], oneshot: true }}
""")
    daemon.until_state("echo", "up")
    for name, text in (("echo", "keeps its state to itself"), ("down", "is not up"), ("once", "is not up")):
        done = daemon.baton("upgrade", name, check=False)
        assert done.returncode == 25 and text in done.stderr, (name, done.stderr)
    assert daemon.baton("upgrade", "nobody", check=False).returncode == 21


@test
def no_supervised_call_is_lost(daemon):
    start(daemon)
    peer = connect(daemon)
    stop, counts = threading.Event(), []

    def work():
        n = 0
        while not stop.is_set():
            request = wire.control.CallRequest(name="s", method="state.Counter/Add")
            answer = peer.wait(peer.message("baton.Control/Call", request))
            assert answer.status == wire.OK, (answer.status, answer.message)
            n += 1
            assert answer.payload == b"%d" % n, (answer.payload, n)
            counts.append(n)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(10):
            upgrade(daemon)
            before = len(counts)
            until(lambda: len(counts) > before or not thread.is_alive(), "more calls")
    finally:
        stop.set()
        thread.join()
    assert call(daemon, "Get") == str(len(counts)) and len(counts) >= 10
    peer.close()


@test
def calls_that_are_open_end_in_the_predecessor(daemon):
    before = start(daemon)["pid"]
    peer, flag = connect(daemon), os.path.join(daemon.folder, "flag")
    request = wire.control.CallRequest(name="s", method="state.Counter/Wait", payload=flag.encode())
    waiting = peer.message("baton.Control/Call", request)
    until(lambda: info(daemon)["calls"] == 1, "the call")
    after = upgrade(daemon)["pid"]
    assert who(daemon)[0] == after and daemon.status("s")["past"] == 1 and is_alive(before)
    with open(flag, "w", encoding="utf-8"):
        pass
    answer = peer.wait(waiting)
    assert answer.status == wire.OK and answer.payload == b"%d" % before, (answer.status, answer.message, answer.payload)
    serves(daemon, after, "0")
    peer.close()


@test
def one_that_does_not_end_is_killed_at_the_deadline(daemon):
    before = start(daemon, upgrade="{ drain: 200ms }", stop_timeout="300ms")["pid"]
    peer = connect(daemon)
    waiting = peer.message("baton.Control/Call", wire.control.CallRequest(
        name="s", method="state.Counter/Wait", payload=b"/nowhere/at/all"))
    until(lambda: info(daemon)["calls"] == 1, "the call")
    after = upgrade(daemon)["pid"]
    assert peer.wait(waiting).status == wire.UNAVAILABLE
    serves(daemon, after, "0")
    until(lambda: not is_alive(before), "its end")
    peer.close()


@test
def a_successor_that_fails_leaves_the_predecessor(daemon):
    before = start(daemon, start_timeout=f"{2 * FACTOR:g}s", upgrade=f"{{ timeout: {FACTOR:g}s }}")["pid"]
    call(daemon, "Add", 3)
    for line, phase in (("restore=refuse", "crossing"), ("restore=die", "crossing"), ("restore=hang", "crossing"),
                        ("start=refuse", "beginning"), ("start=die", "beginning"), ("start=hang", "beginning")):
        plan(daemon, line)
        fails(daemon, 26, f"upgrade failed while {phase}")
        serves(daemon, before, "3")
    assert daemon.status("s")["upgrades_failed"] == 6
    plan(daemon)
    upgrade(daemon)
    assert call(daemon, "Get") == "3"


@test
def a_predecessor_that_refuses_serves_on(daemon):
    plan_file = os.path.join(daemon.folder, "plan")
    for line in ("stop=refuse", "save=refuse"):
        with open(plan_file, "w", encoding="utf-8") as file:
            file.write(line + "\n")
        before = start(daemon)["pid"]
        plan(daemon)
        fails(daemon, 26, "upgrade failed while crossing: the predecessor")
        serves(daemon, before, "0")
        upgrade(daemon)
        daemon.stop()


@test
def a_predecessor_that_dies_is_restarted(daemon):
    with open(os.path.join(daemon.folder, "plan"), "w", encoding="utf-8") as file:
        file.write("save=die\n")
    before = start(daemon)["pid"]
    plan(daemon)
    fails(daemon, 26, "it is not running")
    after = until(lambda: (s := daemon.status("s"))["state"] == "up" and s.get("pid", before) != before and s["pid"], "the next one")
    serves(daemon, after, "0")


def reload_with(daemon, value, *options, check=True):
    """The runner as it was started, with another environment."""
    command = json.dumps([RUNNER, "--plan", daemon.plan])
    daemon.configure(f"runners:\n  s: {{ command: {command}, ready: hello, env: {{ WORD: {value} }} }}\n")
    return daemon.baton("reload", *options, check=check, timeout=60)


def word(pid):
    with open(f"/proc/{pid}/environ", encoding="utf-8") as file:
        return dict(line.split("=", 1) for line in file.read().split("\0") if line).get("WORD")


@test
def a_reload_upgrades_one_that_can(daemon):
    before = start(daemon)["pid"]
    peer = connect(daemon)
    stop, counts, failed = threading.Event(), [], []

    def work():
        request = wire.control.CallRequest(name="s", method="state.Counter/Add")
        while not stop.is_set() and not failed:
            answer = peer.wait(peer.message("baton.Control/Call", request))
            if answer.status == wire.OK:
                counts.append(int(answer.payload))
            else:
                failed.append((answer.status, answer.message))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        until(lambda: len(counts) > 10 or failed, "calls before")
        assert reload_with(daemon, "one", "--dry-run").stdout == "~ s: env (upgrade)\n"
        assert daemon.pid("s") == before and not daemon.status("s").get("upgrades")
        assert reload_with(daemon, "one").stdout == "~ s: env (upgrade)\n"
        middle = daemon.pid("s")
        assert middle != before and word(middle) == "one"
        change, = json.loads(reload_with(daemon, "two", "--json").stdout)["changes"]
        assert change == {"name": "s", "action": "upgrade", "keys": ["env"], "upgrades": 1, "restarts": 0,
                          "failures": []}, change
        after, seen = daemon.pid("s"), len(counts)
        assert after != middle and word(after) == "two"
        until(lambda: len(counts) > seen + 10 or failed, "calls after")
    finally:
        stop.set()
        thread.join()
    peer.close()
    assert not failed and counts == list(range(1, len(counts) + 1)), (failed, len(counts))
    serves(daemon, after, str(len(counts)))
    assert daemon.status("s")["upgrades_done"] == 2 and daemon.status("s")["restarts"] == 0


@test
def a_reload_whose_successor_fails_leaves_the_predecessor(daemon):
    before = start(daemon)["pid"]
    call(daemon, "Add", 7)
    plan(daemon, "restore=refuse")
    done = reload_with(daemon, "one", check=False)
    assert done.returncode == 26 and done.stdout == "~ s: env (upgrade)\n", (done.returncode, done.stdout)
    assert "reload: runner s: upgrade failed while crossing: the successor: Takeover" in done.stderr, done.stderr
    assert f"pid {before} serves with its former configuration" in done.stderr, done.stderr
    serves(daemon, before, "7")
    assert word(before) is None and daemon.status("s")["upgrades_failed"] == 1
    assert daemon.baton("reload").stdout == "nothing has changed\n"
    plan(daemon)
    assert word(upgrade(daemon)["pid"]) == "one" and call(daemon, "Get") == "7"


@test
def a_reload_restarts_one_that_cannot(daemon):
    echo = [daemon_tests.BUILD + "/baton-runner-echo"]

    def config(value):
        return f"""runners:
  echo: {{ command: {json.dumps(echo)}, ready: hello, env: {{ WORD: {value} }} }}
  t: {{ command: [{RUNNER}], ready: hello, service: manual, instances: 3, env: {{ WORD: {value} }} }}
  plain: {{ command: [sleep, 1000], env: {{ WORD: {value} }} }}
"""
    daemon.start(config("one"))
    for name in ("echo", "plain", "t.1", "t.2", "t.3"):
        daemon.until_state(name, "up")
    for name in ("t.1", "t.3"):
        daemon.baton("service", name, "mount")
        daemon.baton("service", name, "start")
    before = {name: daemon.pid(name) for name in ("echo", "plain", "t.1", "t.2", "t.3")}
    daemon.configure(config("two"))
    expected = "~ echo: env (restart)\n~ plain: env (restart)\n~ t: env (upgrade 2, restart 1)\n"
    done = daemon.baton("reload", "--dry-run").stdout
    assert done == expected, done
    assert {name: daemon.pid(name) for name in before} == before
    done = daemon.baton("reload", timeout=60).stdout
    assert done == expected, done
    assert all(word(daemon.pid(name)) == "two" and daemon.pid(name) != pid for name, pid in before.items())
    done = {name: daemon.status(name).get("upgrades_done", 0) for name in before}
    assert done == {"echo": 0, "plain": 0, "t.1": 1, "t.2": 0, "t.3": 1}, done


@test
def a_supervisor_that_is_killed_in_the_middle(daemon):
    """Before the commit the predecessor serves afterwards, after it the successor; never none, never two."""
    start(daemon, start_timeout="3s")
    call(daemon, "Add", 9)
    for line, commits in (("nothing=once", False), ("restore=hang", False), ("start=hang", True)):
        before = daemon.pid("s")
        plan(daemon, line)
        running = subprocess.Popen([daemon_tests.BATON, "upgrade", "s"], env=daemon.environment,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        daemon_tests.owned.add(running.pid)
        phase = {"nothing=once": None, "restore=hang": "crossing", "start=hang": "beginning"}[line]
        if phase:
            until(lambda: daemon.status("s").get("upgrade_phase") == phase, phase)
        supervisor = daemon.supervisor()
        os.kill(supervisor, signal.SIGKILL)
        running.wait()
        plan(daemon)
        until(lambda: answers(daemon) and daemon.supervisor() != supervisor, "another supervisor", 60)
        until(lambda: len(runners(daemon)) == 1 and daemon.status("s")["state"] == "up", "one that serves", 60)
        if phase and not commits:
            assert daemon.pid("s") == before
            until(lambda: daemon.status("s").get("service_state") == 2, "its service")
            assert call(daemon, "Get") == "9"


def answers(daemon):
    return daemon.baton("status", "--json", check=False).returncode == 0


def connect(daemon):
    import socket
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.path.join(daemon.runtime, "control"))
    return wire.Peer(connection, side=1)


def info(daemon):
    return json.loads(daemon.baton("service", "s", "info", "--json").stdout)["service"]


daemon_tests.main()
