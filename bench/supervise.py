#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Supervisors beside the smallest one there can be, in one run: starting many plain programs, memory, wake-ups while
nothing happens, starting one again after SIGKILL, and asking for the state of one and of all.

Each program (bench/service, and service-tiny without libc) writes its pid into a FIFO when it runs; the time from the
command to the last pid is the start. Candidates alternate round by round; what counts is the median, and the median of
each round's ratio to the floor. A candidate that is missing, fails or does not end is named. None of them keeps logs of
programs that say nothing; each is told to start again at once where it can be told.

        supervise.py [--quick] [--services N] [--rounds N] [--only NAME,...] [--json FILE] FOLDER

FOLDER is where the programs were built. `make bench` calls this.
"""

import argparse
import ctypes
import json
import os
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMPARED = ("start_ms", "restart_ms")  # with the floor: it does nothing of the rest
START_LIMIT = 120  # seconds for a start of all
RESTART_LIMIT = 10
PR_SET_CHILD_SUBREAPER = 36


class Failure(Exception):
    pass


# ---------------------------------------------------------------------------------------------------------- candidates

class Candidate:
    """One supervisor: how its services are described, started, asked for. @where is a folder of its own."""

    needs = ()
    floor = False
    ready = 0.0  # seconds after which the folder may be used: some look at its age

    def __init__(self, folder, where, program, fifo, n):
        self.folder, self.where, self.program, self.fifo, self.n = folder, where, program, fifo, n

    def names(self):
        return [f"s{i}" for i in range(1, self.n + 1)]

    def prepare(self):
        pass

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def status_one(self):
        return None

    def status_all(self):
        return None

    def service_folders(self, parent, extra=()):
        for name in self.names():
            folder = self.where / parent / name
            folder.mkdir(parents=True)
            run = folder / "run"
            run.write_text(f"#!/bin/sh\nexec {self.program} {self.fifo}\n")
            run.chmod(0o755)
        past = time.time() - 3600  # some wait until a folder has not changed for a while
        os.utime(self.where / parent, (past, past))


class Floor(Candidate):
    floor = True

    def command(self):
        return [self.folder / "bench/floor-supervise", str(self.n), self.program, self.fifo]


class Baton(Candidate):
    def prepare(self):
        self.configuration = self.where / "baton.yaml"
        self.configuration.write_text(
            "runners:\n"
            "  s:\n"
            f"    command: [{self.program}, {self.fifo}]\n"
            f"    instances: {self.n}\n"
            "    restart: always\n"
            "    backoff: { initial: 0 }\n"
            "    intensity: { restarts: 0 }\n")

    def names(self):
        return [f"s.{i}" for i in range(1, self.n + 1)]

    def environment(self):
        return {**os.environ, "BATON_LIBEXEC": str(self.folder), "BATON_PROGRAM": str(self.folder / "baton"),
                "BATON_SOCKET": str(self.where / "run/control")}

    def command(self):
        return [self.folder / "baton", "supervise", "--runtime-dir", self.where / "run", "--state-dir",
                self.where / "state", "--log-dir", self.where / "log", self.configuration]

    def status_one(self):
        return [self.folder / "baton", "status", self.names()[-1]]

    def status_all(self):
        return [self.folder / "baton", "status"]


class S6(Candidate):
    needs = ("s6-svscan", "s6-svstat")

    def prepare(self):
        self.service_folders("scan")

    def command(self):
        return ["s6-svscan", "-c", str(self.n + 10), self.where / "scan"]

    def status_one(self):
        return ["s6-svstat", self.where / "scan" / self.names()[-1]]

    def status_all(self):
        return ["sh", "-c", f"for d in {self.where}/scan/*; do s6-svstat $d; done"]


class Runit(Candidate):
    needs = ("runsvdir", "sv")

    def prepare(self):
        self.service_folders("service")

    def command(self):
        return ["runsvdir", self.where / "service"]

    def status_one(self):
        return ["sv", "status", self.where / "service" / self.names()[-1]]

    def status_all(self):
        return ["sh", "-c", f"sv status {self.where}/service/*"]


class Daemontools(Candidate):
    needs = ("svscan", "svstat")

    def prepare(self):
        self.service_folders("service")

    def command(self):
        return ["svscan", self.where / "service"]

    def status_one(self):
        return ["svstat", self.where / "service" / self.names()[-1]]

    def status_all(self):
        return ["sh", "-c", f"svstat {self.where}/service/*"]


class Dinit(Candidate):
    needs = ("dinit", "dinitctl")

    def prepare(self):
        folder = self.where / "dinit.d"
        folder.mkdir()
        for name in self.names():
            (folder / name).write_text(f"type = process\ncommand = {self.program} {self.fifo}\nrestart = yes\n"
                                       "smooth-recovery = yes\nrestart-delay = 0\nrestart-limit-count = 0\n")
        (folder / "boot").write_text("type = internal\n" + "".join(f"waits-for = {n}\n" for n in self.names()))

    def command(self):
        return ["dinit", "-d", self.where / "dinit.d", "-p", self.where / "control", "-q"]

    def status_one(self):
        return ["dinitctl", "-p", self.where / "control", "status", self.names()[-1]]

    def status_all(self):
        return ["dinitctl", "-p", self.where / "control", "list"]


class Supervisord(Candidate):
    needs = ("supervisord", "supervisorctl")

    def prepare(self):
        self.configuration = self.where / "supervisord.conf"
        self.configuration.write_text(
            f"[supervisord]\nnodaemon=true\nsilent=true\nlogfile=/dev/null\nlogfile_maxbytes=0\nuser=root\nminfds=10000\n"
            f"pidfile={self.where}/pid\n[unix_http_server]\nfile={self.where}/socket\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisorctl]\nserverurl=unix://{self.where}/socket\n"
            f"[program:s]\ncommand={self.program} {self.fifo}\nnumprocs={self.n}\nprocess_name=s%(process_num)d\n"
            "numprocs_start=1\nstartsecs=0\nautorestart=true\nstdout_logfile=NONE\nstderr_logfile=NONE\n")

    def command(self):
        return ["supervisord", "-c", self.configuration]

    def status_one(self):
        return ["supervisorctl", "-c", self.configuration, "status", f"s:{self.names()[-1]}"]

    def status_all(self):
        return ["supervisorctl", "-c", self.configuration, "status"]


CANDIDATES = {"floor": Floor, "baton": Baton, "dinit": Dinit, "daemontools": Daemontools, "runit": Runit, "s6": S6,
              "supervisord": Supervisord}

# ----------------------------------------------------------------------------------------------------------- processes


def processes():
    """pid -> (parent, state) of all there are."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            fields = text[text.rindex(")") + 2:].split()
            found[int(entry)] = (int(fields[1]), fields[0])
    return found


