#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each system call, and each allocation, that the two sides of a takeover make in its phases fails once, in turn: somebody serves
afterwards, attached calls go on, no line is lost, nothing stays open. Where a supervisor gives up for it, the next one recovers.

For each phase and call the first one fails, and, for the soak, the second, and so on, until one that is never made was asked
for.
"""

import os
import re

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from daemon_tests import test  # noqa: E402
from takeover_faults import Rehearsal  # noqa: E402

LONG = bool(os.environ.get("BATON_SOAK"))
CALLS = {
    "sendmsg": "ENOBUFS", "recvmsg": "ENOMEM", "memfd_create": "EMFILE", "ftruncate": "ENOMEM", "mmap": "ENOMEM",
    "fcntl": "EMFILE", "epoll_ctl": "ENOMEM", "socketpair": "EMFILE", "poll": "ENOMEM", "read": "EIO", "open": "EMFILE",
    "malloc": "ENOMEM", "calloc": "ENOMEM", "realloc": "ENOMEM",
}
# While the predecessor serves, what it reads is what others wait for: such a failure is that connection's.
SERVING, OF_SERVING = ("check", "copy"), ("recvmsg", "read")
# Deaths in a row that a tree is to bear: the next supervisor waits longer after each.
DEATHS_MAX = 3


class Walk:
    def __init__(self, folder):
        self.folder, self.n, self.deaths, self.rehearsal = folder, 0, 0, None
        self.rows = []

    def fail_one(self, point):
        """Whether the call was made, and so failed."""
        if not self.rehearsal:
            self.rehearsal = Rehearsal(self.folder, f"calls-{self.n}")
            self.n, self.deaths = self.n + 1, 0
        log = self.rehearsal.daemon
        before = len(log.said())
        # It may be one that a supervised call, or its connection, needed: that is then its own failure.
        row = self.rehearsal.take_over(point, may_fail=1)
        self.rows.append(row)
        missed = re.search(r"calls of \w+ that failed: 0$", log.said()[before:], re.M)
        if row["serves"] == "recovery":
            self.deaths += 1
        if self.deaths == DEATHS_MAX:
            self.end()
        return not missed

    def end(self):
        rehearsal, self.rehearsal = self.rehearsal, None
        if rehearsal:
            rehearsal.end()

    def kill(self):
        if self.rehearsal:
            self.rehearsal.kill()


def walk(daemon, place):
    walk = Walk(daemon.folder)
    met = {}
    at = None
    try:
        for call, error in CALLS.items():
            if place in SERVING and call in OF_SERVING:
                continue
            n = 1
            while n <= (64 if LONG else 1) and walk.fail_one(at := f"{place}:{call}={error},{n}"):
                met[call] = n
                n += 1
        walk.end()
    except BaseException:
        print(f"# at {at}")
        walk.kill()
        raise
    serves = {who: sum(row["serves"] == who for row in walk.rows) for who in ("predecessor", "successor", "recovery")}
    print(f"# {place}: {sum(met.values())} failures, of {', '.join(f'{call} {n}' for call, n in met.items())}; then serves "
          f"{', '.join(f'the {who} {n} times' for who, n in serves.items() if n)}; attached calls "
          f"{sum(row['attached'] for row in walk.rows)}, failed {sum(row['attached_failed'] for row in walk.rows)}; lines "
          f"{sum(row['lines'] for row in walk.rows)}, lost {sum(row['lost'] for row in walk.rows)}")
    assert met, f"nothing failed in {place}"


def at(place):
    def one(daemon):
        walk(daemon, place)
    one.__name__ = place.replace("@", "_of_")
    one.seconds = (600 if LONG else 15 * daemon_tests.TIMEOUT)
    return test(one)


for where in ("check", "copy", "freeze", "delta", "start@successor", "copy@successor", "delta@successor", "commit@successor",
              "resume@successor"):
    at(where)

daemon_tests.main()
