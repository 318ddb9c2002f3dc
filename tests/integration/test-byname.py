#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`baton call', `ping', `bench' and `methods' of runners that run, by their names; libbaton's connection to a supervisor that
others share. Nothing is started or stopped by either, and each refusal has its line."""

import json
import os
import signal
import subprocess

from daemon_tests import BUILD, FACTOR, main, test, until

RUNNERS = """
runners:
  echo:
    command: [baton-runner-echo]
    ready: hello
  again:
    command: [baton-runner-echo]
    ready: hello
    restart: always
    backoff: { initial: 10ms, max: 10ms }
  plain:
    command: [sleep, "1000"]
  down:
    command: [baton-runner-echo]
    ready: hello
    autostart: false
"""
PATH = BUILD + ":" + os.environ["PATH"]


def start(daemon):
    daemon.start(RUNNERS, PATH=PATH)
    for name in ("echo", "again", "plain"):
        daemon.until_state(name, "up")


def refused(daemon, *words, code, line, **more):
    done = daemon.baton(*words, check=False, **more)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (code, line, ""), done


@test
def call(daemon):
    start(daemon)
    before = daemon.status("echo")
    assert daemon.baton("call", "echo", "--", "echo.Echo/Unary", "string:hello").stdout == "hello\n"
    answer = json.loads(daemon.baton("call", "--json", "echo", "--", "echo.Echo/Unary", "u64:7").stdout)
    assert answer["status"] == "OK" and answer["values"] == [{"type": "u64", "value": 7}], answer
    large = "x" * (3 << 20)
    done = daemon.baton("call", "--raw", "echo", "--", "echo.Echo/Unary", "buffer:-", input=large)
    assert done.stdout == large, "as a sealed object, both ways"
    lines = "".join(f"{n}\n" for n in range(1000))
    done = daemon.baton("call", "--stream", "--raw", "echo", "--", "echo.Echo/Bidi", input=lines)
    assert done.stdout == lines, "a stream"
    assert daemon.status("echo")["pid"] == before["pid"] and daemon.status("echo")["state"] == "up", "it goes on"


@test
def ping_bench_methods(daemon):
    start(daemon)
    socket = daemon.environment.pop("BATON_SOCKET")
    done = daemon.baton("ping", "--socket", socket, "--count=3", "--interval=0", "echo").stdout.splitlines()
    assert done[0].startswith("echo: seq=1 time=") and "--- echo: 3 sent, 3 answered" in done, done
    answer = json.loads(daemon.baton("ping", "--socket", socket, "--json", "--count=2", "--interval=0", "echo").stdout)
    assert (answer["runner"], answer["answered"]) == ("echo", 2), answer
    done = daemon.baton("methods", f"--socket={socket}", "echo").stdout
    assert "echo.Echo/Unary" in done and "echo.Echo/Bidi" in done, done
    answer = json.loads(daemon.baton("bench", "--socket", socket, "--json", "--size=64", "--in-flight=4",
                                     f"--duration={int(100 * FACTOR)}ms", "echo", "--", "echo.Echo/Unary").stdout)
    row = answer["rows"][0]
    assert answer["runner"] == "echo" and row["calls"] > 0 and row["cpu_runner_ns"] > 0, answer
    daemon.environment["BATON_SOCKET"] = socket


@test
def refusals(daemon):
    start(daemon)
    refused(daemon, "call", "plain", "--", "M", code=25,
            line="baton: call M: FAILED_PRECONDITION: runner plain: is a plain program, which has no methods")
    for command in ("ping", "methods"):
        refused(daemon, command, "plain", code=25, line=f"baton: {command} plain: FAILED_PRECONDITION: "
                                                        "is a plain program, which has no methods")
    refused(daemon, "bench", "plain", code=25, line="baton: bench echo.Echo/Unary: FAILED_PRECONDITION: runner plain: "
                                                    "is a plain program, which has no methods")
    refused(daemon, "ping", "ech", code=21,
            line="baton: ping ech: NOT_FOUND: there is none of that name; did you mean echo?")
    refused(daemon, "ping", "down", code=25,
            line="baton: ping down: FAILED_PRECONDITION: is not running")
    refused(daemon, "call", "echo", "--", "no.Such/Method", code=28,
            line="baton: call no.Such/Method: UNIMPLEMENTED: no such method: no.Such/Method")
    done = daemon.baton("call", "--deadline=50ms", "echo", "--", "echo.Echo/Sleep", "u64:60000000", check=False)
    assert done.returncode == 20, done
    # Both ends have a clock; whoever is first says it.
    assert done.stderr in ("baton: call echo.Echo/Sleep: DEADLINE_EXCEEDED: no answer before the deadline\n",
                           "baton: call echo.Echo/Sleep: DEADLINE_EXCEEDED: not finished before the deadline\n"), done
    nowhere = os.path.join(daemon.folder, "nowhere")
    refused(daemon, "ping", "--socket", nowhere, "echo", code=46,
            line=f"baton: ping: no supervisor runs here: there is no socket {nowhere}; start one with 'baton supervise', "
                 "or name another with --socket or $BATON_SOCKET")


@test
def as_many_as_may(daemon):
    start(daemon)
    pings = [subprocess.Popen([os.path.join(BUILD, "baton"), "ping", "--count=100000", "--interval=1min", "echo"],
                              env=daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
             for _ in range(64)]
    for ping in pings:
        assert ping.stdout.readline().startswith("echo: seq=1"), "attached"
    refused(daemon, "ping", "echo", code=24, line="baton: ping echo: RESOURCE_EXHAUSTED: 64 clients are "
                                                  "attached, and 64 may be")
    for ping in pings:
        ping.send_signal(signal.SIGINT)
        assert "answered" in ping.communicate()[0] and ping.returncode == 130, "a table, and the signal"
    until(lambda: daemon.baton("ping", "--count=1", "echo", check=False).returncode == 0, "room for another")


@test
def it_dies_over_a_call(daemon):
    start(daemon)
    pid = daemon.pid("again")
    call = subprocess.Popen([os.path.join(BUILD, "baton"), "ping", "--count=100000", "--interval=20ms", "again"],
                            env=daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert call.stdout.readline().startswith("again: seq=1"), "attached"
    os.kill(pid, signal.SIGKILL)
    error = call.communicate()[1]
    assert call.returncode == 30, (call.returncode, error)
    assert error == "baton: ping again: UNAVAILABLE: killed by signal 9 (SIGKILL)\n", error
    until(lambda: daemon.pid("again") not in (0, pid), "its restart, which is the policy's")


@test
def libbaton(daemon):
    start(daemon)
    environment, program = daemon.environment, os.path.join(BUILD, "examples", "attach")
    before = daemon.pid("echo")

    def run(*words, **more):
        return subprocess.run([program, *words], env={**environment, **more}, text=True, capture_output=True, check=False)

    done = run("echo")
    assert (done.returncode, done.stdout) == (0, "hello came back\n1000 items came back\n"), done
    assert daemon.pid("echo") == before, "neither started nor stopped"
    done = run("plain")
    assert (done.returncode, done.stderr) == (
        1, "attach: runner plain: is a plain program, which has no methods\n"), done
    done = run("echo", BATON_SOCKET=os.path.join(daemon.folder, "nowhere"))
    assert (done.returncode, done.stderr) == (
        1, "attach: cannot connect to a supervisor: No such file or directory; $BATON_SOCKET says where it is\n"), done


main()
