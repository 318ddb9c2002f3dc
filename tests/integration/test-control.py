#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Commands to a supervisor that runs, as a user meets them: each outcome with its exit code and its line, JSON as docs/status.md
has it, the table on a terminal, events, metrics as text and over HTTP, roles, and clients that misbehave."""

import contextlib
import fcntl
import http.client
import json
import os
import pty
import re
import select
import shlex
import signal
import socket
import stat
import struct
import subprocess
import termios

import baton_wire as wire
from daemon_tests import BATON, BUILD, HOST, TIMEOUT, Skip, main, owned, test, until

SOURCE = os.environ.get("abs_top_srcdir", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
RUNNERS = """
runners:
  web:
    command: [sleep, "1000000"]
    instances: 2
  store:
    command: [sleep, "1000000"]
    description: keeps things
  stubborn:
    command: [sh, -c, "trap '' TERM; echo ready; while :; do sleep 1000000; done"]
    stop_timeout: 200ms
    autostart: false
  bad:
    command: [sh, -c, "echo one; echo two >&2; exit 3"]
    ready: notify
    start_timeout: 5s
    restart: never
    autostart: false
  slow:
    command: [sleep, "1000000"]
    ready: notify
    start_timeout: 1min
    autostart: false
  once:
    command: ["true"]
    oneshot: true
    autostart: false
