#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What bad input gets, by the built programs: configurations, directories and sockets that cannot be used, a disk that is full,
names that are none, and clients that say nothing or are too many. Each line is compared to the letter, and docs/errors.md has to
have it. Whatever it is, the runners that are there go on. TAP on stdout.
"""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess

import baton_wire as wire

wire.need_protobuf()

from daemon_tests import BATON, BUILD, TIMEOUT, Skip, descriptors, is_alive, main, owned, test, until  # noqa: E402

SOURCE = os.environ.get("abs_top_srcdir", os.path.join(os.path.dirname(__file__), "../.."))
RUNNERS = 'runners: { one: { command: [sleep, "1001"] } }'
NOT_USABLE = 49
CLIENTS_MAX = 512  # LISTENER_CLIENTS_MAX
HELLO_TIMEOUT = 10


def lines_of_errors():
    """docs/errors.md as patterns: words in capitals, and N, are what differs."""
    with open(os.path.join(SOURCE, "docs/errors.md"), encoding="utf-8") as file:
        rows = re.findall(r"^\| `(.*?)` \|", file.read(), re.M)
    for row in rows:
        words = re.split(r"\b([A-Z]{3,}|N)\b", row)
        yield "".join(".+" if i % 2 else re.escape(word) for i, word in enumerate(words)).replace(r"\.\.\.:", ".*:")


PATTERNS = list(lines_of_errors())


def documented(line):
    texts = (line, re.sub(r"^baton(-supervisor: \w+|-keeper: \w+|): ", "", line))
    assert any(re.fullmatch(pattern, text) for pattern in PATTERNS for text in texts), f"docs/errors.md does not have: {line}"
    return line


def refused(done, code, *lines):
    """It ended with @code and said exactly these lines, each of which is documented."""
    said = done.stderr.splitlines()
    assert (done.returncode, done.stdout, said) == (code, "", list(lines)), done
    for line in said:
        documented(line)


# --------------------------------------------------------------------------------------------------------- configurations

# What it is, the text of `bad.yaml', and what is said.
BAD = (
    ("unknown key", "runners:\n  web:\n    comand: sh\n    command: sh\n",
     "bad.yaml:3: runners.web.comand: there is no such key; did you mean command?"),
    ("wrong type", "runners:\n  web:\n    command: sh\n    env: 3\n",
     "bad.yaml:4: runners.web.env: expected a mapping from names to values, or a list of NAME=value, not '3'"),
    ("duplicate name", "runners:\n  web: { command: sh }\n  web: { command: sh }\n",
     "bad.yaml:3: runners.web: this key is there twice, first on line 2"),
    ("missing program", "runners:\n  web:\n    command: [/nowhere/program]\n",
     "bad.yaml:3: runners.web.command: program /nowhere/program: No such file or directory"),
    ("no such user", "runners:\n  web:\n    command: sh\n    user: nobody-of-this-name\n",
     "bad.yaml:4: runners.web.user: there is no user nobody-of-this-name"),
    ("dependency on nothing", "runners:\n  web:\n    command: sh\n    requires: [wbe]\n",
     "bad.yaml:4: runners.web.requires: there is no runner or group wbe; did you mean web?"),
    ("cycle", "runners:\n  a: { command: sh, after: b }\n  b: { command: sh, requires: c }\n  c: { command: sh, after: a }\n",
     "bad.yaml:4: runners.c.after: waits for itself: a -> b -> c -> a"),
)


@test
def configurations(daemon):
    """The same line from `baton check', from a supervisor that is started with it, and from a reload."""
    daemon.start(RUNNERS)
    pid = daemon.until_state("one", "up")["pid"]
    elsewhere = {**daemon.environment, "BATON_SOCKET": ""}
    del elsewhere["BATON_SOCKET"]
    for what, text, line in BAD:
        with open(os.path.join(daemon.folder, "bad.yaml"), "w", encoding="utf-8") as file:
            file.write(text)
        refused(daemon.baton("check", "bad.yaml", check=False, cwd=daemon.folder), NOT_USABLE, line)
        done = subprocess.run([BATON, "supervise", "--runtime-dir", daemon.folder + "/other", "--state-dir",
                               daemon.folder + "/state", "--log-dir", daemon.folder + "/log", "bad.yaml"],
                              env=elsewhere, cwd=daemon.folder, text=True, capture_output=True, timeout=TIMEOUT, check=False)
        refused(done, 1, "baton-supervisor: error: " + line)
        daemon.configure(text)
        refused(daemon.baton("reload", check=False), 19, "baton: " + line.replace("bad.yaml", daemon.configuration),
                "baton: reload: nothing was changed")
        assert daemon.status("one")["pid"] == pid, what


@test
def a_program_that_goes_missing(daemon):
    """It was there when the configuration was loaded."""
    program = os.path.join(daemon.folder, "program")
    shutil.copy("/bin/sleep", program)
    daemon.start(f'runners: {{ one: {{ command: [{program}, "1001"], backoff: {{ initial: 10ms }}, intensity: {{ restarts: 2 }} }} }}')
    pid = daemon.until_state("one", "up")["pid"]
    os.unlink(program)
    os.kill(pid, signal.SIGKILL)
    line = f"start failed at exec({program}): No such file or directory"
    failed = daemon.until_state("one", "failed")
    assert failed["reason"] == "more than 2 restarts within 60 s; the last time it " + line, failed
    refused(daemon.baton("start", "one", check=False), 40, "baton: start: runner one: " + line)


@test
def files_that_cannot_be_read(daemon):
    path = os.path.join(daemon.folder, "secret.yaml")
    refused(daemon.baton("check", path, check=False), NOT_USABLE, f"{path}: cannot be read: No such file or directory")
    with open(path, "w", encoding="utf-8") as file:
        file.write(RUNNERS)
    os.chmod(path, 0)
    if os.geteuid() != 0:
        refused(daemon.baton("check", path, check=False), NOT_USABLE, f"{path}: cannot be read: Permission denied")
        return
    folder = daemon.folder
    while os.stat(folder).st_uid == 0 and folder != "/":  # so that nobody can come that far
        os.chmod(folder, os.stat(folder).st_mode | 0o011)
        folder = os.path.dirname(folder)
    as_nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    if subprocess.run([BATON, "version"], capture_output=True, check=False, **as_nobody).returncode != 0:
        raise Skip("the user nobody cannot execute the built programs")
    refused(daemon.baton("check", path, check=False, **as_nobody), NOT_USABLE, f"{path}: cannot be read: Permission denied")


# -------------------------------------------------------------------------------------------------- sockets and directories


def another(daemon, runtime, control):
    return subprocess.run([BATON, "supervise", *(["--runtime-dir", runtime] if runtime else []), "--state-dir",
                           daemon.folder + "/state", "--log-dir", daemon.folder + "/log", daemon.configuration],
                          env={**daemon.environment, "BATON_SOCKET": control, "XDG_RUNTIME_DIR": daemon.folder + "/xdg"},
                          text=True, capture_output=True, timeout=TIMEOUT, check=False)


@test
def a_second_supervisor(daemon):
    """On the same directory, whatever has become of the one that was started there first: its lock goes with the descriptor."""
    daemon.start(RUNNERS)
    pid = daemon.until_state("one", "up")["pid"]
    line = (f"baton-keeper: error: a supervisor runs on {daemon.runtime} already (pid {daemon.keeper()}); stop it first, or name "
            "another directory by --runtime-dir")
    refused(another(daemon, daemon.runtime, ""), 1, line)
    supervisor = daemon.supervisor()
    os.kill(supervisor, signal.SIGKILL)
    refused(another(daemon, daemon.runtime, ""), 1, line)
    until(lambda: not is_alive(supervisor) and daemon.answers(), "the next one")
    daemon.baton("takeover", "--keeper")  # another program in the same process
    refused(another(daemon, daemon.runtime, ""), 1, line)
    assert daemon.pid("one") == pid


def keeper(daemon, runtime, control, *before):
    """As `baton supervise' would start it where $BATON_SOCKET is @control; root's own directory is not the test's to use."""
    return [*before, os.path.join(BUILD, "baton-keeper"), "--runtime-dir", os.path.join(daemon.folder, runtime), "--state-dir",
            daemon.folder + "/state", "--log-dir", daemon.folder + "/log", "--socket", control, daemon.configuration]


