#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Takeovers of the supervisor with few and with many descriptors, beside the bare transfer of as many.

    bench/takeover.py [--quick] [--takeovers N] [--descriptors N,...] [--json FILE]

Each time a supervisor has plain runners (three descriptors each: process, two pipes) and one native one, and is replaced N
times. Two clients (bench/control-load) call all the time, one call after the other: the state of one runner, which the
supervisor answers itself, and a call to the native one by way of the supervisor. The pause that a client sees is the longest of
its calls from when the takeover is asked for until 20 ms after its answer: the former one's leaving is in it.
The floor is SCM_RIGHTS alone: as many descriptors from one process to another, 250 in a message, in the same run.

A longer time has more in it that is nobody's fault, and a client that waits for a processor waits whatever the supervisor does.
What that makes is measured in the same run, too: the longest call in as long a time without a takeover, with nothing else to do
and beside as many processes that compute as there are processors."""

import argparse
import array
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BUILD = os.environ.get("abs_top_builddir", os.getcwd())
SOURCE = os.environ.get("abs_top_srcdir", os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
os.environ.setdefault("BATON_PROGRAM", os.path.join(BUILD, "baton"))
os.environ.setdefault("BATON_LIBEXEC", BUILD)
sys.path.insert(0, os.path.join(SOURCE, "tests/integration"))

import baton_wire as wire  # noqa: E402

wire.need_protobuf()

import daemon_tests  # noqa: E402

BATCH = 250
FLOOR_ROUNDS = 9
PER_RUNNER = 3


def transfer_once(n):
    """Seconds that @n descriptors take from one process to another and back to being acknowledged."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with open(os.devnull, "rb") as null:
        fds = [os.dup(null.fileno()) for _ in range(n)]
    child = os.fork()
    if child == 0:
        for fd in fds:
            os.close(fd)
        room, left = socket.CMSG_SPACE(BATCH * 4), n
        while left > 0:
            got = array.array("i")
            _, ancillary, _, _ = theirs.recvmsg(1, room)
            got.frombytes(ancillary[0][2])
            left -= len(got)
        theirs.send(b"!")
        os._exit(0)
    begun = time.monotonic()
    for i in range(0, n, BATCH):
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds[i:i + BATCH]))])
    ours.recv(1)
    taken = time.monotonic() - begun
    os.waitpid(child, 0)
    for fd in fds:
        os.close(fd)
    ours.close()
    theirs.close()
    return taken


class Client:
    """bench/control-load in a process of its own; each of its calls is known when it has ended."""

    def __init__(self, daemon, what):
        self.process = subprocess.Popen([os.path.join(BUILD, "bench/control-load"), os.path.join(daemon.runtime, "control"), what,
                                         "native"], stdout=subprocess.PIPE, text=True)
        self.calls = []

    def end(self):
        """How many have failed: it ends with the first."""
        self.process.terminate()
        self.calls = [tuple(map(int, line.split())) for line in self.process.communicate()[0].splitlines()]
        return self.process.returncode

    def longest(self, windows):
        """Seconds of the longest call in each of @windows, of which a part at least was in it."""
        return [max((took for begun, took in self.calls if begun <= end and begun + took >= begin), default=0) / 1e9
                for begin, end in windows]


def watch(seconds, times):
    """As many windows of this length, one after the other."""
    windows = []
    for _ in range(times):
        begun = time.monotonic_ns()
        time.sleep(seconds)
        windows.append((begun, time.monotonic_ns()))
    return windows


def watch_beside_others(seconds, times):
    """The same, while all processors are busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    try:
        time.sleep(0.3)
        return watch(seconds, times)
    finally:
        for other in others:
            other.kill()
            other.wait()


def take_over(daemon):
    """Its answer, and when it was, with the former one's leaving."""
    begun = time.monotonic_ns()
    done = subprocess.run([daemon_tests.BATON, "takeover", "--json"], env=daemon.environment, text=True, stdout=subprocess.PIPE,
                          check=True)
    time.sleep(0.02)
    return json.loads(done.stdout), (begun, time.monotonic_ns())


def measure(n, takeovers):
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        daemon = daemon_tests.Daemon(folder)
        runners = max(n // PER_RUNNER, 1)
        echo = os.path.join(BUILD, "baton-runner-echo")
        daemon.start(f"runners:\n  idle: {{ command: [sleep, 100000], instances: {runners} }}\n"
                     f"  native: {{ command: [{echo}], ready: hello }}\n")
        try:
            daemon_tests.until(lambda: sum(r["state"] == "up" for r in daemon.status()["runners"]) == runners + 1, "all", 120)
            clients = [Client(daemon, "status"), Client(daemon, "call")]
            time.sleep(0.5)
            answers, windows, idle = [], [], []
            for _ in range(takeovers):
                answer, window = take_over(daemon)
                answers.append(answer)
                windows.append(window)
                idle += watch((window[1] - window[0]) / 1e9, 1)
            busy = watch_beside_others(statistics.median(end - begin for begin, end in windows) / 1e9, takeovers)
            failed = sum(client.end() for client in clients)
            fds = len(os.listdir(f"/proc/{answers[-1]['pid']}/fd"))
        finally:
            daemon.stop()
    floor = [transfer_once(fds) for _ in range(FLOOR_ROUNDS)]
    return {"descriptors": fds, "failed": failed, "floor_us": 1e6 * statistics.median(floor),
            "control_us": [1e6 * s for s in clients[0].longest(windows)],
            "call_us": [1e6 * s for s in clients[1].longest(windows)],
            "idle_us": [1e6 * s for s in clients[0].longest(idle)],
            "busy_us": [1e6 * s for s in clients[0].longest(busy)],
            "pause_us": [a["pause_us"] for a in answers], "total_us": [a["total_us"] for a in answers]}


def quantiles(values):
    ordered = sorted(values)
    return [ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], ordered[-1]]


def show(results):
    print("descriptors  pause by the supervisor, us   seen by a control client, us   without a takeover, us   the same, others busy, us   "
          "seen by a supervised call, us   all of it, ms   descriptors/s   against bare SCM_RIGHTS  failed")
    for r in results:
        columns = [" / ".join(f"{v:.0f}" for v in quantiles(r[key]))
                   for key in ("pause_us", "control_us", "idle_us", "busy_us", "call_us")]
        total = statistics.median(r["total_us"])
        print(f"{r['descriptors']:11}  {columns[0]:26}   {columns[1]:28}   {columns[2]:22}   {columns[3]:25}   {columns[4]:29}   "
              f"{total / 1000:13.1f}   {1e6 * r['descriptors'] / total:13.0f}   {total / r['floor_us']:23.1f}  {r['failed']:6}")
    first, last = results[0], results[-1]
    ratio = {key: quantiles(last[key])[0] / quantiles(first[key])[0] for key in ("pause_us", "control_us", "call_us")}
    print("(p50 / p99 / max)  pause with the most descriptors against that with the fewest, medians: "
          f"{ratio['pause_us']:.1f} by the supervisor, {ratio['control_us']:.1f} as a control client sees it, "
          f"{ratio['call_us']:.1f} as a supervised call does")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--takeovers", type=int)
    parser.add_argument("--descriptors", default="10,1000,10000")
    parser.add_argument("--json")
    options = parser.parse_args()
    takeovers = options.takeovers or (20 if options.quick else 100)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results = [measure(int(n), takeovers) for n in options.descriptors.split(",")]
    show(results)
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            json.dump(results, file, indent=1)


main()