"""


def start(daemon, text=RUNNERS, **environment):
    daemon.start(text, **environment)
    for name in ("web.1", "web.2", "store"):
        if name.split(".")[0] in text:
            daemon.until_state(name, "up")


def check(daemon, *words, code=0, out=None, err="", **more):
    """One command, to the letter. @out None: anything; a pattern that is compiled: that."""
    done = daemon.baton(*words, check=False, **more)
    for name, is_, wanted in (("stdout", done.stdout, out), ("stderr", done.stderr, err)):
        fits = wanted is None or (wanted.fullmatch(is_) if isinstance(wanted, re.Pattern) else is_ == wanted)
        assert fits, f"{words}: {name}: {is_!r}, not {wanted!r}; exit {done.returncode}"
    assert done.returncode == code, f"{words}: exit {done.returncode}, not {code}: {done.stderr}"
    return done.stdout


def members(section):
    """What docs/status.md says: (all, always) of the first table of a section, or of the one after `NAME:'."""
    with open(os.path.join(SOURCE, "docs", "status.md"), encoding="utf-8") as file:
        text = file.read()
    part = text.split(section + "\n", 1)[1]
    table = re.search(r"\| member \|.*?\n\n", part + "\n\n", re.S).group(0)
    every, always = set(), set()
    for names, meaning in re.findall(r"^\| (`.*?`) \| ?(.*?) ?\|$", table, re.M):
        found = set(re.findall(r"`(\w+)`", names))
        every |= found
        if meaning.startswith("always"):
            always |= found
    assert every, section
    return every, always


def conforms(value, section):
    every, always = members(section)
    assert always <= set(value) <= every, (section, always - set(value), set(value) - every)


@test
def many_of_which_nothing_is_known(daemon):
    """Runners that were never started take few bytes in an answer, and a large structure each where it is read."""
    daemon.start("defaults: { autostart: false }\nrunners:\n" +
                 "".join(f"  r{i}: {{ command: [sleep, 1000] }}\n" for i in range(1000)))
    assert len(daemon.status()["runners"]) == 1000
    assert daemon.baton("start", "r7").stdout.startswith("r7: up, pid ")


@test
def start_stop_restart(daemon):
    start(daemon)
    pid = daemon.pid("store")
    check(daemon, "start", "store", out=f"store: was up already, pid {pid}\n")
    check(daemon, "start", "--strict", "store", code=45, out=f"store: was up already, pid {pid}\n")
    check(daemon, "stop", "store", out="store: down; killed by signal 15 (SIGTERM)\n")
    check(daemon, "stop", "store", out="store: was down already\n")
    check(daemon, "stop", "--strict", "store", code=45, out="store: was down already\n")
    check(daemon, "start", "--no-wait", "--wait", "store", out=re.compile(r"store: up, pid \d+\n"))
    check(daemon, "restart", "store", out=re.compile(r"store: up, pid \d+\n"))
    check(daemon, "start", "once", out="once: done\n")
    check(daemon, "start", "stubborn", out=re.compile(r"stubborn: up, pid \d+\n"))
    until(lambda: daemon.status("stubborn").get("last_output"), "its trap")
    check(daemon, "stop", "stubborn", out="stubborn: down; it did not stop in time, and was killed\n")
    out = check(daemon, "stop", "web", "sto*")
    assert sorted(line.split(":")[0] for line in out.splitlines()) == ["store", "web.1", "web.2"], out
    check(daemon, "start", "--no-wait", "web.1", out="web.1: on its way up\n")
    check(daemon, "reset", "store", out=re.compile(r"store: .*\n"))
    check(daemon, "reset", "--strict", "store", code=45, out=re.compile(r"store: .*\n"))
    daemon.until_state("web.1", "up")
    check(daemon, "signal", "web.1", "CONT", out="web.1: signal 18 (SIGCONT) was sent\n")
    check(daemon, "signal", "web.1", "NOPE", code=2, out="",
          err="baton: signal: there is no signal 'NOPE'; try 'baton signal --help'\n")
    check(daemon, "signal", "store", "HUP", code=25, out="",
          err="baton: signal store: FAILED_PRECONDITION: is not running\n")


@test
def started_while_it_stops(daemon):
    """Whoever waits for the stop is told, rather than waiting until somebody stops it again."""
    start(daemon)
    for n, contrary in enumerate(("restart", "start"), 1):
        check(daemon, "start", "stubborn", out=None)
        until(lambda n=n: len(daemon.baton("logs", "stubborn").stdout.splitlines()) == n, "its trap")
        pid = daemon.pid("stubborn")
        stop = subprocess.Popen([BATON, "stop", "stubborn", "--stop-timeout=10min"], env=daemon.environment, stderr=subprocess.PIPE,
                                text=True)
        owned.add(stop.pid)
        daemon.until_state("stubborn", "stopping")
        check(daemon, contrary, "stubborn", "--no-wait", out=None)
        os.killpg(pid, signal.SIGKILL)
        assert stop.communicate(timeout=TIMEOUT)[1] == (
            "baton: stop stubborn: UNAVAILABLE: was started again meanwhile\n")
        assert stop.returncode == 30, stop.returncode
        daemon.until_state("stubborn", "up")


@test
def names(daemon):
    start(daemon)
    for command in ("start", "stop", "restart", "reset"):
        check(daemon, command, "stora", code=21, out="", err=f"baton: {command} stora: NOT_FOUND: there is none of "
                                                            "that name; did you mean store?\n")
    check(daemon, "status", "stora", code=21, out="",
          err="baton: status stora: NOT_FOUND: there is none of that name; did you mean store?\n")
    for asked, told in (("store web.2 store", "store web.2"), ("web.2 web", "web.1 web.2"), ("web.1 s*e w*.1", "store web.1"),
                        ("store web.2 web.1", "store web.1 web.2"), ("store stor?", "store")):
        answer = json.loads(check(daemon, "status", "--json", *asked.split()))
        assert " ".join(runner["name"] for runner in answer["runners"]) == told, (asked, answer)
    check(daemon, "status", "store", "stora", code=21, out="", err=None)
    check(daemon, "stop", "store", "x*", code=21, out="", err=None)
    assert daemon.status("store")["state"] == "up", "one wrong name, and nothing is done"
    check(daemon, "start", code=2, out="", err=re.compile(r"baton: start: the name of a runner is missing; .*\n"))
    check(daemon, "scale", "web", code=2, out="", err=re.compile(r"baton: scale: it wants NAME=N: .*\n"))
    check(daemon, "scale", "wb=3", code=21, out="", err=re.compile(r"baton: scale wb: NOT_FOUND: .*\n"))


@test
def it_does_not_come_up(daemon):
    start(daemon)
    done = daemon.baton("start", "bad", check=False)
    assert done.returncode == 43 and done.stdout == "", done
    lines = done.stderr.splitlines()
    assert lines[0].startswith("baton: start: runner bad: ") and "status 3" in lines[0], done.stderr
    assert sorted(lines[1:]) == ["    one", "    two"], done.stderr
    answer = json.loads(daemon.baton("start", "--json", "bad", check=False).stdout)
    conforms(answer, "## baton start, stop, restart, reset, signal")
    assert (answer["outcome"], answer["code"]) == ("failed", 43), answer
    check(daemon, "start", "--timeout=100ms", "slow", code=20, out="",
          err="baton: start slow: DEADLINE_EXCEEDED: not within --timeout; it goes on\n")
    assert daemon.status("slow")["state"] == "starting", "it goes on"


@test
def json_as_documented(daemon):
    start(daemon)
    answer = json.loads(check(daemon, "status", "--json"))
    assert set(answer) == {"version", "supervisor", "runners"} and answer["version"] == 1, answer
    conforms(answer["supervisor"], "`supervisor`:")
    assert [runner["name"] for runner in answer["runners"]] == ["bad", "once", "slow", "store", "stubborn", "web.1", "web.2"]
    check(daemon, "stop", "store")
    check(daemon, "start", "store")
    daemon.baton("start", "bad", check=False)
    for runner in json.loads(check(daemon, "status", "--json", "*"))["runners"]:
        conforms(runner, "Each of `runners`:")
        for record in runner.get("history", []):
            conforms(record, "An exit record:")
    store = daemon.status("store")
    assert (store["description"], store["last_exit"]["cause"]) == ("keeps things", "stopped"), store
    assert store["last_exit"]["exit"] == {"how": "signaled", "status": 15}, store
    for line in check(daemon, "events", "--json").splitlines():
        conforms(json.loads(line), "## baton events")
    for command, outcome in (("stop", "down"), ("stop", "already"), ("start", "up"), ("start", "already"),
                             ("restart", "up")):
        answer = json.loads(check(daemon, command, "--json", "store"))
        conforms(answer, "## baton start, stop, restart, reset, signal")
        assert (answer["outcome"], answer["name"], answer["code"]) == (outcome, "store", 0), answer
    answer = json.loads(check(daemon, "signal", "--json", "store", "CONT"))
    assert answer["outcome"] == "signaled", answer
    assert json.loads(check(daemon, "scale", "--json", "web=3")) == {
        "version": 1, "name": "web", "before": 2, "after": 3, "failed": 0}
    daemon.configure(RUNNERS.replace("keeps things", "has things").replace("  once:", "  twice:"))
    answer = json.loads(check(daemon, "reload", "--dry-run", "--json"))
    assert set(answer) == {"version", "applied", "changes", "unchanged"} and answer["applied"] is False, answer
    assert {(change["name"], change["action"]) for change in answer["changes"]} >= {
        ("store", "update"), ("once", "remove"), ("twice", "add")}, answer
    assert json.loads(check(daemon, "shutdown", "--json"))["version"] == 1
    assert daemon.process.wait(TIMEOUT) == 0


@test
def scale_and_reload(daemon):
    start(daemon)
    check(daemon, "scale", "web=3", out="web: 3 instances, 2 before\n")
    assert daemon.status("web.3")["state"] == "up"
    check(daemon, "scale", "web=1", out="web: 1 instances, 3 before\n")
    check(daemon, "status", "web.3", code=21, out="", err=None)
    check(daemon, "scale", "web=2", out="web: 2 instances, 1 before\n")
    check(daemon, "reload", out="nothing has changed\n")
    daemon.configure(RUNNERS + "  more:\n    command: [sleep, \"1000000\"]\n")
    check(daemon, "reload", "--dry-run", out=re.compile(r"\+ more.*\n"))
    check(daemon, "status", "more", code=21, out="", err=None)
    check(daemon, "reload", out=re.compile(r"\+ more.*\n"))
    daemon.until_state("more", "up")
    daemon.configure(RUNNERS + "  more:\n    comand: [sleep]\n")
    done = daemon.baton("reload", check=False)
    assert done.returncode == 19 and done.stderr.endswith("baton: reload: nothing was changed\n"), done
    assert re.search(r"baton.yaml:\d+: runners\.more\.comand: ", done.stderr), done
    assert daemon.status("more")["state"] == "up"
    kinds = [json.loads(line)["kind"] for line in check(daemon, "events", "--json").splitlines()]
    assert kinds[0] == "supervisor_started" and kinds.count("configuration_loaded") == 3, kinds
    for kind in ("configuration_refused", "runner_added", "runner_removed", "runner_state", "runner_exited", "command"):
        assert kind in kinds, (kind, set(kinds))


@test
def nobody_there(daemon):
    nowhere = os.path.join(daemon.folder, "nowhere")
    line = (f"baton: status: no supervisor runs here: there is no socket {nowhere}; start one with 'baton supervise', or name "
            "another with --socket or $BATON_SOCKET\n")
    check(daemon, "status", "--socket", nowhere, code=46, out="", err=line)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(nowhere)
    check(daemon, "status", "--socket", nowhere, code=47, out="",
          err=f"baton: status: no supervisor runs here any more: nobody is behind {nowhere}; start one with 'baton "
              "supervise'\n")
    check(daemon, "status", "--socket", __file__, code=46, out="", err=f"baton: status: {__file__} is not a socket\n")
    check(daemon, "status", "--socket=", code=2, out="", err=re.compile(r"baton: status: --socket wants a path; .*\n"))


@contextlib.contextmanager
def somebody(daemon):
    """May the user nobody come as far as the socket? Gives what runs a command as nobody, in given groups."""
    if os.geteuid() != 0:
        raise Skip("only root can be somebody else")
    path, opened = daemon.runtime, []
    while path != "/":
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if not mode & 1:
            os.chmod(path, mode | 1)
            opened.append((path, mode))
        path = os.path.dirname(path)
    reachable = subprocess.run([BATON, "version"], user=65534, group=65534, extra_groups=[], capture_output=True, check=False)
    try:
        if reachable.returncode != 0:
            raise Skip("the user nobody cannot execute the built programs")
        yield lambda *words, groups=(): subprocess.run(
            [BATON, *words], env=daemon.environment, user=65534, group=65534, extra_groups=list(groups), text=True,
            capture_output=True, timeout=TIMEOUT, check=False)
    finally:
        for path, mode in opened:
            os.chmod(path, mode)


def as_nobody(daemon, settings):
    start(daemon, f"supervisor:\n  {settings}\n" + RUNNERS)


DENIED = "baton: {0}: PERMISSION_DENIED: {1} needs role {2}, this connection (uid 65534) has {3}\n"


@test
def others_read(daemon):
    as_nobody(daemon, "others: read")
    with somebody(daemon) as run:
        done = run("status", "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["supervisor"]["role"] == "read", done
        done = run("stop", "store")
        assert (done.returncode, done.stderr) == (23, DENIED.format("stop store", "Stop", "operate", "read")), done
        done = run("shutdown")
        assert (done.returncode, done.stderr) == (23, DENIED.format("shutdown", "Shutdown", "admin", "read")), done
    assert daemon.status("store")["state"] == "up"
    said = [json.loads(line).get("text", "") for line in check(daemon, "events", "--json").splitlines()]
    assert any(re.fullmatch(r"uid 65534, pid \d+ \(baton\): Stop store: PERMISSION_DENIED: .*", text) for text in said), said


@test
def others_none(daemon):
    as_nobody(daemon, "others: none")
    with somebody(daemon) as run:
        done = run("status")
        assert done.returncode == 23 and done.stdout == "" and done.stderr.count("\n") == 1, done
        assert done.stderr.startswith("baton: status"), done


@test
def operators(daemon):
    as_nobody(daemon, 'operators: "60123"')
    with somebody(daemon) as run:
        done = run("stop", "store", groups=[60123])
        assert (done.returncode, done.stdout) == (0, "store: down; killed by signal 15 (SIGTERM)\n"), done
        done = run("shutdown", groups=[60123])
        assert (done.returncode, done.stderr) == (
            23, DENIED.format("shutdown", "Shutdown", "admin", "operate")), done


@test
def audit(daemon):
    start(daemon)
    changes = (("stop store", "Stop store"), ("start store", "Start store"), ("restart store", "Restart store"),
               ("reset store", "Reset store"), ("signal store CONT", "Signal store 18"), ("scale web=3", "Scale web 3"),
               ("reload", "Reload"))
    for command, _ in changes:
        check(daemon, *command.split())
    for command in ("status", "events", "metrics"):
        check(daemon, command)
    said = [line for line in daemon.said().splitlines() if ": command: " in line]
    for (_, what), line in zip(changes, said):
        assert re.fullmatch(rf"baton-supervisor: notice: command: uid {os.getuid()}, pid \d+ \(baton\): {what}: OK", line), line
    assert len(said) == len(changes), said


def on_terminal(daemon, *words, columns=80, rows=24, end=None, **environment):
    """What is written to a terminal. With @end: until that is there, then SIGINT."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen([BATON, *words], stdin=slave, stdout=slave, stderr=slave,
                               env={**daemon.environment, "TERM": "xterm", **environment})
    os.close(slave)
    data = b""
    while True:
        assert select.select([master], [], [], TIMEOUT)[0], data
        try:
            more = os.read(master, 65536)
        except OSError:
            break
        data += more
        if end and end(data.decode()):
            process.send_signal(signal.SIGINT)
            end = None
    os.close(master)
    return data.decode().replace("\r\n", "\n"), process.wait(TIMEOUT)


@test
def table(daemon):
    start(daemon, RUNNERS + "  failing:\n    command: [sh, -c, \"exit 7\"]\n    restart: never\n"
                            "    description: \"" + "long " * 30 + "\"\n")
    daemon.until_state("failing", "failed")
    environment = {name: "" for name in ("NO_COLOR",)}
    text, code = on_terminal(daemon, "status", **environment)
    plain = re.sub("\033\\[[0-9;]*m", "", text)
    assert code == 0 and "\033[32mup" in text and "\033[31mfailed" in text, text
    assert all(len(line) <= 80 for line in plain.splitlines()), plain
    lines = plain.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "PID", "UPTIME", "RESTARTS", "WHY"], lines
    assert lines[-1] == (f"8 runners, 3 up, 1 failed; supervisor {daemon.supervisor()}, "
                         f"keeper {daemon.keeper()}"), lines
    text, _ = on_terminal(daemon, "status", NO_COLOR="1")
    assert "\033" not in text, text
    assert on_terminal(daemon, "status", "store")[0].startswith("store - keeps things\n  state      \033[32mup"), "all about one"
    assert "\033" not in check(daemon, "status"), "not a terminal"
    assert check(daemon, "status", "failing").startswith("failing - long "), "all about one"


@test
def table_that_has_no_room(daemon):
    """No line is longer than the terminal is wide: names are cut in their middle, then columns are left out."""
    long = "n" * 40
    start(daemon, RUNNERS + f"  {long}:\n    command: [sleep, \"1000000\"]\n    instances: 12\n")
    daemon.until_state(long + ".12", "up")
    for columns in (200, 100, 80, 67, 60, 40):
        lines = on_terminal(daemon, "status", columns=columns, NO_COLOR="1")[0].splitlines()
        assert len(lines) == 7 + 12 + 2 and max(map(len, lines)) <= columns, (columns, lines)
        assert ("UPTIME" in lines[0]) == (columns >= 68), (columns, lines)
        last = next(line for line in lines if line.split()[0].endswith("12")).split()
        assert last[:2] == [long + ".12", "up"] if columns >= 100 else "~" in last[0] and last[1] == "up", (columns, last)
    assert long + ".12 " in check(daemon, "status"), "a file has room"


@test
def watch_of_more_than_fits(daemon):
    """The heading stays, and what is missing is said."""
    start(daemon, RUNNERS.replace("instances: 2", "instances: 30"))
    text, code = on_terminal(daemon, "status", "--watch", rows=12, end=lambda text: text.count(" up, ") >= 1, NO_COLOR="1")
    lines = text.split("\033[H\033[2J")[1].splitlines()
    assert code == 130 and lines[0].split()[0] == "NAME" and len(lines) == 11, (code, lines)
    assert re.fullmatch(r"35 runners, \d+ up, 0 failed; 26 more than fit; supervisor \d+, keeper \d+", lines[-1]), lines


@test
def watch(daemon):
    start(daemon)
    stopped = []

    def seen(text):
        if "store" in text and not stopped:
            stopped.append(daemon.baton("stop", "store"))
        return stopped and "stopped" in text.split("\033[H\033[2J")[-1]

    text, code = on_terminal(daemon, "status", "--watch", "store", "web.1", end=seen)
    assert code == 130 and text.count("\033[H\033[2J") >= 2, text


RUNNERS_IN_ORDER = """
runners:
  first:
    command: [sh, -c, "echo >&3; exec sleep 1000000"]
    ready: fd
  second:
    command: [sleep, "1000000"]
    requires: first
"""


@test
def events_have_reasons_that_hold(daemon):
    """What was waited for is the reason for waiting, and no longer one for starting."""
    daemon.start(RUNNERS_IN_ORDER)
    until(lambda: daemon.status("second")["state"] == "up", "up")
    states = {event["state"]: event.get("text", "")
              for event in map(json.loads, check(daemon, "events", "--json", "second").splitlines())
              if event["kind"] == "runner_state"}
    assert states == {"waiting": "waits for first", "starting": "", "up": ""}, states


@test
def command_of_one(daemon):
    """As configured, so that a shell would take it; bytes that are no text are shown as such."""
    daemon.start("runners:\n  db:\n    command: [sh, -c, \"echo 'it is %n'; exec sleep 1000000\", '', --x=1]\n")
    daemon.until_state("db", "up")
    shown = re.search(r"^  command    (.*)$", check(daemon, "status", "db"), re.M)
    words = ["sh", "-c", "echo 'it is %n'; exec sleep 1000000", "", "--x=1"]
    assert shown and shlex.split(shown[1]) == words, shown
    assert daemon.status("db")["command"] == words, daemon.status("db")
    assert "command" not in json.loads(check(daemon, "status", "--json"))["runners"][0], "of all it would be much"


@test
def events_followed(daemon):
    start(daemon)
    follow = subprocess.Popen([BATON, "events", "-f", "--json", "--since=1", "store"], env=daemon.environment,
                              stdout=subprocess.PIPE, text=True)
    seen = [json.loads(follow.stdout.readline())]
    assert seen[0]["kind"] == "runner_added", seen
    check(daemon, "stop", "store")
    while seen[-1].get("state") != "down" or seen[-1].get("previous") != "stopping":
        seen.append(json.loads(follow.stdout.readline()))
    assert all(event["runner"] == "store" for event in seen), seen
    numbers = [event["seq"] for event in seen]
    assert numbers == sorted(set(numbers)), numbers
    assert [event["exit"]["cause"] for event in seen if event["kind"] == "runner_exited"] == ["stopped"], seen
    follow.send_signal(signal.SIGINT)
    follow.communicate()
    assert follow.returncode == 130
    recent = check(daemon, "events", "--since=1h", "store")
    assert recent == check(daemon, "events", "store"), "an hour ago there was nothing"
    assert check(daemon, "events", "--since=" + recent.splitlines()[-1].split()[0]).startswith(recent.splitlines()[-1]), recent
    assert check(daemon, "events", "--since=2100-01-01") == "", "not yet"
    assert len(check(daemon, "events", "--since=1").splitlines()) >= len(recent.splitlines()), "a number"
    text = recent.splitlines()
    assert re.fullmatch(r"\S+ \S+ store: added", text[0]) or text[0].endswith(" store: added"), text


def families(text):
    """OpenMetrics, read strictly: {family: {labels: value}}."""
    assert text.endswith("# EOF\n") and text.count("# EOF") == 1, text[-100:]
    kinds, values = {}, {}
    for line in text.splitlines()[:-1]:
        if line.startswith("# "):
            _, what, name, rest = line.split(" ", 3)
            assert what in ("TYPE", "UNIT", "HELP"), line
            if what == "TYPE":
                assert name not in kinds, f"{name} twice"
                kinds[name] = rest
            elif what == "UNIT":
                assert name.endswith("_" + rest), line
            continue
        name, labels, value = re.fullmatch(r"(\w+)(\{.*\})? (\S+)", line).groups()
        suffix = {"counter": "_total", "info": "_info"}
        family = next((f for f in kinds if name == f + suffix.get(kinds[f], "")), None)
        assert family, f"{name} belongs to no family"
        values.setdefault(family, {})[labels or ""] = float(value)
    return values


@test
def metrics(daemon):
    start(daemon)
    first = families(check(daemon, "metrics"))
    assert first["baton_runners"][""] == 7 and first["baton_supervisor_generation"][""] == 1, first
    for family in ("baton_runner_state", "baton_runner_starts", "baton_runner_restarts", "baton_runner_log_lines",
                   "baton_runner_log_dropped", "baton_control_refused"):
        assert family in first, sorted(first)
    assert first["baton_runner_state"]['{runner="store",baton_runner_state="up"}'] == 1, first["baton_runner_state"]
    check(daemon, "restart", "store")
    second = families(check(daemon, "metrics"))
    label = '{runner="store"}'
    assert second["baton_runner_starts"][label] == first["baton_runner_starts"][label] + 1
    for family, values in first.items():
        if family.endswith(("_starts", "_lines", "_bytes", "_dropped", "_refused")):
            assert all(second[family][labels] >= value for labels, value in values.items()), family


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self.path)


def get(connection, method="GET", path="/metrics", **more):
    with contextlib.closing(connection):
        connection.request(method, path, **more)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read().decode()


def misuse(connect):
    status, kind, text = get(connect())
    assert status == 200 and kind.startswith("application/openmetrics-text; version=1.0.0"), (status, kind)
    assert families(text)["baton_runners"][""] == 7
    assert get(connect(), "POST", body="x")[0] == 405
    assert get(connect(), path="/other")[0] == 404
    assert get(connect(), headers={"X": "y" * 10000})[0] == 431
    slow = [connect() for _ in range(20)]  # more than are served at once: the others wait
    for one in slow:
        one.connect()
        with contextlib.suppress(BrokenPipeError):
            one.sock.sendall(b"GET /metrics HTTP/1.1\r\n")
    for one in slow:
        one.sock.sendall(b"Host: x\r\n\r\n")
        response = http.client.HTTPResponse(one.sock, method="GET")
        response.begin()
        assert response.status == 200 and families(response.read().decode()), response.status
        response.close()
        one.close()


@test
def metrics_over_http(daemon):
    path = os.path.join(daemon.folder, "metrics")
    start(daemon, f"supervisor:\n  metrics: {path}\n" + RUNNERS)
    misuse(lambda: UnixConnection(path))
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    daemon.configure(f"supervisor:\n  metrics: {HOST}:{port}\n" + RUNNERS)
    check(daemon, "reload")
    assert not os.path.exists(path), "the one before is gone"
    misuse(lambda: http.client.HTTPConnection(HOST, port, timeout=TIMEOUT))


@test
def a_thousand_clients(daemon):
    """Each is served, or told why not. Those that say nothing cost nobody else."""
    start(daemon)
    address = daemon.environment["BATON_SOCKET"]
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(address)
    clients = []
    for _ in range(1000):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(TIMEOUT)
        client.connect(address)
        clients.append(client)
        if len(clients) % 50 == 0:
            until(lambda: len(daemon.processes()) >= 2, "the supervisor")
    served = refused = 0
    for client in clients:
        try:
            peer = wire.Peer(client)
        except (wire.Closed, ConnectionError):
            refused += 1
            continue
        if peer.closed:
            assert peer.closed[0] == wire.RESOURCE_EXHAUSTED or "as many as may be" in str(peer.closed), peer.closed
            refused += 1
        else:
            served += 1
        peer.close()
    assert served + refused == 1000 and served >= 480, (served, refused)
    until(daemon.answers, "room for another, when those that have gone are gone")
    assert daemon.status()["supervisor"].get("clients_refused", 0) >= refused or refused == 0
    assert daemon.status("store")["state"] == "up"
    silent.close()


@test
def keeper_alone(daemon):
    """While no supervisor serves, who connects is told so, or waits for the next one."""
    start(daemon, BATON_TEST_NONE="")
    for _ in range(3):
        os.kill(daemon.supervisor(), signal.SIGKILL)
        done = daemon.baton("status", check=False)
        assert done.returncode in (0, 1, 30, 48), done
        if done.returncode == 48:
            assert re.fullmatch(r"baton: status: the keeper \(pid \d+\) runs, but no supervisor: it has crashed and is being "
                                r"started again, or was given up; the keeper's log says which\n", done.stderr), done
        until(daemon.answers, "the next supervisor")
    assert daemon.status("store")["state"] == "up"


main()