def start(daemon, *command):
    with open(daemon.log, "ab") as log:
        daemon.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=daemon.environment)
    owned.add(daemon.process.pid)
    until(daemon.answers, "an answer of the supervisor")


@test
def a_socket_in_use(daemon):
    """By one that lives: refused, and it stays that one's. Of one that is dead: replaced."""
    control = daemon.environment["BATON_SOCKET"] = os.path.join(daemon.folder, "socket")
    daemon.configure(RUNNERS)
    start(daemon, *keeper(daemon, "first", control))
    pid = daemon.until_state("one", "up")["pid"]
    done = subprocess.run(keeper(daemon, "second", control), env=daemon.environment, text=True, capture_output=True,
                          timeout=TIMEOUT, check=False)
    refused(done, 1, f"baton-keeper: error: the control socket {control} is in use by pid {daemon.keeper()}; stop it first, or "
                     "name another by $BATON_SOCKET")
    assert daemon.pid("one") == pid

    daemon.process.kill()
    daemon.process.wait()
    until(lambda: not is_alive(pid), "its runner's end")
    assert os.path.exists(control)
    refused(daemon.baton("status", check=False), 47, f"baton: status: no supervisor runs here any more: nobody is behind {control}; "
                                                    "start one with 'baton supervise'")
    start(daemon, *keeper(daemon, "second", control))
    assert daemon.until_state("one", "up")["pid"] != pid

    # What is no socket is somebody's, and stays.
    other = os.path.join(daemon.folder, "other")
    with open(other, "w", encoding="ascii"):
        pass
    done = subprocess.run(keeper(daemon, "third", other), env=daemon.environment, text=True, capture_output=True,
                          timeout=TIMEOUT, check=False)
    refused(done, 1, f"baton-keeper: error: cannot make the control socket {other}: something that is no socket is there; remove "
                     "it, or name another by $BATON_SOCKET")
    assert os.path.isfile(other)


