#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many runners at once, through the commands alone: `baton scale' and what it refuses, all of them killed in one moment, one
that dies at every start beside others that live, and what a runner leaves behind. $BATON_SOAK makes the storms long.
"""

import os
import resource
import signal

import daemon_tests
from daemon_tests import is_alive, test, until

LONG = bool(os.environ.get("BATON_SOAK"))
STORM = 300  # more than the keeper looks at with every end (supervisor/keeper/keeper.c, MANY)


def states(daemon):
    """name -> (state, pid) of all."""
    return {r["name"]: (r["state"], r.get("pid", 0)) for r in daemon.status()["runners"]}


def all_up(daemon, names, but=()):
    """name -> pid, as soon as exactly @names are there and up, none of them with a pid of @but."""
    def ready():
        now = states(daemon)
        return set(now) == set(names) and all(s == "up" and pid not in (0, *but) for s, pid in now.values()) and now
    return {name: pid for name, (_, pid) in until(ready, f"{len(names)} that are up").items()}


def numbered(name, n):
    return [f"{name}.{i}" for i in range(1, n + 1)]


@test
def fleet_scale(daemon):
    daemon.start("""
      runners:
        w: { command: [sleep, 1000], instances: 2 }
        one: { command: [sleep, 1000] }
    """)
    few = all_up(daemon, [*numbered("w", 2), "one"])
    assert daemon.baton("scale", "w=8").stdout == "w: 8 instances, 2 before\n"
    many = all_up(daemon, [*numbered("w", 8), "one"])
    assert all(many[name] == pid for name, pid in few.items()), "those that were there stay as they are"

    assert daemon.baton("scale", "w=3").stdout == "w: 3 instances, 8 before\n"
    some = all_up(daemon, [*numbered("w", 3), "one"])
    assert all(many[name] == pid for name, pid in some.items())
    assert not any(is_alive(many[name]) for name in set(many) - set(some)), "what is above is stopped"

    for words in (["one=2"], ["nobody=2"], ["w=many"], ["w=-1"], ["w=100000"], ["w"]):
        refused = daemon.baton("scale", *words, check=False)
        assert refused.returncode != 0 and refused.stderr.startswith("baton"), (words, refused)
    assert all_up(daemon, some) == some, "what is refused changes nothing"

    # It holds over a reload that says nothing new, and until one does.
    daemon.baton("reload")
    assert all_up(daemon, some) == some
    daemon.configure("runners: { w: { command: [sleep, 1000], instances: 4 }, one: { command: [sleep, 1000] } }")
    daemon.baton("reload")
    more = all_up(daemon, [*numbered("w", 4), "one"])
    assert all(more[name] == pid for name, pid in some.items())


@test
def all_die_at_once(daemon):
    daemon.start(f"""
      defaults: {{ backoff: {{ initial: 10ms, max: 50ms }}, intensity: {{ restarts: 0 }} }}
      runners: {{ w: {{ command: [sleep, 1000], instances: {STORM}, restart: always }} }}
    """)
    names, dead = numbered("w", STORM), set()
    now = all_up(daemon, names)
    for n in range(1, 21 if LONG else 3):
        for pid in now.values():
            os.kill(pid, signal.SIGKILL)
        dead.update(now.values())
        now = all_up(daemon, names, dead)
        assert all(r["restarts"] == n for r in daemon.status()["runners"])
    there = daemon_tests.children(daemon.keeper())
    assert set(there) == {*now.values(), daemon.supervisor()}, ("none runs twice", len(there), [
        (pid, is_alive(pid), daemon_tests.words_of(pid)) for pid in set(there) ^ {*now.values(), daemon.supervisor()}])


@test
def thousands_end_at_once(daemon):
    """Each end is reported once, as what it was, whichever SIGCHLD it shares, and nobody stays who is to be reaped."""
    n = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4 * n:
        raise daemon_tests.Skip(f"a process may have only {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * n), hard))
    daemon.start(f"runners: {{ w: {{ command: [sleep, 1000], instances: {n}, restart: never }} }}", BATON_LOG_LEVEL="warning")
    pids = until(lambda: (now := states(daemon)) and all(s == "up" and pid for s, pid in now.values()) and now, f"{n} that are up",
                 6 * daemon_tests.TIMEOUT)
    assert len(pids) == n
    signals = {name: (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)[i % 3] for i, name in enumerate(pids)}
    for name, (_, pid) in pids.items():
        os.kill(pid, signals[name])
    ended = until(lambda: (r := daemon.status()["runners"]) and all(one["state"] == "failed" for one in r) and r, "the end of all",
                  6 * daemon_tests.TIMEOUT)
    for one in ended:
        last = one["last_exit"]
        assert (last["pid"], last["exit"]) == (pids[one["name"]][1], {"how": "signaled", "status": signals[one["name"]]}), one
        assert one["restarts"] == 0, one
    assert len(daemon.status("w.7")["history"]) == 1
    assert daemon_tests.children(daemon.keeper()) == [daemon.supervisor()]


thousands_end_at_once.seconds = 18 * daemon_tests.TIMEOUT


@test
def one_dies_at_every_start(daemon):
    daemon.start("""
      defaults: { backoff: { initial: 1ms, max: 1ms }, intensity: { restarts: 5, within: 1min } }
      runners:
        dies: { command: [sh, -c, "echo I cannot; exit 3"], restart: always }
        lives: { command: [sleep, 1000] }
    """)
    lives = daemon.until_state("lives", "up")["pid"]
    for n in range(50 if LONG else 3):
        failed = daemon.until_state("dies", "failed")
        assert failed["restarts"] == 5 and "3" in failed["reason"], failed
        assert "I cannot" in daemon.baton("status", "dies").stdout
        assert failed.get("pid", 0) == 0
        daemon.baton("start", "dies", check=False)  # with fresh counters; it is up for a moment, and fails in the same way
    assert daemon.pid("lives") == lives


if __name__ == "__main__":
    daemon_tests.main()
