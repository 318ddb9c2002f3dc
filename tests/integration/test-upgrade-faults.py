#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The fault matrix of an upgrade: each phase, each fault, each side. One of the two serves afterwards, with the state; where both
are gone, or the one that is there does not go on, its restart policy has made another. A client that is attached keeps its connection as
long as one of the two lives. The failure has a name and a phase, no process and no descriptor is left."""

import contextlib
import json
import os
import signal
import socket
import subprocess

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from baton_wire import control  # noqa: E402
from daemon_tests import BATON, BUILD, FACTOR, TIMEOUT, is_alive, main, owned, test, until  # noqa: E402

RUNNER = os.path.join(BUILD, "tests", "state-runner")
SHORT, LONG = f"{int(2000 * FACTOR)}ms", "1h"
DEATHS = 3  # that the keeper takes for single ones
GROUP = 20  # runners of one connection, whose socket holds so much

# Where each is held up: the phase, what the predecessor does, what the successor does.
PLACES = {
    "begin": ("starting", "", "begin"),
    "stop": ("crossing", "stop", ""),
    "save": ("crossing", "save", ""),
    "restore": ("crossing", "", "restore"),
    "commit": ("committing", "", "restore"),  # and the keeper does not answer
    "start": ("beginning", "", "start"),
    "resume": ("resuming", "resume", "=restore=refuse"),
    "health": ("watching", "", ""),
}


class Row:
    """One upgrade of the runner @name, and what comes of it."""

    def __init__(self, daemon, place, what, name="s"):
        self.daemon, self.place, self.name = daemon, place, name
        self.plan = os.path.join(daemon.folder, f"plan-{name}")
        phase, old, new = PLACES[place]
        self.phase = phase
        self.write(f"{old}={what}" if old else "")
        daemon.baton("restart", name, timeout=6 * TIMEOUT)
        until(lambda: daemon.status(name)["state"] == "up", "the predecessor", 6 * TIMEOUT)
        daemon.baton("call", "--raw", name, "--", "state.Counter/Add", "string:9")
        self.old = daemon.pid(name)
        self.client = self.attach()
        self.supervisor = daemon.supervisor()
        daemon.baton("signal", name, "CONT")  # answered by the keeper, behind all that was asked of it before
        self.before = descriptors(self.supervisor), descriptors(daemon.keeper())
        self.write(new[1:] if new.startswith("=") else f"{new}={what}" if new else "")
        self.running = subprocess.Popen([BATON, "upgrade", name], env=daemon.environment, text=True, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        owned.add(self.running.pid)

    def write(self, line):
        for path in (self.plan, self.plan + ".at", self.plan + ".go"):
            if os.path.exists(path):
                os.unlink(path)
        with open(self.plan, "w", encoding="utf-8") as file:
            file.write(line + "\n")

    def attach(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(os.path.join(self.daemon.runtime, "control"))
        attacher = wire.Peer(connection, side=1)
        call = attacher.wait(attacher.message("baton.Control/Attach", control.AttachRequest(name=self.name)))
        assert call.status == wire.OK, call.message
        lane = call.fds[control.AttachResponse.FromString(call.payload).lane]
        attacher.close()
        return wire.Peer(socket.socket(fileno=lane), side=0)

    def held_up(self):
        """Until it is; the pid of the successor, or 0."""
        if self.place != "health":
            until(lambda: os.path.exists(self.plan + ".at"), "that it waits")
        if self.place == "commit":
            os.kill(self.daemon.keeper(), signal.SIGSTOP)
            self.go()
        until(lambda: self.at(self.phase), self.phase)
        if self.place == "health":  # the predecessor is on its way out, and so may be what a sanitizer has started for its end
            self.new = self.daemon.pid(self.name)
        else:
            self.new = next((pid for pid in self.processes() if pid != self.old), 0)
        return self.new

    def at(self, phase):
        return self.daemon.status(self.name).get("upgrade_phase") == phase

    def processes(self):
        mark = f"BATON_RUNNER={self.name}".encode()

        def is_one(pid):
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    return mark in file.read().split(b"\0") and os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "state-runner"
            except OSError:
                return False
        return [pid for pid in daemon_tests.descendants(self.daemon.keeper()) if is_one(pid)]

    def go(self):
        """Nobody waits any more."""
        with open(self.plan + ".go", "w", encoding="utf-8"):
            pass

    def let_keeper_go_on(self):
        os.kill(self.daemon.keeper(), signal.SIGCONT)

    def answers(self):
        try:
            call = self.client.call("state.Counter/Get", timeout_us=int(TIMEOUT * 1e6))
            return call.status == wire.OK and call.payload == b"9"
        except (wire.Closed, OSError):
            return False

    def settled(self):
        """Who serves, when it is over."""
        def look():
            try:
                status = self.daemon.status(self.name)
            except AssertionError:  # no supervisor
                return None
            calm = status["state"] in ("up", "down") and "upgrade_phase" not in status and "past" not in status
            if not calm or self.processes() != ([status.get("pid")] if status["state"] == "up" else []):
                return None
            return status if status["state"] == "down" or status.get("service_state") == 2 else None
        return until(look, "the end of it", 6 * TIMEOUT)

    def end(self, fault, serves, code=26, text="", same_supervisor=True):
        """Checks, and prints a line of the table."""
        out, err = self.running.communicate(timeout=6 * TIMEOUT)
        status = self.settled()
        pid = status.get("pid", 0)
        who = "down" if status["state"] == "down" else "old" if pid == self.old else "new" if pid == getattr(self, "new", 0) else "next"
        attached = self.answers() if who in ("old", "new") else None
        self.client.close()
        print(f"# {self.place:8} {self.phase:10} {fault:22} {who:5} {self.running.returncode:4} "
              f"{'yes' if attached else '-':8} {err.strip()[:120]}")
        assert who in serves.split("|"), (who, serves, out, err)
        assert self.running.returncode == code, (self.running.returncode, code, out, err)
        assert text in err, (text, err)
        assert attached is not False, "the client has lost its connection"
        if who in ("old", "new"):
            assert self.daemon.baton("call", "--raw", self.name, "--", "state.Counter/Get").stdout == "9"
        for pid, before in zip((self.supervisor, self.daemon.keeper()), self.before):
            if is_alive(pid) and (same_supervisor or pid != self.supervisor):
                with contextlib.suppress(AssertionError):
                    until(lambda pid=pid, n=len(before): len(descriptors(pid)) <= n, "the end of descriptors")
                assert len(descriptors(pid)) <= len(before), (before, descriptors(pid))


def descriptors(pid):
    """What each is, sockets and the like without their numbers; a process that is gone has none."""
    try:
        return sorted(link.split("[")[0] for link in daemon_tests.what_is_open(pid))
    except OSError:
        return []


def start(daemon, timeout=LONG):
    def runner(name, more):
        return (f"  {name}: {{ command: [{RUNNER}, --plan, {daemon.folder}/plan-{name}], ready: hello, start_timeout: {SHORT}, "
                f"stop_timeout: {SHORT}, backoff: {{ initial: 1ms }}, upgrade: {{ timeout: {timeout}{more} }} }}\n")
    daemon.start("runners:\n" + runner("s", "") + runner("h", ", health: 1h"), BATON_LOG_LEVEL="info")
    for name in ("s", "h"):
        daemon.until_state(name, "up")
    daemon.baton("takeover")  # what is made once is there now
    print(f"# {'place':8} {'phase':10} {'fault':22} serves code attached")


def name_of(place):
    return "h" if place == "health" else "s"


@test
def what_each_does_to_it(daemon):
    """Refuse, die, hang: who is asked."""
    start(daemon, SHORT)
    old, new = "predecessor", "successor"
    for place, fault, serves, text in (
            ("begin", "refuse", "old", "while starting: the successor: start failed: exited with status 1"),
            ("begin", "die", "old", "while starting: the successor: start failed: exited with status 7"),
            ("begin", "hang", "old", "while starting: the successor is not ready: not within "),
            ("stop", "refuse", "old", "while crossing: the predecessor: Stop"),
            ("stop", "die", "next", "while crossing: the predecessor: exited with status 7"),
            ("stop", "hang", "next", "while crossing: the predecessor: Stop: not within "),
            ("save", "refuse", "old", "while crossing: the predecessor: Save"),
            ("save", "die", "next", "while crossing: the "),  # whoever notices first says so
            ("save", "hang", "next", "while crossing: Save by the predecessor, Takeover by the successor: not within "),
            ("restore", "refuse", "old", "while crossing: the successor: Takeover"),
            ("restore", "die", "old", "while crossing: the successor: exited with status 7"),
            ("restore", "hang", "old", "while crossing: the successor: Takeover: not within "),
            ("start", "refuse", "old", "while beginning: the successor: Start"),
            ("start", "die", "old", "while beginning: the successor: exited with status 7"),
            ("start", "hang", "old", "while beginning: the successor: Start: not within "),
            ("resume", "refuse", "next", "while crossing: the successor: Takeover"),
            ("resume", "die", "next", "while crossing: the successor: Takeover"),
            ("resume", "hang", "next", "while crossing: the successor: Takeover")):
        side = old if PLACES[place][1] else new
        Row(daemon, place, fault).end(f"{side}: {fault}", serves, text="upgrade failed " + text)


what_each_does_to_it.seconds = 30 * TIMEOUT


@test
def one_of_the_two_is_killed(daemon):
    start(daemon)
    for place, side, serves, code, text in (
            ("begin", "old", "next", 26, "ing: the predecessor: killed by signal 9"),  # the successor may be ready by then
            ("begin", "new", "old", 26, "while starting: the successor: start failed: killed by signal 9"),
            ("stop", "old", "next", 26, "while crossing: the predecessor: killed by signal 9"),
            ("stop", "new", "next|old", 26, "while crossing: the successor: killed by signal 9"),
            ("save", "old", "next", 26, "while crossing: the "),  # whoever notices first says so
            ("save", "new", "next|old", 26, "while crossing: the successor: killed by signal 9"),
            ("restore", "old", "new", 0, ""),  # it has given all
            ("restore", "new", "old", 26, "while crossing: the successor: killed by signal 9"),
            ("commit", "old", "new", 0, ""),
            ("commit", "new", "old", 26, "ing: the successor: killed by signal 9"),  # it may have been read by then
            ("start", "old", "new", 0, ""),
            ("start", "new", "old", 26, "while beginning: the successor: killed by signal 9"),
            ("resume", "old", "next", 26, "while crossing: the successor: Takeover"),
            ("health", "new", "next", 26, "while watching: the successor: killed by signal 9")):
        row = Row(daemon, place, "wait", name_of(place))
        row.held_up()
        pid = row.old if side == "old" else row.new
        os.kill(pid, signal.SIGKILL)
        if place == "commit":
            row.let_keeper_go_on()
        until(lambda pid=pid: not is_alive(pid), "its end")
        row.go()
        row.end(f"SIGKILL of {side}", serves, code, text)


one_of_the_two_is_killed.seconds = 30 * TIMEOUT


@test
def the_supervisor_is_killed(daemon):
    """Before the commit the predecessor serves afterwards, after it the successor."""
    for index, (place, serves) in enumerate((("begin", "old"), ("stop", "old"), ("save", "old"), ("restore", "old"),
                                             ("commit", "new"), ("start", "new"), ("resume", "old"), ("health", "new"))):
        if index % DEATHS == 0:
            if index > 0:
                daemon.stop()
            start(daemon)
        row = Row(daemon, place, "wait", name_of(place))
        row.held_up()
        os.kill(row.supervisor, signal.SIGKILL)
        if place == "commit":
            row.let_keeper_go_on()
        until(lambda row=row: not is_alive(row.supervisor), "its end")
        row.go()
        row.end("SIGKILL of supervisor", serves, 1, "the supervisor is gone", same_supervisor=False)


the_supervisor_is_killed.seconds = 30 * TIMEOUT


@test
def it_is_asked_for_other_things_meanwhile(daemon):
    """Another upgrade is refused; a takeover waits as long as it may, and says for what; a stop ends it."""
    start(daemon)
    for place in ("begin", "stop", "save", "restore", "commit", "start"):
        row = Row(daemon, place, "wait")
        row.held_up()
        done = daemon.baton("upgrade", "s", check=False)
        assert done.returncode == 25 and "is being upgraded already" in done.stderr, done.stderr
        if place != "commit":
            done = daemon.baton("takeover", "--timeout", f"{int(300 * FACTOR)}ms", check=False)
            assert done.returncode == 25 and "not in time: " in done.stderr, done.stderr
            assert "runner s is being upgraded" in done.stderr or "service of runner s is under way" in done.stderr, done.stderr
        else:
            row.let_keeper_go_on()
        row.go()
        row.end("takeover, too short", "new", 0)
    for place in ("begin", "restore", "start"):
        row = Row(daemon, place, "wait")
        row.held_up()
        takeover = subprocess.Popen([BATON, "takeover"], env=daemon.environment, text=True, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE)
        owned.add(takeover.pid)
        until(lambda: takeovers(daemon)[-1]["outcome"] == "under_way", "the takeover")
        row.go()
        row.end("takeover, which waits", "new", 0, same_supervisor=False)
        out, err = takeover.communicate(timeout=6 * TIMEOUT)
        assert takeover.returncode == 0 and daemon.supervisor() != row.supervisor, (takeover.returncode, out, err)
    for place in ("begin", "restore", "start", "health"):
        row = Row(daemon, place, "wait", name_of(place))
        row.held_up()
        if place == "health":
            row.go()
            daemon.baton("stop", row.name, timeout=6 * TIMEOUT)
            row.end("stop", "down", 0)
        else:
            daemon.baton("stop", row.name, timeout=6 * TIMEOUT)
            row.end("stop", "down", 26, "the runner is being stopped")


it_is_asked_for_other_things_meanwhile.seconds = 30 * TIMEOUT


def takeovers(daemon):
    lines = daemon.baton("takeovers", "--json").stdout.splitlines()
    return [json.loads(line) for line in lines] or [{"outcome": ""}]


@test
def its_service_is_left_alone(daemon):
    """By commands, while an upgrade drives it; and by an upgrade, while a command does."""
    start(daemon)
    row = Row(daemon, "restore", "wait")
    row.held_up()
    for event in ("start", "stop", "exit"):
        done = daemon.baton("service", "s", event, check=False)
        assert done.returncode == 26 and "is being upgraded, which drives its service" in done.stderr, done.stderr
    row.go()
    row.end("service events", "new", 0)

    row.write("stop=wait")
    daemon.baton("restart", "s")
    stopping = subprocess.Popen([BATON, "service", "s", "stop"], env=daemon.environment, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)
    owned.add(stopping.pid)
    until(lambda: os.path.exists(row.plan + ".at"), "that it waits")
    done = daemon.baton("upgrade", "s", check=False, timeout=6 * TIMEOUT)
    assert done.returncode == 26 and "another event of its service is under way" in done.stderr, done.stderr
    assert "pid " in done.stderr and stopping.poll() is None
    row.go()
    out, err = stopping.communicate(timeout=6 * TIMEOUT)
    assert stopping.returncode == 0, (stopping.returncode, out, err)


its_service_is_left_alone.seconds = 30 * TIMEOUT


@test
def many_are_stopped_meanwhile(daemon):
    """Before, while and after their successors begin: all are down in the end, and nothing is left of any."""
    n = 100
    daemon.start(f"runners:\n  m: {{ command: [{RUNNER}], ready: hello, instances: {n} }}\n")
    for number in range(1, n + 1):
        daemon.until_state(f"m.{number}", "up", 6 * TIMEOUT)
    supervisor, peers, calls = daemon.supervisor(), [], []
    for _ in range(0, n, GROUP):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(os.path.join(daemon.runtime, "control"))
        peers.append(wire.Peer(connection, side=1))
        peers[-1].call("baton.Control/Status")
    os.kill(supervisor, signal.SIGSTOP)  # so that all is asked for at once, and many wait for their turn to begin
    for index, peer in enumerate(peers):
        for method, request in (("Upgrade", control.UpgradeRequest), ("Stop", control.StopRequest)):
            for number in range(index * GROUP + 1, (index + 1) * GROUP + 1):
                calls.append((peer, peer.message(f"baton.Control/{method}", request(name=f"m.{number}"))))
    os.kill(supervisor, signal.SIGCONT)
    for peer, call in calls:
        peer.wait(call, 6 * TIMEOUT)
    for peer in peers:
        peer.close()
    states = {one["name"]: one["state"] for one in daemon.status()["runners"]}
    assert set(states.values()) == {"down"} and len(states) == n, states
    until(lambda: not [pid for pid in daemon_tests.descendants(daemon.keeper()) if words(pid).startswith(RUNNER.encode())],
          "the end of all of them")


def words(pid):
    return daemon_tests.words_of(pid)


@test
def one_that_is_not_up_is_refused(daemon):
    start(daemon)
    daemon.configure(f"""runners:
  down: {{ command: [{RUNNER}], ready: hello, autostart: false }}
  failing: {{ command: [{RUNNER}, --plan, {daemon.folder}/dies], ready: hello, backoff: {{ initial: 1h }} }}
  starting: {{ command: [sleep, 1000], ready: hello, start_timeout: 1h }}
""")
    with open(os.path.join(daemon.folder, "dies"), "w", encoding="utf-8") as file:
        file.write("begin=die\n")
    daemon.baton("reload", "--no-wait", timeout=6 * TIMEOUT)
    until(lambda: daemon.status("failing")["state"] == "backoff" and daemon.status("starting")["state"] == "starting", "them")
    for name in ("down", "failing", "starting"):
        done = daemon.baton("upgrade", name, check=False)
        assert done.returncode == 25 and f"upgrade {name}: FAILED_PRECONDITION: is not up" in done.stderr, (name, done.stderr)


if __name__ == "__main__":
    main()
