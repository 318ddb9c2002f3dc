# SPDX-License-Identifier: Apache-2.0
"""Takeovers with a fault, under load: what tests with fault points share. The programs of tests/faults/ have them. Around each
takeover attached calls, supervised calls and a log with numbered lines that somebody follows are running; what came of each is
counted, and the steps that were taken are checked.
"""

import os
import socket
import subprocess
import threading
import time

import baton_wire as wire
import daemon_tests
import takeover_steps
from baton_wire import control
from daemon_tests import TIMEOUT, Daemon, descriptors, owned, until

# How long one that does nothing is waited for: longer where time is to be multiplied, but not by as much.
PATIENCE = f"{int(2000 * min(TIMEOUT / 10, 2.5))}ms"
PROGRAMS = os.path.join(daemon_tests.BUILD, "tests/faults")
ECHO = os.path.join(daemon_tests.BUILD, "baton-runner-echo")
FLEET = f"""
runners:
  native: {{ command: [{ECHO}], ready: hello }}
  counts: {{ command: [sh, -c, "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done"] }}
"""


class Worker(threading.Thread):
    """@work(self), again and again until end(). What it raises is kept."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.over, self.error = work, False, None
        self.done = self.ended = self.failed = 0
        self.start()

    def run(self):
        try:
            while not self.over:
                self.work(self)
        except BaseException as error:  # whatever it is: the test is to see it
            self.error = error

    def more(self, n):
        until(lambda: self.error or self.done >= n, "more calls")

    def end(self):
        self.over = True
        self.join(TIMEOUT)
        assert not self.is_alive(), "a call hangs"
        if self.error:
            raise self.error


def connect(daemon):
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.path.join(daemon.runtime, "control"))
        return wire.Peer(connection, side=1)
    except (OSError, wire.Closed):
        connection.close()
        raise


def attached_calls(daemon):
    attacher = connect(daemon)
    call = attacher.wait(attacher.message("baton.Control/Attach", control.AttachRequest(name="native")))
    assert call.status == wire.OK, call.message
    lane = call.fds[control.AttachResponse.FromString(call.payload).lane]
    attacher.close()
    peer = wire.Peer(socket.socket(fileno=lane), side=0)

    def one(worker):
        call = peer.call("echo.Echo/Unary", b"%d" % worker.done)
        if call.status == wire.OK and call.payload == b"%d" % worker.done:
            worker.done += 1
        else:
            worker.failed += 1

    return Worker(one), peer


def supervised_calls(daemon):
    """By way of the supervisor, whose death ends them UNAVAILABLE, or with the connection; then there is another one."""
    place = [connect(daemon)]

    def again():
        if place[0]:
            place[0].close()
        place[0] = None
        end = time.monotonic() + TIMEOUT
        while not place[0]:
            try:
                place[0] = connect(daemon)
            except (OSError, wire.Closed):
                assert time.monotonic() < end, "nobody serves"
                time.sleep(0.01)

    def one(worker):
        payload = b"%d" % worker.done
        try:
            request = control.CallRequest(name="native", method="echo.Echo/Unary", payload=payload)
            call = place[0].wait(place[0].message("baton.Control/Call", request))
        except (OSError, wire.Closed):
            worker.ended += 1
            again()
            return
        if call.status == wire.OK and call.payload == payload:
            worker.done += 1
        elif call.status == wire.UNAVAILABLE:
            worker.ended += 1
        else:
            worker.failed += 1

    return Worker(one), place


class Follower:
    """`baton logs -f counts': whether a line is lost, or comes twice."""

    def __init__(self, daemon):
        self.process = subprocess.Popen([daemon_tests.BATON, "logs", "-f", "counts"], env=daemon.environment, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        owned.add(self.process.pid)
        self.first = self.last = self.lost = 0
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()
        until(lambda: self.last, "a line")

    def read(self):
        for line in self.process.stdout:
            number = int(line.split()[-1])
            if self.first == 0:
                self.first = number
            elif number != self.last + 1:
                self.lost += abs(number - self.last - 1)
            self.last = number

    def more(self):
        """False: it has ended."""
        seen = self.last
        return until(lambda: self.last > seen + 1 or self.process.poll() is not None, "another line") and self.process.poll() is None

    def end(self):
        self.process.kill()
        self.process.wait()
        owned.discard(self.process.pid)
        self.thread.join(TIMEOUT)
        self.process.stdout.close()


def descriptors_at_rest(pid):
    """Without those of clients that come and go."""
    counts = []
    for _ in range(5):
        counts.append(descriptors(pid))
        time.sleep(0.004)
    return min(counts)


class Rehearsal:
    """One daemon of the programs with fault points, in a folder of its own, under load."""

    def __init__(self, folder, name, hang_timeout=None):
        self.daemon = daemon = Daemon(os.path.join(folder, name))
        os.mkdir(daemon.folder)
        libexec = os.path.join(daemon.folder, "libexec")
        os.mkdir(libexec)
        os.symlink(os.path.join(PROGRAMS, "baton-supervisor"), os.path.join(libexec, "baton-supervisor"))
        with open(os.path.join(libexec, "baton-keeper"), "w", encoding="ascii") as file:
            options = f" --hang-timeout={hang_timeout}" if hang_timeout else ""
            file.write(f"#!/bin/sh\nexec {PROGRAMS}/baton-keeper{options} \"$@\"\n")
        os.chmod(file.name, 0o755)
        daemon.environment["BATON_LIBEXEC"] = libexec
        self.steps = os.path.join(daemon.folder, "steps")
        with open(self.steps, "w", encoding="ascii"):
            pass
        daemon.start(FLEET, BATON_LOG_LEVEL="info", BATON_STEPS=self.steps)
        for name in ("native", "counts"):
            daemon.until_state(name, "up")
        assert daemon.baton("takeover").returncode == 0  # from here on there is nothing that is made for the first time
        self.attached, self.peer = attached_calls(daemon)
        self.supervised, self.place = supervised_calls(daemon)
        self.follower = Follower(daemon)
        self.runners = self.processes()

    def processes(self):
        return {runner["name"]: runner["pid"] for runner in self.daemon.status()["runners"]}

    def settle(self, may_fail=0):
        """All load is going on, and nothing is left of what was before: the pids, and how many descriptors each has."""
        self.attached.more(self.attached.done + 3)
        self.supervised.more(self.supervised.done + 3)
        if not self.follower.more():
            assert may_fail, "whoever follows the log was sent away"
            self.follower.end()
            self.follower = Follower(self.daemon)
        supervisor, keeper = self.daemon.supervisor(), self.daemon.keeper()
        return supervisor, descriptors_at_rest(supervisor), descriptors_at_rest(keeper)

    def take_over(self, point, timeout=PATIENCE, may_fail=0):
        """With that fault. One row of the table; `serves' is who does afterwards. @may_fail: as many supervised calls, or whoever
        follows the log, which then begins anew."""
        daemon, attached, supervised, follower = self.daemon, self.attached, self.supervised, self.follower
        predecessor, fds, keeper_fds = self.settle()
        before = (attached.done, attached.failed, supervised.done, supervised.ended, supervised.failed, follower.last,
                  follower.lost)
        done = daemon.baton("takeover", "--json", "--timeout", timeout, "--fault", point, check=False, timeout=3 * TIMEOUT)
        until(lambda: daemon.baton("status", check=False).returncode == 0, "a supervisor that serves")
        until(lambda: self.processes() == self.runners, "the same processes")
        serving, *_ = self.settle(may_fail)
        now = until(lambda: (n := descriptors_at_rest(serving)) <= fds and n, f"{fds} descriptors of the supervisor")
        keeper_now = until(lambda: (n := descriptors_at_rest(daemon.keeper())) <= keeper_fds and n,
                           f"{keeper_fds} descriptors of the keeper")
        last = daemon.status()["supervisor"]["last_takeover"]
        if serving == predecessor:
            serves = "predecessor"
        else:
            serves = "successor" if last["outcome"] == "done" else "recovery"
        assert may_fail or (done.returncode == 0) == (serves == "successor"), (point, serves, done)
        follower = self.follower
        after = (attached.done, attached.failed, supervised.done, supervised.ended, supervised.failed, follower.last,
                 follower.lost)
        row = dict(zip(("attached", "attached_failed", "supervised", "ended", "supervised_failed", "lines", "lost"),
                       (b - a for a, b in zip(before, after))), point=point, serves=serves, outcome=last["outcome"],
                   fds=(fds, now), keeper_fds=(keeper_fds, keeper_now), said=done.stderr)
        assert row["attached_failed"] == row["lost"] == 0 and row["supervised_failed"] <= may_fail, row
        assert row["ended"] <= may_fail or serves == "recovery", row
        return row

    def end(self):
        self.attached.end()
        self.supervised.end()
        self.follower.end()
        self.peer.close()
        if self.place[0]:
            self.place[0].close()
        with open(self.steps, encoding="ascii") as file:
            steps = file.read().splitlines()
        assert self.daemon.stop() == 0, self.daemon.said()
        self.daemon.end()
        return takeover_steps.check(steps)

    def kill(self):
        for worker in (self.attached, self.supervised):
            worker.over = True
        self.follower.end()
        print("# " + self.daemon.said()[-6000:].replace("\n", "\n# "))
        self.daemon.kill()


def rehearse(folder, name, points, **options):
    """The rows of takeovers with these points, one after the other in one daemon."""
    rehearsal = Rehearsal(folder, name, **options)
    try:
        rows = [rehearsal.take_over(point) for point in points]
        rehearsal.end()
        return rows
    except BaseException:
        rehearsal.kill()
        raise


def print_row(row):
    phase, fault = row["point"].split(":")
    phase, _, side = phase.partition("@")
    print(f"# {phase:7} {fault:8} {side or 'predecessor':11} -> {row['serves']:11} {row['attached']:5} / {row['attached_failed']}"
          f"   {row['supervised']:5} / {row['supervised_failed']} / {row['ended']}   {row['lines']:4} / {row['lost']}"
          f"   {row['fds'][0]} > {row['fds'][1]}   {row['keeper_fds'][0]} > {row['keeper_fds'][1]}", flush=True)


def print_head():
    print("# phase   fault    side           serves afterwards; attached calls / failed, supervised calls / failed / ended "
          "UNAVAILABLE,")
    print("#                                log lines / lost, descriptors of the supervisor and of the keeper before > after",
          flush=True)
