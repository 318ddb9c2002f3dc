#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is told of takeovers and recoveries: by `baton takeovers', `status', events, metrics and the log; whoever serves, and
whoever was killed.
"""

import json
import os
import re
import signal
import time

import daemon_tests
from daemon_tests import test, until

daemon_tests.LIBEXEC = daemon_tests.CHECKING

FLEET = "runners:\n  rests: { command: [sleep, 1001] }\n"
PHASES = ["check", "start", "copy", "freeze", "delta", "commit", "resume"]


def history(daemon):
    return [json.loads(line) for line in daemon.baton("takeovers", "--json").stdout.splitlines()]


def counts(daemon):
    text = daemon.baton("metrics").stdout
    return {word: int(n) for word, n in re.findall(r'^baton_takeovers_total\{outcome="(\w+)"\} (\d+)$', text, re.M)}


def events(daemon, kind):
    lines = daemon.baton("events", "--json").stdout.splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def kill_supervisor(daemon, number=signal.SIGKILL):
    pid = daemon.supervisor()
    os.kill(pid, number)
    until(lambda: (done := daemon.baton("status", "--json", check=False)).returncode == 0 and
          json.loads(done.stdout)["supervisor"]["pid"] != pid, "the next supervisor")
    return pid


@test
def each_outcome(daemon):
    daemon.start(FLEET, BATON_LOG_LEVEL="info")
    assert history(daemon) == [] and daemon.baton("takeovers").stdout == ""
    assert "last_takeover" not in daemon.status()["supervisor"] and "last takeover" not in daemon.baton("status").stdout
    assert set(counts(daemon).values()) == {0}
    before, began = daemon.supervisor(), time.time()

    answer = json.loads(daemon.baton("takeover", "--json").stdout)
    assert daemon.baton("takeover", "--check").returncode == 0
    assert daemon.baton("takeover", "--exec", "/bin/true", check=False).returncode != 0
    first, second, third = history(daemon)
    assert [entry["number"] for entry in (first, second, third)] == [1, 2, 3]
    assert (first["outcome"], second["outcome"], third["outcome"]) == ("done", "checked", "rolled_back")
    assert (first["former_pid"], first["pid"]) == (before, answer["pid"])
    assert (first["former_generation"], first["generation"]) == (1, 2) and not first["check"] and second["check"]
    assert began - 1 < first["time_us"] / 1e6 < time.time() + 1
    assert first["pause_us"] == answer["pause_us"] > 0 and first["phase"] == "resume"
    assert list(first["phases_us"]) == [phase for phase in PHASES if phase in first["phases_us"]]
    assert {"start", "freeze", "delta", "resume"} <= set(first["phases_us"]), first
    assert abs(sum(first["phases_us"].values()) - first["total_us"]) < 1000, first
    assert "freeze" not in second["phases_us"] and "pause_us" not in second
    assert third["reason"] and third["former_pid"] == answer["pid"] and "pid" not in third

    assert daemon.status()["supervisor"]["last_takeover"] == {k: v for k, v in third.items() if k != "version"}
    assert f"last takeover rolled_back at " in (said := daemon.baton("status").stdout) and third["reason"] in said
    table = daemon.baton("takeovers").stdout.splitlines()
    assert len(table) == 4 and third["reason"] in table[3] and f"{before} > {answer['pid']}" in table[1], table
    assert "start" in table[1], table
    told = events(daemon, "takeover")
    assert [event["number"] for event in told] == [2, 2, 2], told
    assert told[0]["text"].startswith("done: ") and third["reason"][:40] in told[2]["text"]
    assert counts(daemon) == {"done": 1, "checked": 1, "rolled_back": 1, "cut_off": 0, "recovered": 0, "went_back": 0}
    metrics = daemon.baton("metrics").stdout
    assert f"\nbaton_takeover_pause_seconds 0.{first['pause_us']:06d}\n" in metrics
    assert 'baton_takeover_phase_seconds{phase="start"} ' in metrics
    assert daemon.stop() == 0
    assert f"generation 2 follows generation 1 (pid {before})" in daemon.said()
    assert "takeover failed in phase " in daemon.said()


@test
def it_outlives_deaths(daemon):
    """What was written stays, and each death is told with its cause, once."""
    daemon.start(FLEET, BATON_LOG_LEVEL="info", ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":handle_segv=0")
    first = kill_supervisor(daemon)
    answer = json.loads(daemon.baton("takeover", "--json").stdout)
    second = kill_supervisor(daemon, signal.SIGSEGV)
    third = kill_supervisor(daemon, signal.SIGABRT)
    entries = history(daemon)
    assert [entry["outcome"] for entry in entries] == ["recovered", "done", "went_back", "recovered"], entries
    assert second == answer["pid"] and entries[1]["pid"] == answer["pid"]
    for entry, pid, name in ((entries[0], first, "SIGKILL"), (entries[2], second, "SIGSEGV"), (entries[3], third, "SIGABRT")):
        assert entry["former_pid"] == pid and name in entry["reason"], entry
        assert entry["former_generation"] < entry["generation"] and "phases_us" not in entry
    assert entries[3]["pid"] == daemon.supervisor() and entries[2]["pid"] == third
    assert daemon.status()["supervisor"]["last_takeover"]["number"] == 4
    assert "SIGABRT" in daemon.baton("status").stdout
    told = events(daemon, "recovery")
    assert len(told) == 1 and "SIGABRT" in told[0]["text"] and told[0]["pid"] == daemon.supervisor(), told
    assert counts(daemon)["recovered"] == 2 and counts(daemon)["went_back"] == 1 and counts(daemon)["done"] == 1
    assert daemon.stop() == 0
    assert f"(pid {first}) was killed by signal 9 SIGKILL" in daemon.said()


@test
def a_program_that_cannot_serve(daemon):
    """It takes over, and dies of that. The one before is back, once, and both are told."""
    daemon.start(FLEET, BATON_LOG_LEVEL="info")
    runner = daemon.pid("rests")
    daemon.baton("takeover")
    kill_supervisor(daemon)
    entries = history(daemon)
    assert [entry["outcome"] for entry in entries] == ["done", "went_back"], entries
    kill_supervisor(daemon)  # it is that program that is started again, and not the one before it
    assert history(daemon)[-1]["outcome"] == "recovered" and daemon.pid("rests") == runner
    assert daemon.stop() == 0


@test
def many_are_the_last_ones(daemon):
    daemon.start(FLEET)
    for _ in range(40):
        daemon.baton("takeover", "--check")
    entries = history(daemon)
    assert [entry["number"] for entry in entries] == list(range(9, 41)) and counts(daemon)["checked"] == 40
    daemon.baton("takeover")
    assert counts(daemon)["checked"] == 40 and history(daemon)[-1]["number"] == 41
    assert daemon.stop() == 0


daemon_tests.main()
