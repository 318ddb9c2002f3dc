#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Calls by several libraries beside a bare loop, in one run.

The candidates (bench/candidate-*) alternate round by round within each case, so that a slow minute of the machine hits
all of them; what counts is the median over the rounds, and of each round's ratio to the floor. How many calls a
candidate makes is found out before, so that each measures for about the same time. A candidate that is missing, fails
or does not end is named, in the table and in the JSON.

        compare.py [--quick] [--rounds N] [--budget SECONDS] [--json FILE] [--svg FILE] [--only NAME,...] FOLDER

FOLDER is where the programs were built. `make bench` and `make bench-full` call this.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import picture

FLOOR = "floor"
BUFFER = "buffer"  # for large payloads only
CANDIDATES = ["raw", FLOOR, "baton", BUFFER, "sdbus", "nng", "grpc"]
FIGURES = ["p50_us", "p99_us", "rate", "cpu_us_per_call", "mb_per_s"]
KIB, MIB = 1024, 1024 * 1024
# (bytes, in flight); from ONE_WAY bytes on the answer is empty, below it is as long as the call.
LOADS = [(64, 1), (64, 16), (64, 256), (64 * KIB, 1), (64 * KIB, 16), (64 * KIB, 256), (MIB, 1), (MIB, 16), (64 * MIB, 1)]
ONE_WAY = MIB
LARGE = 64 * KIB
TIME_LIMIT = 20  # seconds for one run of one candidate
CALLS_MAX = 2_000_000


