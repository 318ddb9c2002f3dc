#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whatever can be asked for, at random, two at a time now and then: starts, stops, signals, scaling, reloads, takeovers, other
keepers, upgrades, checkpoints, calls; and deaths of runners and of the supervisor. After each round all is asked to be up, and
then it is: each runner once, no process that belongs to nobody, no command that hangs or dies, no more descriptors than before.

Short, unless BATON_SOAK is set. BATON_TEST_SEED is the seed of the first round: the same things are asked for in the same order,
but when each of them is done is not in it."""

import json
import os
import random
import signal
import subprocess
import threading
import time

import daemon_tests
from daemon_tests import BUILD, FACTOR, TIMEOUT, children, descriptors, is_alive, main, test, until, words_of
from state_runner import RUNNER

daemon_tests.LIBEXEC = daemon_tests.CHECKING

LONG = bool(os.environ.get("BATON_SOAK"))
ROUNDS = 200 if LONG else 4
SEED = int(os.environ.get("BATON_TEST_SEED", "1"))
HANGS = 12 * TIMEOUT
ALWAYS = "restart: always, backoff: { initial: 0s }, intensity: { restarts: 0 }"
UP = ["native", "counter", "state", "counts", "base", "top"]
NAMES = ["a.1", "a.2", "a.3", "crash", "once", "tick", *UP]
SIGNALS = ["KILL", "TERM", "STOP", "CONT", "HUP", "USR1"]


def configuration(daemon, version):
    """Two of three have another runner; each second another program of `a'."""
    extra = f"  extra: {{ command: [sleep, '9{version}'] }}\n" if version % 3 else ""
    plan = json.dumps(os.path.join(daemon.folder, "plan"))
    return f"""
runners:
  a: {{ command: [sleep, '100{version % 2}'], instances: 3, {ALWAYS} }}
  crash: {{ command: [sh, -c, "sleep 0.2; exit 3"], restart: always, backoff: {{ initial: 50ms, max: 200ms }}, intensity: {{ restarts: 0 }} }}
  native: {{ command: [{BUILD}/baton-runner-echo], ready: hello, {ALWAYS} }}
  counter: {{ command: [{BUILD}/examples/counter], ready: hello, upgrade: {{ drain: 5s }}, {ALWAYS} }}
  state: {{ command: [{RUNNER}, --plan, {plan}], ready: hello, recover: failover, checkpoint: {{ every: 300ms }}, {ALWAYS} }}
  counts: {{ command: [sh, -c, "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done"], {ALWAYS} }}
  base: {{ command: [sleep, '500'], {ALWAYS} }}
  top: {{ command: [sleep, '501'], requires: [base], {ALWAYS} }}
  once: {{ command: [sh, -c, "echo once"], restart: never }}
  tick: {{ command: [sh, -c, "echo tick"], restart: never, every: 1s }}
{extra}"""


class Chaos:
    def __init__(self, daemon, seed):
        self.daemon, self.random, self.version, self.instances, self.told = daemon, random.Random(seed), 0, 3, []

    def baton(self, *words):
        """One command, which may well be refused; None: it cannot be."""
        try:
            done = self.daemon.baton(*words, check=False, timeout=HANGS)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"baton {' '.join(words)} hangs") from error
        self.told.append(f"baton {' '.join(words)}: {done.returncode} {done.stderr.strip()[:120]}")
        assert 0 <= done.returncode < 128, f"baton {words} has died: {done.returncode} {done.stderr}"
        return done

    def kill(self, pid, number):
        self.told.append(f"kill -{number} {pid}")
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    def status(self, *names):
        done = self.baton("status", "--json", *names)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def kill_supervisor(self):
        status = self.status()
        if status:
            self.kill(status["supervisor"]["pid"], self.random.choice([signal.SIGKILL, signal.SIGABRT]))

    def kill_runner(self):
        status = self.status(self.random.choice(NAMES))
        if status and status["runners"][0].get("pid"):
            self.kill(status["runners"][0]["pid"], signal.SIGKILL)

    def scale(self):
        n = self.random.randint(1, 5)
        if self.baton("scale", f"a={n}").returncode == 0:
            self.instances = n

    def reload(self):
        self.version += 1
        self.daemon.configure(configuration(self.daemon, self.version))
        self.baton("reload")

    def something(self):
        """As a function that does it: what is drawn is drawn here."""
        draw, name = self.random, self.random.choice(NAMES)
        words = {
            "start": (5, [name]), "stop": (4, [name]), "restart": (6, [name]), "reset": (1, [name]), "logs": (2, [name]),
            "signal": (6, [name, draw.choice(SIGNALS)]), "takeover": (12, draw.choice([[], [], ["--check"], ["--keeper"]])),
            "upgrade": (8, [draw.choice(["counter", "state", "native", "a.1"]), "--timeout=10s"]), "checkpoint": (3, ["state"]),
            "call": (4, ["--deadline=5s", draw.choice(["native", "counter"]), "--", draw.choice(["echo.Echo/Unary", "counter.Counter/Add"])]),
            "ping": (3, ["--count=3", "--interval=0", draw.choice(["native", "counter", "state"])]), "status": (2, []),
            "events": (1, []), "metrics": (1, []), "fds": (1, [name]), "takeovers": (1, []),
        }
        acts = {self.scale: 3, self.reload: 4, self.kill_supervisor: 2, self.kill_runner: 6}
        command = draw.choices([*words, *acts], [weight for weight, _ in words.values()] + list(acts.values()))[0]
        return (lambda: self.baton(command, *words[command][1])) if command in words else command

    def two(self, first, second):
        errors = []

        def do():
            try:
                second()
            except BaseException as error:  # whatever it is: the test is to see it
                errors.append(error)

        thread = threading.Thread(target=do)
        thread.start()
        first()
        thread.join(2 * HANGS)
        assert not thread.is_alive(), "a command hangs"
        if errors:
            raise errors[0]

    def round(self):
        for _ in range(self.random.randint(5, 25)):
            if self.random.random() < 0.3:
                self.two(self.something(), self.something())
            else:
                self.something()()
            assert self.daemon.process.poll() is None, "the keeper has ended"

    def wanted(self):
        return [f"a.{i}" for i in range(1, self.instances + 1)] + UP

    def revive(self):
        """A supervisor that has died too often is started again when somebody asks for it."""
        if self.daemon.baton("status", check=False, timeout=HANGS).returncode == 0:
            return True
        if "died too often" in self.daemon.said()[self.said:]:
            self.said = len(self.daemon.said())
            self.daemon.process.send_signal(signal.SIGHUP)
        return False

    said = 0

    def all_up(self):
        status = self.status()
        states = {runner["name"]: runner["state"] for runner in status["runners"]}
        return all(states.get(name) == "up" for name in self.wanted())

    def strays(self):
        """Children of the keeper that nobody knows."""
        status = self.status()
        known = {runner.get("pid") for runner in status["runners"]} | {status["supervisor"]["pid"]}
        return [(pid, words_of(pid)) for pid in children(self.daemon.keeper()) if pid not in known and is_alive(pid)]

    def settle(self):
        """How many descriptors keeper and supervisor have."""
        until(self.revive, "a supervisor", 6 * TIMEOUT)
        self.baton("scale", f"a={self.instances}")  # one that was cut off may have been done, or not
        for name in self.wanted():
            for command in (["signal", name, "CONT"], ["reset", name], ["start", name]):
                self.baton(*command)
        until(self.all_up, "all of them up", 6 * TIMEOUT)
        until(lambda: not self.strays(), "the end of those whom nobody knows", 6 * TIMEOUT)
        status = self.status()
        pids = [runner["pid"] for runner in status["runners"] if runner.get("pid")]
        assert len(pids) == len(set(pids)), pids
        said = self.daemon.said()
        for text in ("AddressSanitizer", "runtime error", "Assertion", "was forgotten"):
            assert text not in said, said[said.index(text) - 200:][:4000]
        return descriptors(self.daemon.keeper()), descriptors(status["supervisor"]["pid"])


@test
def anything_at_any_time(daemon):
    with open(os.path.join(daemon.folder, "plan"), "w", encoding="ascii"):
        pass
    daemon.start(configuration(daemon, 0), BATON_LOG_LEVEL="info")
    chaos = Chaos(daemon, SEED)
    counts = [chaos.settle()]
    try:
        for _ in range(ROUNDS):
            chaos.round()
            counts.append(chaos.settle())
    except BaseException:
        print(f"# seed {SEED}, {len(counts)} rounds; the last commands:\n# " + "\n# ".join(chaos.told[-40:]))
        raise
    most = [max(count[i] for count in counts[:20]) for i in (0, 1)]
    late = [max(count[i] for count in counts[-20:]) for i in (0, 1)]
    print(f"# {ROUNDS} rounds, {len(chaos.told)} commands; descriptors of keeper and supervisor: {counts[0]} first, {counts[-1]} last")
    assert not LONG or all(b <= a + 8 for a, b in zip(most, late)), (most, late)


anything_at_any_time.seconds = (6000 if LONG else 60) * FACTOR

main()
