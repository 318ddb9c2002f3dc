#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The service of a native runner: led to RUNNING at the start, driven by hand, led to STOPPED at the end; refused, and left as
it is, where the table has no such event; named where the runner refuses, hangs or dies.
"""

import json
import os
import sys

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from daemon_tests import FACTOR, test, until  # noqa: E402

daemon_tests.LIBEXEC = daemon_tests.CHECKING

RUNNER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "service_runner.py")
ECHO = os.path.join(daemon_tests.BUILD, "baton-runner-echo")


def runner(*plan, **keys):
    command = json.dumps([sys.executable, RUNNER, *plan])
    return f"{{ command: {command}, ready: hello, restart: never, " + ", ".join(f"{k}: {v}" for k, v in keys.items()) + " }"


def start(daemon, **runners):
    daemon.start("runners:\n" + "".join(f"  {name}: {text}\n" for name, text in runners.items()))


def info(daemon, name):
    return json.loads(daemon.baton("service", name, "info", "--json").stdout)["service"]


def fails(daemon, code, *words):
    done = daemon.baton("service", *words, check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stderr


def said(daemon, name):
    return [line.split(": ")[-1] for line in daemon.baton("logs", name).stdout.splitlines()]


def did(daemon, name):
    return [line.split()[-1] for line in daemon.baton("logs", name).stdout.splitlines() if "did " in line]


@test
def is_led_to_running_and_to_stopped(daemon):
    start(daemon, a=runner())
    daemon.until_state("a", "up")
    found = info(daemon, "a")
    assert found["state"] == "RUNNING" and found["registered"] and found["version"] == "by hand 1", found
    assert found["description"] == {"events": 2} and found["id"].startswith("a:"), found
    assert f"pid {daemon.supervisor()}, generation 1" in found["supervisor"], found
    assert daemon.status("a")["service_state"] == 2
    daemon.baton("stop", "a")
    assert did(daemon, "a") == ["Mount", "Start", "Stop", "Stop"], did(daemon, "a")
    assert daemon.status("a")["last_exit"]["exit"] == {"how": "exited", "status": 0}, daemon.status("a")


@test
def is_driven_by_hand(daemon):
    start(daemon, a=runner(service="manual"))
    daemon.until_state("a", "up")
    assert info(daemon, "a")["state"] == "INIT"
    assert "Start is refused in state INIT" in fails(daemon, 25, "a", "start")
    assert daemon.baton("service", "a", "mount").stdout == "a: READY, after Mount\n"
    for event, name in (("mount", "Mount"), ("takeover", "Takeover")):
        assert f"{name} is refused in state READY" in fails(daemon, 25, "a", event), event
    assert json.loads(daemon.baton("service", "a", "start", "--json").stdout) == {
        "version": 1, "name": "a", "state": "RUNNING", "sent": ["Start"]}
    assert info(daemon, "a")["last_event"] == 2
    assert daemon.baton("service", "a", "exit").stdout == "a: STOPPED, after Stop, Exit\n"
    daemon.until_state("a", "done")
    assert daemon.baton("service", "a", "exit").stdout == "a: STOPPED already\n"
    assert daemon.baton("service", "a", "stop").stdout == "a: STOPPED already\n"
    assert "is not running" in fails(daemon, 25, "a", "info")
    assert did(daemon, "a") == ["Mount", "Start", "Stop", "Exit"]


@test
def exit_in_init_is_stop(daemon):
    start(daemon, a=runner(service="manual"))
    daemon.until_state("a", "up")
    assert daemon.baton("service", "a", "exit").stdout == "a: STOPPED, after Stop\n"
    daemon.until_state("a", "done")


@test
def what_it_refuses_leaves_it_as_it_was(daemon):
    start(daemon, a=runner("Start=refuse", service="manual"))
    daemon.until_state("a", "up")
    daemon.baton("service", "a", "mount")
    for _ in range(2):
        assert "baton: service a: INTERNAL: no Start today" in fails(daemon, 29, "a", "start")
    assert info(daemon, "a")["state"] == "READY"


@test
def one_event_at_a_time_and_each_gets_its_own_answer(daemon):
    start(daemon, a=runner("Mount=hang", service="manual"))
    daemon.until_state("a", "up")
    assert "DEADLINE_EXCEEDED" in fails(daemon, 20, "a", "mount", "--timeout=300ms")
    assert info(daemon, "a")["under_way"] == "Mount"
    assert "baton: service a: FAILED_PRECONDITION: Stop is refused: Mount is under way in state INIT" in fails(daemon, 25, "a", "stop")


@test
def whoever_dies_over_it_is_named(daemon):
    start(daemon, a=runner("Mount=die", service="manual"))
    daemon.until_state("a", "up")
    assert "baton: service a: UNAVAILABLE: " in fails(daemon, 30, "a", "mount")
    daemon.until_state("a", "failed")


@test
def a_service_that_does_not_begin_is_a_start_that_failed(daemon):
    start(daemon, refuses=runner("Mount=refuse"), hangs=runner("Start=hang", start_timeout=f"{2 * FACTOR:g}s"), dies=runner("Start=die"))
    assert daemon.until_state("refuses", "failed")["reason"] == \
        "start failed: its service does not begin: Mount: INTERNAL: no Mount today"
    assert "its service did not begin within" in daemon.until_state("hangs", "failed")["reason"]
    assert "exited with status 7" in daemon.until_state("dies", "failed")["reason"]


@test
def one_that_ends_badly_is_stopped_all_the_same(daemon):
    """What it could not undo is a line of its log: it is no reason to stay."""
    path = os.path.join(daemon.folder, "plan")
    with open(path, "w", encoding="utf-8") as file:
        file.write("unmount=refuse\n")
    command = json.dumps([os.path.join(daemon_tests.BUILD, "tests", "state-runner"), "--plan", path])
    start(daemon, a=f"{{ command: {command}, ready: hello, restart: never }}")
    daemon.until_state("a", "up")
    assert "a: STOPPED, after Stop, Stop" in daemon.baton("service", "a", "stop").stdout
    until(lambda: "Stop: READY -> STOPPED, although it ended badly: " in daemon.baton("logs", "a").stdout, "the line of it")


@test
def a_service_that_hangs_at_the_stop_is_signalled(daemon):
    start(daemon, a=runner("Stop=hang", stop_timeout="600ms"))
    daemon.until_state("a", "up")
    daemon.baton("stop", "a")
    assert daemon.status("a")["last_exit"]["exit"] == {"how": "signaled", "status": 15, "signal": "SIGTERM"} or \
        daemon.status("a")["last_exit"]["exit"]["status"] == 15


@test
def runners_without_a_service_say_so(daemon):
    daemon.start(f"runners:\n  plain: {{ command: [sleep, 1000] }}\n  echo: {{ command: [{ECHO}], ready: hello }}\n")
    daemon.until_state("echo", "up")
    assert "is a plain program, which has no service" in fails(daemon, 25, "plain", "info")
    assert not info(daemon, "echo")["registered"] and info(daemon, "echo")["state"] == "RUNNING"
    assert "there is no event" in fails(daemon, 19, "echo", "jump")
    assert "NAME and what to do with it are missing" in fails(daemon, 2, "echo")
    assert "did you mean echo" in fails(daemon, 21, "ecko", "info")


@test
def a_supervisor_that_follows_goes_on_from_its_state(daemon):
    start(daemon, a=runner(service="manual"))
    daemon.until_state("a", "up")
    daemon.baton("service", "a", "mount")
    daemon.baton("takeover")
    assert info(daemon, "a")["state"] == "READY"
    assert daemon.baton("service", "a", "start").stdout == "a: RUNNING, after Start\n"


daemon_tests.main()