def descendants(root):
    """@root and all its children's children that live."""
    table = processes()
    children = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        if pid in table and table[pid][1] != "Z":
            found.append(pid)
        todo += children.get(pid, [])
    return found


def memory_kib(pids):
    """PSS of all of them together."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def switches(pids):
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if "ctxt_switches" in line:
                total += int(line.split()[1])
    return total


class Run:
    """One supervisor with its services, from the start to the end of all of it."""

    def __init__(self, kind, folder, program, n):
        self.where = Path(tempfile.mkdtemp(prefix="bench-supervise-"))
        self.fifo = self.where / "fifo"
        os.mkfifo(self.fifo)
        self.reader = os.open(self.fifo, os.O_RDWR | os.O_CLOEXEC)
        self.candidate = kind(folder, self.where, program, self.fifo, n)
        self.n, self.process, self.pids, self.rest = n, None, set(), b""
        self.candidate.prepare()

    def next_pids(self, deadline):
        """Those that have come, at least one; or nothing at the deadline."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.reader], [], [], left)[0]:
                return []
            data = self.rest + os.read(self.reader, 65536)
            whole = len(data) // 4 * 4
            self.rest = data[whole:]
            if whole:
                return list(struct.unpack(f"{whole // 4}i", data[:whole]))

    def start(self):
        """Seconds until the last of them runs."""
        begun = time.monotonic()
        self.process = subprocess.Popen([str(w) for w in self.candidate.command()], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        env=self.candidate.environment(), start_new_session=True)
        while len(self.pids) < self.n:
            pids = self.next_pids(begun + START_LIMIT)
            if not pids:
                raise Failure(f"{len(self.pids)} of {self.n} were there after {START_LIMIT} s: {self.said()}")
            self.pids.update(pids)
        return time.monotonic() - begun

    def said(self):
        if self.process.poll() is None:
            return "it says nothing"
        return (self.process.stderr.read() or b"nothing").decode(errors="replace").strip().splitlines()[-1][-200:]

    def restart(self):
        """Seconds from SIGKILL to the next one's first sign."""
        victim = next(iter(self.pids))
        self.pids.discard(victim)
        begun = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        pids = self.next_pids(begun + RESTART_LIMIT)
        if not pids:
            raise Failure(f"one that was killed was not started again within {RESTART_LIMIT} s")
        self.pids.update(pids)
        return time.monotonic() - begun

    def ask(self, command):
        """Seconds of one command that must succeed."""
        begun = time.monotonic()
        done = subprocess.run([str(w) for w in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=self.candidate.environment(), timeout=60, check=False)
        took = time.monotonic() - begun
        if done.returncode != 0:
            raise Failure(f"{command[0]}: {done.stdout.decode(errors='replace').strip()[-200:]}")
        return took

    def own(self):
        """The processes of the supervisor itself."""
        return [pid for pid in descendants(self.process.pid) if pid not in self.pids]

    def end(self):
        """Everything that this started goes: the supervisor first, so that nothing is started again."""
        if self.process:
            everything = descendants(self.process.pid)
            for pid in [pid for pid in everything if pid not in self.pids] + list(self.pids):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()
            self.process.stderr.close()
        try:
            while os.waitpid(-1, 0)[0]:  # orphans come to us
                pass
        except ChildProcessError:
            pass
        os.close(self.reader)
        shutil.rmtree(self.where, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------------- measuring

def missing(kind):
    absent = [name for name in kind.needs if not shutil.which(name)]
    return f"{', '.join(absent)}: not installed" if absent else None


def measure(kind, folder, program, n, options, deep):
    """The figures of one run; @deep: those that take long, too."""
    run, figures = Run(kind, folder, program, n), {}
    try:
        figures["start_ms"] = run.start() * 1000
        if deep:
            time.sleep(1)  # whatever it still has to do; this is no test, and nothing is concluded from it
            own = run.own()
            figures["processes"] = len(own)
            figures["pss_kib"] = memory_kib(own)
            before = switches(own)
            time.sleep(options.idle)
            figures["switches"] = switches(own) - before
            restarts = [run.restart() * 1000 for _ in range(options.restarts)]
            figures["restart_ms"] = statistics.median(restarts)
            for name, command in (("status_one_ms", run.candidate.status_one()),
                                  ("status_all_ms", run.candidate.status_all())):
                if command:
                    figures[name] = statistics.median(run.ask(command) for _ in range(3)) * 1000
    finally:
        run.end()
    return figures


def median_of(rounds, figure):
    values = [r[figure] for r in rounds if r and figure in r]
    return statistics.median(values) if values else None


def ratio_of(rounds, floors, figure):
    ratios = [a[figure] / b[figure] for a, b in zip(rounds, floors) if a and b and figure in a and b.get(figure)]
    return statistics.median(ratios) if ratios else None


def text(value, digits=0):
    return "-" if value is None else f"{value:.{digits}f}"


def table(title, results, columns):
    print(f"\n{title}\n")
    rows = [[""] + [head for head, _, _ in columns]]
    for name, rounds in results.items():
        row = [name]
        for _, figure, digits in columns:
            value, ratio = median_of(rounds, figure), ratio_of(rounds, results["floor"], figure)
            compared = ratio and name != "floor" and figure in COMPARED
            row.append(text(value, digits) + (f" ({ratio:.2f}x)" if compared else ""))
        rows.append(row)
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.rjust(w) if i else cell.ljust(w)
                               for i, (cell, w) in enumerate(zip(row, widths))).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds, two seconds idle")
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", help="names, separated by commas; the floor always runs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.idle = 2 if options.quick else 10
    options.restarts = 5 if options.quick else 20
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0:
        parser.exit(1, "supervise.py: cannot become the parent of orphans\n")
    folder = options.folder.resolve()
    names = [n for n in CANDIDATES if n == "floor" or not options.only or n in options.only.split(",")]
    failures = {name: why for name in names if (why := missing(CANDIDATES[name]))}
    names = [name for name in names if name not in failures]
    results = {program: {name: [] for name in names} for program in ("service", "service-tiny")}
    for program, by_name in results.items():
        for i in range(options.rounds):
            for name in names:
                try:
                    by_name[name].append(measure(CANDIDATES[name], folder, folder / "bench" / program, options.services,
                                                 options, deep=i == 0 and program == "service"))
                except (Failure, OSError, subprocess.TimeoutExpired) as error:
                    by_name[name].append(None)
                    failures[name] = str(error)
    table(f"{options.services} programs started, until the last one runs, ms", results["service"],
          [("start", "start_ms", 0)])
    table("the same without libc, ms", results["service-tiny"], [("start", "start_ms", 0)])
    table(f"{options.services} running", results["service"],
          [("processes", "processes", 0), ("PSS KiB", "pss_kib", 0), (f"switches in {options.idle} s", "switches", 0),
           ("restart ms", "restart_ms", 2), ("status of one ms", "status_one_ms", 1), ("of all ms", "status_all_ms", 1)])
    for name, why in failures.items():
        print(f"\n{name}: {why}", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps({"services": options.services, "rounds": results, "failures": failures},
                                           indent=1) + "\n")
    return 1 if "floor" in failures or "baton" in failures else 0


if __name__ == "__main__":
    sys.exit(main())
