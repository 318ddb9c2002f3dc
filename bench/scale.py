#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What one act costs the more runners there are: processor time of supervisor and keeper, in microseconds, for acts on one
of N plain runners, on none, and on all of them.

The runners are N instances of one template, or as many written down one by one (--each); the figures are those of the
kernel (/proc/PID/schedstat), so that they say what was worked, not what was waited for. An act on one is repeated, each time
with another runner, and the middle of the figures counts. The command line's own work is none of it.

        scale.py [--quick] [--runners N,...] [--repeat N] [--only ACT,...] [--each] [--json FILE]

Finds the programs by $BATON_PROGRAM and $BATON_LIBEXEC. A plain runner needs three descriptors: trees for which the limit
is too low are named and left out. `make bench` calls this.
"""

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 120  # seconds for anything
BATON = os.environ.get("BATON_PROGRAM", os.path.abspath("baton"))
LIBEXEC = os.environ.get("BATON_LIBEXEC", os.path.dirname(BATON))


class Failure(Exception):
    pass


def worked_us(pid):
    """How long the only thread of a process has run."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1000


def pss_kib(pid):
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


class Tree:
    """One daemon with @n runners."""

    def __init__(self, where, n, each):
        self.where, self.n, self.each = Path(where), n, each
        self.configuration = self.where / "baton.yaml"
        self.environment = {**os.environ, "BATON_SOCKET": str(self.where / "run/control"),
                            "BATON_PROGRAM": BATON, "BATON_LIBEXEC": LIBEXEC}
        self.write()

    def name(self, i):
        return f"idle-{i}" if self.each else f"idle.{i}"

    def write(self, changed=0, all_of_them=False):
        """The configuration; runner @changed of those that are written one by one is another one than before."""
        lines = ["runners:"]
        if not self.each:
            lines += ["  idle:", "    command: [sleep, '100000']", f"    instances: {self.n}", "    restart: always",
                      "    backoff: { initial: 0 }", "    intensity: { restarts: 0 }"]
            if all_of_them:
                lines.append("    description: another one")
        for i in range(1, self.n + 1 if self.each else 0):
            lines += [f"  idle-{i}:", "    command: [sleep, '100000']", "    restart: always",
                      "    backoff: { initial: 0 }", "    intensity: { restarts: 0 }"]
            if all_of_them or i == changed:
                lines.append("    description: another one")
        self.configuration.write_text("\n".join(lines) + "\n", encoding="ascii")

    def baton(self, *words, check=True):
        done = subprocess.run([BATON, *map(str, words)], env=self.environment, capture_output=True, text=True,
                              timeout=LIMIT, check=False)
        if check and done.returncode != 0:
            raise Failure(f"baton {words}: {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def status(self, *names):
        return json.loads(self.baton("status", "--json", *names))

    def find(self):
        self.supervisor = self.status(self.name(1))["supervisor"]["pid"]

    def start(self):
        """Returns when all of them run."""
        with open(self.where / "log", "wb") as log:
            self.keeper = subprocess.Popen(
                [BATON, "supervise", "--runtime-dir", self.where / "run", "--state-dir", self.where / "state",
                 "--log-dir", self.where / "logs", self.configuration],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)
        self.until(self.answers, "an answer")
        self.baton("start", "--timeout", f"{LIMIT}s", self.everyone())
        self.find()

    def answers(self):
        if self.keeper.poll() is not None:
            raise Failure(f"no supervisor: {(self.where / 'log').read_text(encoding='utf-8')}")
        return self.baton("metrics", check=False)

    def everyone(self):
        return "idle*" if self.each else "idle"

    @staticmethod
    def until(condition, what):
        end = time.monotonic() + LIMIT
        while not (result := condition()):
            if time.monotonic() > end:
                raise Failure(f"{what} did not come")
            time.sleep(0.02)
        return result

    def at_rest(self):
        """Nothing of what was done is still to be worked on."""
        before = None
        while before != (now := (worked_us(self.supervisor), worked_us(self.keeper.pid))):
            before = now
            time.sleep(0.08)  # longer than anything is put off
        return now

    def measure(self, act):
        before = self.at_rest()
        act()
        after = self.at_rest()
        return after[0] - before[0], after[1] - before[1]

    def stop(self):
        if self.keeper.poll() is None:
            self.keeper.send_signal(signal.SIGTERM)
            self.keeper.wait(LIMIT)


def kill_one(tree, name):
    pid = tree.status(name)["runners"][0]["pid"]
    before = tree.at_rest()
    os.kill(pid, signal.SIGKILL)
    after = tree.at_rest()
    return after[0] - before[0], after[1] - before[1]


def kill_all(tree):
    pids = [runner["pid"] for runner in tree.status()["runners"]]
    before = tree.at_rest()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    tree.until(lambda: tree.at_rest() and all(runner.get("pid", 0) not in (0, pid) for pid, runner in
                                              zip(pids, tree.status()["runners"])), "another process of each")
    after = tree.at_rest()
    return after[0] - before[0], after[1] - before[1]


def reload_one(tree, i):
    tree.write(changed=i)
    return tree.measure(lambda: tree.baton("reload"))


def reload_all(tree):
    tree.write(all_of_them=True)
    return tree.measure(lambda: tree.baton("reload"))


def recover(tree):
    """What the next supervisor has worked, until it has answered and rests; and the keeper."""
    before = tree.at_rest()
    os.kill(tree.supervisor, signal.SIGKILL)
    tree.until(lambda: tree.baton("status", tree.name(1), check=False), "another supervisor")
    tree.find()
    after = tree.at_rest()
    return after[0], after[1] - before[1]


# What is done with one (a function of tree and number), each time with another, and with none.
ONE = {
    "status of one": lambda tree, i: tree.measure(lambda: tree.baton("status", tree.name(i))),
    "status of one that is not there": lambda tree, i: tree.measure(lambda: tree.baton("status", "idel", check=False)),
    "signal to one": lambda tree, i: tree.measure(lambda: tree.baton("signal", tree.name(i), "CONT")),
    "stop of one": lambda tree, i: tree.measure(lambda: tree.baton("stop", tree.name(i))),
    "start of one": lambda tree, i: tree.measure(lambda: tree.baton("start", tree.name(i))),
    "restart of one": lambda tree, i: tree.measure(lambda: tree.baton("restart", tree.name(i))),
    "end of one, and another process": lambda tree, i: kill_one(tree, tree.name(i)),
    "logs of one": lambda tree, i: tree.measure(lambda: tree.baton("logs", tree.name(i))),
    "events of one": lambda tree, i: tree.measure(lambda: tree.baton("events", tree.name(i))),
    "fds of one": lambda tree, i: tree.measure(lambda: tree.baton("fds", tree.name(i))),
    "one more": lambda tree, i: tree.measure(lambda: tree.baton("scale", f"idle={tree.n + 1}")),
    "one less": lambda tree, i: tree.measure(lambda: tree.baton("scale", f"idle={tree.n}")),
    "reload, one has changed": reload_one,
    "reload, nothing has changed": lambda tree, i: tree.measure(lambda: tree.baton("reload")),
}
TEMPLATE_ONLY = ("one more", "one less")
IN_TURN = (("stop of one", "start of one"), ("one more", "one less"),
           ("reload, one has changed", "reload, nothing has changed"))

ALL = {
    "status of all": lambda tree: tree.measure(lambda: tree.baton("status")),
    "status of a tenth, by a pattern": lambda tree: tree.measure(lambda: tree.baton("status", "idle*1")),
    "metrics": lambda tree: tree.measure(lambda: tree.baton("metrics")),
    "signal to all": lambda tree: tree.measure(lambda: tree.baton("signal", tree.everyone(), "CONT")),
    "reload, all have changed": reload_all,
    "restart of all": lambda tree: tree.measure(
        lambda: tree.baton("restart", "--timeout", f"{LIMIT}s", tree.everyone())),
    "end of all, and another process of each": kill_all,
    "stop of all": lambda tree: tree.measure(lambda: tree.baton("stop", "--timeout", f"{LIMIT}s", tree.everyone())),
    "start of all": lambda tree: tree.measure(lambda: tree.baton("start", "--timeout", f"{LIMIT}s", tree.everyone())),
    "recovery after SIGKILL": recover,
}


def middle(figures):
    return tuple(statistics.median(column) for column in zip(*figures))


def spread(n, repeat):
    """Numbers of runners from the first to the last: lists have two ends."""
    return [1 + (n - 1) * i // max(repeat - 1, 1) for i in range(repeat)]


def measure_one(tree, options, results):
    done = set()
    for name in ONE:
        names = next((turn for turn in IN_TURN if name in turn), (name,))
        if name in done or not any(options.wants(one) for one in names):
            continue
        if tree.each and set(names) & set(TEMPLATE_ONLY):
            continue
        figures = {one: [] for one in names}
        for i in spread(tree.n, options.repeat):
            for one in names:
                figures[one].append(ONE[one](tree, i))
        done.update(names)
        for one in names:
            results[one] = middle(figures[one])


def measure_tree(n, each, options):
    results = {}
    with tempfile.TemporaryDirectory(prefix="baton-scale-") as where:
        tree = Tree(where, n, each)
        began = time.monotonic()
        tree.start()
        try:
            took = time.monotonic() - began
            results["start of the tree"] = tree.at_rest()
            results["start of the tree, ms"] = (took * 1000,)
            results["memory, KiB"] = (pss_kib(tree.supervisor), pss_kib(tree.keeper.pid))
            measure_one(tree, options, results)
            for name, act in ALL.items():
                if options.wants(name):
                    results[name] = act(tree)
            before = worked_us(tree.supervisor), worked_us(tree.keeper.pid)
            if options.wants("end of the tree"):
                began = time.monotonic()
                results["end of the tree"] = end_of(tree, before)
                results["end of the tree, ms"] = ((time.monotonic() - began) * 1000,)
        finally:
            tree.stop()
    return results


def end_of(tree, before):
    """What both have worked when they were last seen."""
    last = before
    tree.keeper.send_signal(signal.SIGTERM)
    while True:
        try:
            last = worked_us(tree.supervisor), last[1]
        except OSError:
            pass
        try:
            last = last[0], worked_us(tree.keeper.pid)
        except OSError:
            pass
        if tree.keeper.poll() is not None:
            return last[0] - before[0], last[1] - before[1]
        time.sleep(0.0005)


def table(numbers, results):
    """Lines of Markdown: supervisor + keeper."""
    names = list(dict.fromkeys(name for one in results for name in one))
    yield "| act | " + " | ".join(f"{n:,}" for n in numbers) + " |"
    yield "| --- |" + " ---: |" * len(numbers)
    for name in names:
        cells = [" + ".join(f"{figure:,.0f}" for figure in one.get(name, ())) for one in results]
        yield f"| {name} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runners")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--each", action="store_true", help="written down one by one, not as a template")
    parser.add_argument("--json")
    options = parser.parse_args()
    only = [word for word in options.only.split(",") if word]
    options.wants = lambda name: not only or any(word in name for word in only)
    runners = options.runners or ("10,1000" if options.quick else "10,1000,3000,6000")
    most = (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200) // 3
    numbers = [int(word) for word in runners.split(",")]
    for n in (n for n in numbers if n > most):
        print(f"{n} runners are left out: the limit of open files is for {most}")
    numbers = [n for n in numbers if n <= most]
    results = [measure_tree(n, options.each, options) for n in numbers]
    print("\n".join(table(numbers, results)))
    if options.json:
        Path(options.json).write_text(json.dumps(dict(zip(map(str, numbers), results))), encoding="ascii")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"scale.py: {failure}")
