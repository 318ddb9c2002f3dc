#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Takeovers of the supervisor with few and with many descriptors, beside the bare transfer of as many.

    bench/takeover.py [--quick] [--takeovers N] [--descriptors N,...] [--json FILE]

Each time a supervisor has plain runners (three descriptors each: process, two pipes) and one native one, and is replaced N
times. Two clients call all the time, one after the other: the state of one runner, which the supervisor answers itself, and
a call to the native one by way of the supervisor. The pause that a client sees is the longest of its calls during a takeover.
The floor is SCM_RIGHTS alone: as many descriptors from one process to another, 250 in a message, in the same run.

A takeover keeps every processor busy for as long as it takes, so that a client waits for one, whatever the supervisor does. What
that makes is measured in the same run, too: the longest call in as long a time without a takeover, beside as many processes that
compute as there are processors."""

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
import threading
import time

BUILD = os.environ.get("abs_top_builddir", os.getcwd())
SOURCE = os.environ.get("abs_top_srcdir", os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
os.environ.setdefault("BATON_PROGRAM", os.path.join(BUILD, "baton"))
os.environ.setdefault("BATON_LIBEXEC", BUILD)
sys.path.insert(0, os.path.join(SOURCE, "tests/integration"))

import baton_wire as wire  # noqa: E402

wire.need_protobuf()

import daemon_tests  # noqa: E402
from baton_wire import control  # noqa: E402

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


class Client(threading.Thread):
    """Calls without a pause; the longest call since the last look is what it has seen."""

    def __init__(self, daemon, message):
        super().__init__(daemon=True)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(os.path.join(daemon.runtime, "control"))
        self.peer, self.message, self.longest, self.over, self.failed = wire.Peer(connection, side=1), message, 0.0, False, 0
        self.start()

    def run(self):
        while not self.over:
            begun = time.monotonic()
            call = self.peer.wait(self.peer.message(*self.message))
            self.failed += call.status != wire.OK
            self.longest = max(self.longest, time.monotonic() - begun)
            time.sleep(0.0001)  # the two of them are one process, and are to be no load

    def look(self):
        longest, self.longest = self.longest, 0.0
        return longest


def beside_others(client, seconds, times):
    """The longest call of @client in @seconds, @times over, while all processors are busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    try:
        time.sleep(0.3)
        longest = []
        for _ in range(times):
            client.look()
            time.sleep(seconds)
            longest.append(client.look())
    finally:
        for other in others:
            other.kill()
            other.wait()
    return longest


def measure(n, takeovers):
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        daemon = daemon_tests.Daemon(folder)
        runners = max(n // PER_RUNNER, 1)
        echo = os.path.join(BUILD, "baton-runner-echo")
        daemon.start(f"runners:\n  idle: {{ command: [sleep, 100000], instances: {runners} }}\n"
                     f"  native: {{ command: [{echo}], ready: hello }}\n")
        try:
            daemon_tests.until(lambda: sum(r["state"] == "up" for r in daemon.status()["runners"]) == runners + 1, "all", 120)
            clients = [
                Client(daemon, ("baton.Control/Status", control.StatusRequest(names=["native"]))),
                Client(daemon, ("baton.Control/Call", control.CallRequest(name="native", method="echo.Echo/Unary", payload=b"x"))),
            ]
            seen, answers = ([], []), []
            for _ in range(takeovers):
                time.sleep(0.05)
                for client in clients:
                    client.look()
                done = subprocess.run([daemon_tests.BATON, "takeover", "--json"], env=daemon.environment, text=True,
                                      stdout=subprocess.PIPE, check=True)
                time.sleep(0.02)
                answers.append(json.loads(done.stdout))
                for all_of_it, client in zip(seen, clients):
                    all_of_it.append(client.look())
            total = statistics.median(a["total_us"] for a in answers) / 1e6
            busy = beside_others(clients[0], total, takeovers)
            for client in clients:
                client.over = True
                client.join(10)
            fds = len(os.listdir(f"/proc/{answers[-1]['pid']}/fd"))
            failed = sum(client.failed for client in clients)
        finally:
            daemon.stop()
    floor = [transfer_once(fds) for _ in range(FLOOR_ROUNDS)]
    return {"descriptors": fds, "failed": failed, "floor_us": 1e6 * statistics.median(floor),
            "control_us": [1e6 * s for s in seen[0]], "call_us": [1e6 * s for s in seen[1]],
            "busy_us": [1e6 * s for s in busy], "pause_us": [a["pause_us"] for a in answers],
            "total_us": [a["total_us"] for a in answers]}


def quantiles(values):
    ordered = sorted(values)
    return [ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], ordered[-1]]


def show(results):
    print("descriptors  pause by the supervisor, us   seen by a control client, us   the same, others busy, us   "
          "seen by a supervised call, us   all of it, ms   descriptors/s   against bare SCM_RIGHTS  failed")
    for r in results:
        columns = [" / ".join(f"{v:.0f}" for v in quantiles(r[key])) for key in ("pause_us", "control_us", "busy_us", "call_us")]
        total = statistics.median(r["total_us"])
        print(f"{r['descriptors']:11}  {columns[0]:26}   {columns[1]:28}   {columns[2]:25}   {columns[3]:29}   {total / 1000:13.1f}"
              f"   {1e6 * r['descriptors'] / total:13.0f}   {total / r['floor_us']:23.1f}  {r['failed']:6}")
    first, last = results[0], results[-1]
    print("(p50 / p99 / max)  pause with the most descriptors against that with the fewest, medians: "
          f"{quantiles(last['pause_us'])[0] / quantiles(first['pause_us'])[0]:.1f} by the supervisor, "
          f"{quantiles(last['control_us'])[0] / quantiles(first['control_us'])[0]:.1f} as a control client sees it, "
          f"{quantiles(last['busy_us'])[0] / quantiles(first['busy_us'])[0]:.1f} for it without a takeover")


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