# ------------------------------------------------------------------------------------------------------------ a full disk


@test
def a_full_disk(daemon):
    """Lines are dropped and counted, which is said once; when there is room again it goes on by itself."""
    unshare = ["unshare", "--mount", "--propagation", "private", "--"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        raise Skip("no mount namespace is to be had")
    disk = os.path.join(daemon.folder, "disk")
    os.mkdir(disk)
    daemon.configure(f"""
      runners:
        talks:
          command: [sh, -c, "i=0; while :; do i=$((i+1)); echo line $i of many that fill a disk; done"]
          log: {{ directory: {disk}, ring_size: 64K }}
        one: {{ command: [sleep, "1001"] }}
    """)
    mount = 'mount -t tmpfs -o size=256k none "$1" && shift && exec "$@"'
    start(daemon, *keeper(daemon, "run", daemon.environment["BATON_SOCKET"], *unshare, "sh", "-c", mount, "sh", disk))
    there = f"/proc/{daemon.keeper()}/root{disk}"  # as the daemon sees it
    file = os.path.join(there, "talks.log")
    cannot = f"runner talks: cannot write its log {disk}/talks.log: No space left on device; lines are kept in memory while " \
             "there is room"
    again = f"runner talks: its log {disk}/talks.log is written again"
    until(lambda: cannot in daemon.said(), "the full disk")
    dropped = until(lambda: daemon.status("talks")["log"]["dropped"], "lines that are dropped")
    until(lambda: daemon.status("talks")["log"]["dropped"] > dropped, "more of them")
    until(lambda: daemon.status("talks")["log"]["dropped"] > dropped + 1000, "tries that fail")
    assert daemon.said().count(cannot) == 1 and again not in daemon.said(), "it is said once"
    assert daemon.status("talks")["state"] == "up" and daemon.status("one")["state"] == "up"
    size = os.path.getsize(file)

    # Somebody makes room: what was written goes, as by logrotate with copytruncate off; the next lines come by themselves.
    os.rename(file, file + ".old")
    os.unlink(file + ".old")
    until(lambda: again in daemon.said(), "that it goes on")
    daemon.baton("stop", "talks")

    def written():
        with open(file, encoding="ascii") as stream:
            return stream.read()
    text = until(written, "what follows")
    assert size > 0 and re.search(r"baton: \d+ lines", text), text[:300]
    for line in (cannot, again):
        documented(line)


# ----------------------------------------------------------------------------------------------------- names and clients


@test
def unknown_names(daemon):
    daemon.start('runners: { web: { command: [sleep, "1001"], instances: 2 }, store: { command: [sleep, "1001"] } }')
    daemon.until_state("web.2", "up")
    for command in ("start", "stop", "restart", "reset", "status", "upgrade", "checkpoint", "fds"):
        refused(daemon.baton(command, "stor", check=False), 21,
                f"baton: {command} stor: NOT_FOUND: there is none of that name; did you mean store?")
    refused(daemon.baton("signal", "stor", "HUP", check=False), 21,
            "baton: signal stor: NOT_FOUND: there is none of that name; did you mean store?")
    refused(daemon.baton("logs", "stor", check=False), 21,
            "baton: logs stor: NOT_FOUND: there is none of that name; did you mean store?")
    refused(daemon.baton("scale", "wbe=3", check=False), 21,
            "baton: scale wbe: NOT_FOUND: there is none of that name; did you mean web?")
    refused(daemon.baton("stop", "store", "stor*x", check=False), 21,
            "baton: stop: NOT_FOUND: no runner has a name that fits stor*x")
    refused(daemon.baton("status", "x*", check=False), 21, "baton: status x*: NOT_FOUND: no runner has a name that fits x*")
    assert all(runner["state"] == "up" for runner in daemon.status()["runners"])


class Silent(wire.Peer):
    """Takes what it is sent, its own channel included, and never says a word."""

    def __init__(self, daemon):
        lane = socket.socket(socket.AF_UNIX)
        lane.connect(daemon.environment["BATON_SOCKET"])
        try:
            super().__init__(lane)
        except (wire.Closed, ConnectionError):
            if not self.closed:
                raise

    def send(self, channel, envelope, payload=b"", fds=()):
        pass

    def until_closed(self):
        try:
            self.run_until(lambda: self.closed, HELLO_TIMEOUT + TIMEOUT)
        except (wire.Closed, ConnectionError):
            pass
        return self.closed


@test
def a_thousand_silent_clients(daemon):
    """So many are taken in as may be, each of the others is told why not, at once. When the time is over that each has for its
    Hello those are told so, and gone, and whoever comes is served. The runners notice nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    daemon.start(RUNNERS, BATON_LOG_LEVEL="info")
    pid = daemon.until_state("one", "up")["pid"]
    before = descriptors(daemon.supervisor())
    silent, refusals = [], 0
    full = f"{CLIENTS_MAX} clients are connected, which is as many as may be"
    for _ in range(1000):
        client = Silent(daemon)
        if client.remote and not client.closed:
            silent.append(client)
            continue
        assert client.closed == (wire.RESOURCE_EXHAUSTED, full), client.closed
        client.close()
        refusals += 1
    assert (len(silent), refusals) == (CLIENTS_MAX, 1000 - CLIENTS_MAX)
    refused(daemon.baton("status", check=False), 24,
            f"baton: status: the supervisor behind {daemon.environment['BATON_SOCKET']} (keeper pid {daemon.keeper()}) does not serve "
            f"us: RESOURCE_EXHAUSTED: {full}")
    for client in silent:
        assert client.until_closed() == (wire.DEADLINE_EXCEEDED, f"no Hello within {HELLO_TIMEOUT * 1000} ms"), client.closed
        client.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: descriptors(daemon.supervisor()) <= before, "that nothing of them is left")
    about = daemon.status()["supervisor"]
    assert about["clients"] == 1 and about["clients_refused"] >= refusals, about
    assert daemon.pid("one") == pid
    said = [line for line in daemon.said().splitlines() if f"client uid {os.getuid()}, " in line]
    assert len([line for line in said if "DEADLINE_EXCEEDED: no Hello within" in line]) == CLIENTS_MAX, said[:3]
    assert len([line for line in said if "refused: " in line]) in (1, 2), "each ten seconds at most"
    for line in said:
        documented(line)


a_thousand_silent_clients.seconds = 60 + 6 * TIMEOUT


if __name__ == "__main__":
    main()