class Case:
    """One table: a load on one processor or on two; and what was measured of it."""

    def __init__(self, size, window, cores):
        self.size, self.window, self.cores = size, window, cores
        self.answer = 0 if size >= ONE_WAY else size
        self.rounds = {}  # candidate -> a list of figures, None where it failed
        self.failures = {}  # candidate -> why
        self.calls = {}  # candidate -> how many make a round

    def name(self):
        cores = "one core" if self.cores == 1 else "two cores"
        return f"{size_text(self.size)}, {self.window} in flight, {cores}"

    def run(self, folder, candidate, calls):
        """The figures of one run, or None; why is then among the failures."""
        command = [folder / f"candidate-{candidate}", "--size", self.size, "--window", self.window, "--calls", calls,
                   "--client-cpu", 0, "--server-cpu", self.cores - 1, "--answer", self.answer]
        status, out, error = run([str(word) for word in command])
        if status == 0:
            return json.loads(out)
        self.failures[candidate] = error
        return None

    def calibrate(self, folder, candidate, seconds):
        """How many calls take about @seconds: a first guess, and one more run where it was far too low."""
        calls = max(3, min(4 * self.window, 64 * MIB // self.size))
        for _ in range(2):
            figures = self.run(folder, candidate, calls)
            if not figures:
                return
            wanted = int(figures["rate"] * seconds)
            calls = min(max(wanted, self.window, 3), CALLS_MAX, calls * 100)
            if wanted <= calls:
                break
        self.calls[candidate] = calls
        self.rounds[candidate] = []

    def measure(self, folder):
        """One round: each candidate once."""
        for candidate in list(self.rounds):
            figures = self.run(folder, candidate, self.calls[candidate])
            self.rounds[candidate].append(figures)
            if not figures:
                print(f"  {candidate} failed at {self.name()}: {self.failures[candidate]}", file=sys.stderr)
                if self.rounds[candidate].count(None) > 1:
                    del self.rounds[candidate]

    def medians(self, candidate):
        rounds = [figures for figures in self.rounds[candidate] if figures]
        return {key: statistics.median(figures[key] for figures in rounds) for key in FIGURES} if rounds else None

    def ratios(self, candidate):
        """Medians of each round's ratio to the floor."""
        pairs = [(mine, floor) for mine, floor in zip(self.rounds[candidate], self.rounds.get(FLOOR, []))
                 if mine and floor]
        return {key: statistics.median(mine[key] / floor[key] for mine, floor in pairs) for key in FIGURES} \
            if pairs else None

    def result(self):
        result = {"case": self.name(), "size": self.size, "answer": self.answer, "window": self.window,
                  "cores": self.cores, "candidates": {}, "failures": self.failures}
        for candidate in self.rounds:
            medians, ratios = self.medians(candidate), self.ratios(candidate)
            if medians:
                result["candidates"][candidate] = medians | {
                    "calls": self.calls[candidate],
                    "rounds": len([figures for figures in self.rounds[candidate] if figures]),
                    "ratios": ratios,
                }
        return result


def size_text(size):
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB" if size >= KIB else f"{size} B"


def run(command):
    """Status, output, last line of the errors. A candidate that does not end is ended with its server."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as process:
        try:
            out, error = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return -1, "", f"not done after {TIME_LIMIT} s"
    lines = error.strip().splitlines() or [f"ended with status {process.returncode}"]
    return process.returncode, out, lines[-1]


def find_candidates(folder, only):
    """Those that were built, with their versions; those that were not."""
    versions, missing = {}, []
    for name in CANDIDATES:
        if only and name not in only and name != FLOOR:
            continue
        program = folder / f"candidate-{name}"
        if program.exists():
            versions[name] = run([str(program), "--version"])[1].strip()
        else:
            missing.append(name)
    return versions, missing


def environment():
    model = "unknown"
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {"system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
            "kernel": platform.release().split("-")[0], "machine": platform.machine(), "processor": model,
            "processors": os.cpu_count(), "python": platform.python_version(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def print_case(case):
    result = case.result()
    print(f"\n{result['case']}")
    print(f"  {'':8} {'p50 us':>10} {'p99 us':>10} {'calls/s':>11} {'CPU us/call':>12} {'MB/s':>8}"
          f"    times the floor: {'p50':>6} {'calls/s':>8} {'CPU':>6}")
    for name in CANDIDATES:
        figures = result["candidates"].get(name)
        if figures:
            ratios = figures["ratios"]
            print(f"  {name:8} {number(figures['p50_us']):>10} {number(figures['p99_us']):>10} "
                  f"{number(figures['rate']):>11} {number(figures['cpu_us_per_call']):>12} "
                  f"{number(figures['mb_per_s']):>8}"
                  + (f"    {'':16} {ratios['p50_us']:>6.2f} {ratios['rate']:>8.3f} {ratios['cpu_us_per_call']:>6.2f}"
                     if ratios else ""))
        if name in case.failures:
            print(f"  {name:8} failed: {case.failures[name]}")
    sys.stdout.flush()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="in less than two minutes: fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help="at most so many (default 9, with --quick 3)")
    parser.add_argument("--budget", type=float, help="seconds in all (default 870, with --quick 110)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--only", help="candidates, by comma; the floor is always there")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (3 if arguments.quick else 9)
    arguments.budget = arguments.budget or (110 if arguments.quick else 870)
    return arguments


def measure(case, arguments, names, end):
    """All rounds of a case, or as many as there is time for."""
    for name in names:
        if name == BUFFER and case.size < LARGE:
            continue
        case.calibrate(arguments.folder, name, .05 if arguments.quick else .3)
    for done in range(arguments.rounds):
        if done > 0 and time.monotonic() >= end:
            break
        case.measure(arguments.folder)


def main():
    arguments = parse_arguments()
    versions, missing = find_candidates(arguments.folder, arguments.only and arguments.only.split(","))
    if FLOOR not in versions:
        sys.exit(f"{arguments.folder}/candidate-{FLOOR} is not built: use `make bench`")
    for name in missing:
        print(f"{name}: not built (its library was not there at configure; tools/setup --bench installs all)")
    cores = [1, 2] if (os.cpu_count() or 1) > 1 else [1]
    cases = [Case(size, window, n) for n in cores for size, window in LOADS]
    start = time.monotonic()
    for i, case in enumerate(cases):
        left = start + arguments.budget - time.monotonic()
        measure(case, arguments, versions, time.monotonic() + left / (len(cases) - i))
        print_case(case)
    document = {"benchmark": "compare", "environment": environment(), "versions": versions, "missing": missing,
                "command": " ".join(["compare.py"] + sys.argv[1:]), "rounds": arguments.rounds,
                "seconds": round(time.monotonic() - start), "results": [case.result() for case in cases]}
    print(f"\n{document['seconds']} s; versions: "
          + ", ".join(version for name, version in versions.items() if version and name != BUFFER))
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if arguments.svg:
        arguments.svg.write_text(picture.draw(document), encoding="utf-8")


if __name__ == "__main__":
    main()
