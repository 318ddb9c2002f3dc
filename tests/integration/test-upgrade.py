#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Upgrades in a row under a client that does not stop: calls without a pause between them and a long stream, over one attached
connection. No call fails, each is counted once, the connection stays, and the stream comes whole and in order from the process
that it began in. Short, unless BATON_SOAK is set: then 100 upgrades."""

import contextlib
import json
import os
import signal
import subprocess

from daemon_tests import BUILD, TIMEOUT, is_alive, main, owned, test, until, what_is_open

LONG = bool(os.environ.get("BATON_SOAK"))
UPGRADES = int(os.environ.get("BATON_TEST_UPGRADES", "100" if LONG else "20"))
LOAD = os.path.join(BUILD, "bench", "call-load")
COUNTER = os.path.join(BUILD, "examples", "counter")
ITEMS = 1000000 if LONG else 100000


class Load:
    """The client, and what it has counted."""

    def __init__(self, daemon, name, items):
        self.process = subprocess.Popen([LOAD, name, "3600", str(items)], stdout=subprocess.PIPE, text=True,
                                        env=daemon.environment)
        owned.add(self.process.pid)
        assert self.process.stdout.readline() == "begun\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=6 * TIMEOUT)
        return json.loads(out)


def descriptors(pid):
    """What each is; sockets and the like without their numbers."""
    return sorted(link.split("[")[0] for link in what_is_open(pid))


def upgrade(daemon, name):
    return json.loads(daemon.baton("upgrade", name, "--json", timeout=3 * TIMEOUT).stdout)


def rows(daemon, load, name, upgrades):
    """The pid of each process, from the first on, and the pauses."""
    pids, pauses = [daemon.pid(name)], []
    for _ in range(upgrades):
        done = upgrade(daemon, name)
        pids.append(done["pid"])
        pauses.append(done["upgrade"]["pause_us"])
        assert load.process.poll() is None, "the client has ended"
    return pids, pauses


@test
def calls_and_a_stream(daemon):
    daemon.start(f"runners:\n  counter: {{ command: [{COUNTER}], ready: hello, upgrade: {{ drain: 1h }} }}\n")
    daemon.until_state("counter", "up")
    upgrade(daemon, "counter")  # what is made once is there now
    supervisor = daemon.supervisor()
    until(lambda: "past" not in daemon.status("counter"), "the end of the first one")
    daemon.baton("signal", "counter", "CONT")  # answered by the keeper, behind all that was asked of it before
    before = descriptors(supervisor), descriptors(daemon.keeper())
    with Load(daemon, "counter", ITEMS) as load:
        pids, pauses = rows(daemon, load, "counter", UPGRADES)
        # The one whose stream is open is there yet, and none of those between it and the last: each had ended its calls.
        assert len(set(pids)) == UPGRADES + 1 and is_alive(pids[0])
        until(lambda: daemon.status("counter").get("past") == 1, "the end of those between")
        assert not any(is_alive(pid) for pid in pids[1:-1])
        counted = load.end()
    print(f"# {UPGRADES} upgrades, {counted['calls']} calls, {counted['items']} items; longest gap "
          f"{counted['gap_us'] / 1000:.1f} ms, longest pause {max(pauses) / 1000:.1f} ms")
    assert counted["failed"] == 0 and counted["wrong"] == 0 and not counted["lost"], counted
    assert counted["whole"] and counted["items"] == ITEMS and counted["disordered"] == 0, counted
    assert counted["calls"] == counted["last"] - counted["first"] + 1, counted
    until(lambda: "past" not in daemon.status("counter") and not is_alive(pids[0]), "the end of the first one")
    status = daemon.status("counter")
    assert status["pid"] == pids[-1] and status["upgrades_done"] == UPGRADES + 1, status
    assert status["restarts"] == 0 and "upgrades_failed" not in status, status
    # Whoever asked before may not have been gone when they were counted: there may be fewer.
    for pid, there in zip((supervisor, daemon.keeper()), before):
        with contextlib.suppress(AssertionError):
            until(lambda pid=pid, there=there: len(descriptors(pid)) <= len(there), "the end of every descriptor")
        assert len(descriptors(pid)) <= len(there), (there, descriptors(pid))


calls_and_a_stream.seconds = (1500 if LONG else 60) * TIMEOUT / 10


if __name__ == "__main__":
    main()
