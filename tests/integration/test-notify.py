#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The sd_notify protocol, as programs speak it: by hand, by systemd-notify, and by libsystemd (python3-systemd). What is
said is shown, outlives the supervisor, and is heard from the runner's own processes alone; stored descriptors come back to
the next instance."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import daemon_tests
from daemon_tests import FACTOR, HOST, Skip, is_alive, main, test, until

daemon_tests.LIBEXEC = daemon_tests.CHECKING

# Does what it reads from a fifo, line by line, as Python; has a few helpers at hand.
PROGRAM = r"""
import array, json, os, signal, socket, sys, time
folder = sys.argv[1]
notify_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

def notify(text, *fds):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    notify_socket.sendmsg([text.encode()], rights, 0, os.environ["NOTIFY_SOCKET"])

def barrier():
    ours, theirs = os.pipe()
    notify("BARRIER=1", theirs)
    os.close(theirs)
    assert os.read(ours, 1) == b""
    os.close(ours)

def tell(what):
    with open(folder + "/told.new", "w") as file:
        json.dump(what, file)
    os.rename(folder + "/told.new", folder + "/told")

names = [name for name in os.environ.get("LISTEN_FDNAMES", "").split(":") if name]
if __name__ == "__main__" and "lazy" not in sys.argv:
    notify("READY=1")
while True:
    with open(folder + "/fifo") as file:
        text = file.read()
    exec(text)  # nobody reads meanwhile: what is to be done next waits for somebody who does
"""


class Notifier:
    """A runner that does as it is told."""

    def __init__(self, daemon, more="", arguments="", name="web", wait=True):
        self.daemon, self.name = daemon, name
        os.mkfifo(os.path.join(daemon.folder, "fifo"))
        with open(os.path.join(daemon.folder, "program.py"), "w", encoding="utf-8") as file:
            file.write(PROGRAM)
        daemon.start(f"runners:\n  {name}:\n    command: [{interpreter()}, {daemon.folder}/program.py, {daemon.folder}{arguments}]\n"
                     f"    ready: notify\n    backoff: {{ initial: 0 }}\n    intensity: {{ restarts: 0 }}\n{more}")
        if wait:
            daemon.until_state(name, "up")

    def do(self, code):
        """Returns when it is done."""
        self.begin(code + "\nbarrier()\ntell(names)")
        return self.told()

    def begin(self, code):
        with open(os.path.join(self.daemon.folder, "fifo"), "w", encoding="utf-8") as file:
            file.write(code)

    def told(self):
        path = os.path.join(self.daemon.folder, "told")
        until(lambda: os.path.exists(path), "a word of the program")
        with open(path, encoding="utf-8") as file:
            what = json.load(file)
        os.unlink(path)
        return what

    def status(self):
        return self.daemon.status(self.name)

    def fds(self):
        answer = json.loads(self.daemon.baton("fds", self.name, "--json").stdout)
        assert answer["version"] == 1 and answer["name"] == self.name
        return answer

    def kill(self):
        """And waits for the next one."""
        pid = self.daemon.pid(self.name)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid) and (s := self.status())["state"] == "up" and s.get("pid", pid) != pid, "another instance")


def interpreter():
    """The Python that has Debian's modules."""
    return "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable


def kill_supervisor(daemon):
    before = daemon.supervisor()
    os.kill(before, signal.SIGKILL)
    until(lambda: not is_alive(before) and daemon.answers() and daemon.supervisor() != before, "another supervisor")


@test
def what_it_says(daemon):
    runner = Notifier(daemon)
    runner.do("notify('STATUS=serving \\u00fc\\nERRNO=2\\nnonsense\\nMAINPID=%d' % os.getpid())")
    status = runner.status()
    assert status["status_text"] == "serving \u00fc" and status["errno"] == 2 and "main_pid" not in status, status
    runner.do("child = os.fork()\nif child == 0: signal.pause()\nnotify('MAINPID=%d' % child)")
    main_pid = runner.status()["main_pid"]
    assert main_pid != status["pid"] and is_alive(main_pid)
    runner.do("notify('RELOADING=1\\nMONOTONIC_USEC=%d' % (time.monotonic_ns() // 1000))")
    assert runner.status()["reloading"] is True and runner.status()["state"] == "up"
    kill_supervisor(daemon)
    daemon.baton("takeover")
    status = runner.status()
    assert (status["status_text"], status["errno"], status["main_pid"], status["reloading"]) == ("serving \u00fc", 2, main_pid, True)
    runner.do("notify('READY=1')")
    assert "reloading" not in runner.status()
    shown = daemon.baton("status", "web").stdout
    assert "No such file or directory" in shown and f"main pid   {main_pid}" in shown, shown
    runner.do("os.kill(child, signal.SIGKILL)\nos.waitpid(child, 0)")
    until(lambda: "main_pid" not in runner.status(), "the end of the main process")
    runner.kill()
    assert not {"status_text", "errno", "main_pid"} & set(runner.status()), runner.status()


# Leaves the runner to a child, in a session of its own where it says so; the child goes on as the program does.
FORK = """
child = os.fork()
if child == 0:
    %s
    notify('STATUS=I am it')
else:
    notify('MAINPID=%%d' %% child)
    barrier()
    os._exit(0)
"""


def fork(daemon, runner, more="pass"):
    """The pid that goes on, and is shown as the runner's."""
    before = runner.status()
    runner.begin(FORK % more)
    until(lambda: not is_alive(before["pid"]), "the end of the first process")
    status = until(lambda: (s := runner.status()).get("status_text") == "I am it" and s.get("pid", 0) not in (0, before["pid"]) and s,
                   "the child")
    assert status["state"] == "up" and status["instance"] == before["instance"] and "main_pid" not in status, status
    assert status["restarts"] == before["restarts"] and is_alive(status["pid"])
    return status["pid"]


@test
def a_main_process_is_followed(daemon):
    """By signals, its words, its exit; across takeovers, crashes and another program as the keeper; and another one after it."""
    runner = Notifier(daemon)
    for more in ("pass", "os.setsid()", "os.setsid()"):
        pid = fork(daemon, runner, more)
        runner.do("notify('STATUS=still')")  # heard: it is of the runner
        assert runner.status()["status_text"] == "still"
        daemon.baton("takeover")
        kill_supervisor(daemon)
        daemon.baton("takeover", "--keeper")
        assert runner.status()["pid"] == pid and runner.status()["restarts"] == 0
        runner.do("notify('STATUS=again')")
        assert runner.status()["status_text"] == "again"
    runner.do("signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))")
    daemon.baton("signal", "web", "USR1")
    until(lambda: (s := runner.status())["state"] == "up" and s.get("pid", pid) != pid, "another instance")
    end = runner.status()["last_exit"]
    assert end["pid"] == pid and end["exit"] == {"how": "exited", "status": 7}, end
    # The first one ends while no supervisor can see it.
    runner.begin("child = os.fork()\nif child: notify('MAINPID=%d' % child), barrier(), tell(names), signal.pause()")
    runner.told()
    first, pid, supervisor = runner.status()["pid"], runner.status()["main_pid"], daemon.supervisor()
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    until(lambda: not is_alive(first), "the end of the first process")
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not is_alive(supervisor) and daemon.answers(), "another supervisor")
    assert runner.status()["pid"] == pid and is_alive(pid)
    pid = fork(daemon, runner, "os.setsid()")
    daemon.baton("stop", "web")
    assert not is_alive(pid)
    end = runner.status()["last_exit"]
    assert end["pid"] == pid and end["exit"] == {"how": "signaled", "status": signal.SIGTERM}, end


@test
def a_main_process_that_nobody_reaps(daemon):
    """One whose parent lives, and is not the one that was started: its end is seen, and nobody knows how it ended."""
    runner = Notifier(daemon)
    before = runner.status()["pid"]
    runner.begin("""
ours, theirs = os.pipe()
if os.fork() == 0:
    child = os.fork()
    if child:
        os.write(theirs, b'%d' % child)
        os.waitpid(child, 0)
        time.sleep(1000)
    notify('STATUS=I am it')
else:
    notify('MAINPID=' + os.read(ours, 100).decode())
    barrier()
    os._exit(0)
""")
    until(lambda: not is_alive(before), "the end of the first process")
    pid = until(lambda: (s := runner.status()).get("status_text") == "I am it" and s.get("pid", 0) not in (0, before) and s["pid"],
                "the child")
    kill_supervisor(daemon)
    os.kill(pid, signal.SIGKILL)
    until(lambda: (s := runner.status())["state"] == "up" and s.get("pid", pid) != pid, "another instance")
    end = runner.status()["last_exit"]
    assert end["pid"] == pid and end["cause"] == "lost" and end["exit"]["how"] == "unknown", end


@test
def a_main_process_that_ends_first(daemon):
    """The one that was started is the main one again, and is judged by its own exit."""
    runner = Notifier(daemon)
    pid = runner.status()["pid"]
    for _ in range(2):
        runner.do("child = os.fork()\nif child == 0: signal.pause()\nnotify('MAINPID=%d' % child)")
        assert is_alive(main_pid := runner.status()["main_pid"])
        os.kill(main_pid, signal.SIGKILL)
        until(lambda: "main_pid" not in runner.status(), "the end of the main process")
        kill_supervisor(daemon)
        assert runner.status()["pid"] == pid and runner.status()["state"] == "up"
    runner.do("child = os.fork()\nif child == 0: signal.pause()\nnotify('MAINPID=%d' % child)\nnotify('MAINPID=%d' % os.getpid())")
    assert "main_pid" not in runner.status()
    daemon.baton("takeover")
    runner.begin("os._exit(5)")
    until(lambda: (s := runner.status())["state"] == "up" and s.get("pid", pid) != pid, "another instance")
    end = runner.status()["last_exit"]
    assert end["pid"] == pid and end["exit"] == {"how": "exited", "status": 5}, end


@test
def what_is_refused(daemon):
    """A process that is not the runner's, values that are none, too much: each is a line, and nothing happens."""
    runner = Notifier(daemon)
    runner.do("tell(os.environ['NOTIFY_SOCKET'])\ntime.sleep(0)" if False else
              "open(folder + '/socket', 'w').write(os.environ['NOTIFY_SOCKET'])")
    with open(os.path.join(daemon.folder, "socket"), encoding="utf-8") as file:
        path = file.read()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as foreign:
        foreign.sendto(b"STATUS=foreign", path)
    until(lambda: f"refused from pid {os.getpid()} on its notification socket: it is not of the runner's session"
          in daemon.said(), "a refusal")
    assert "status_text" not in runner.status()
    # Three lines in ten seconds; the rest is counted.
    runner.do("\n".join(f"notify({text})" for text in (
        f"'MAINPID={os.getpid()}'", "'ERRNO=much'", "'STATUS=' + 5000 * 'x'", "'STATUS=a\\0b'",
        "'RELOADING=1\\nMONOTONIC_USEC=99999999999999999'")))
    said = daemon.said()
    assert "expected another value: ERRNO=much" in said and f"MAINPID={os.getpid()}: it is not of the runner's session" in said
    assert daemon.said().count("refused from pid") == 3, daemon.said()
    status = runner.status()
    assert status["state"] == "up" and not {"status_text", "main_pid", "errno", "reloading"} & set(status)


@test
def below_the_runner(daemon):
    """A child in a session of its own is heard: it is below the runner."""
    runner = Notifier(daemon)
    runner.do("child = os.fork()\nif child == 0:\n    os.setsid()\n    notify('STATUS=from below')\n    os._exit(0)\n"
              "time.sleep(0)")
    until(lambda: runner.status().get("status_text") == "from below" or "refused" in daemon.said(), "a word from below")
    # It may have been gone before it was read: then nobody can tell whose it was.
    assert runner.status().get("status_text") == "from below" or "it is not of the runner's session" in daemon.said()
    runner.do("child = os.fork()\nif child == 0:\n    os.setsid()\n    notify('STATUS=again')\n    barrier()\n    os._exit(0)\n"
              "os.waitpid(child, 0)")
    assert runner.status()["status_text"] == "again"


@test
def descriptors_are_stored(daemon):
    runner = Notifier(daemon, "    fd_store: { max: 3 }\n    sockets: [ { unix: \"%s/s\", name: front } ]\n" % daemon.folder)
    runner.do("import os\nfd = os.memfd_create('state')\nos.write(fd, b'kept')\nnotify('FDSTORE=1\\nFDNAME=state', fd)\n"
              "notify('FDSTORE=1\\nFDNAME=state', fd)")
    runner.do("a, b = socket.socketpair()\nnotify('FDSTORE=1\\nFDNAME=client', a.fileno())\na.close()\nkeep = b")
    fds = runner.fds()
    assert [(one["fd"], one["kind"], one["name"], one["type"]) for one in fds["fds"]] == [
        (3, "socket", "front", "unix stream"), (4, "stored", "state", "memfd"), (5, "stored", "client", "unix stream")], fds
    assert fds["store_max"] == 3 and fds["fds"][0]["address"] == daemon.folder + "/s" and fds["fds"][1]["address"] == "state"
    kill_supervisor(daemon)
    daemon.baton("takeover")
    assert runner.fds() == fds
    # One more fits; the second is one too many, and closed.
    runner.do("notify('FDSTORE=1\\nFDPOLL=0', *[os.memfd_create('x') for _ in range(2)])")
    assert [one["name"] for one in runner.fds()["fds"]] == ["front", "state", "client", "stored"]
    assert "FDSTORE=1: it may store 3 descriptors (fd_store.max)" in daemon.said()
    # The next instance has them, but the one whose other end was the first one's.
    runner.kill()
    names = runner.do("assert os.pread(4, 10, 0) == b'kept'")
    assert names == ["front", "state", "stored"], names
    runner.do("notify('FDSTOREREMOVE=1\\nFDNAME=state')")
    assert [one["name"] for one in runner.fds()["fds"]] == ["front", "stored"]
    assert "NAME" in daemon.baton("fds", "web").stdout
    daemon.baton("stop", "web")
    assert runner.fds()["fds"] == []
    daemon.baton("start", "web")
    assert runner.do("pass") == ["front"]


@test
def they_go_with_their_peer_or_their_time(daemon):
    runner = Notifier(daemon, "    fd_store: { max: 9, timeout: 1h }\n")
    runner.do("a, b = socket.socketpair()\nc, d = socket.socketpair()\n"
              "notify('FDSTORE=1\\nFDNAME=polled', a.fileno())\nnotify('FDSTORE=1\\nFDPOLL=0\\nFDNAME=kept', c.fileno())")
    assert [one["name"] for one in runner.fds()["fds"]] == ["polled", "kept"]
    kill_supervisor(daemon)
    runner.do("b.close(); a.close(); d.close(); c.close()")
    until(lambda: [one["name"] for one in runner.fds()["fds"]] == ["kept"], "the end of one")
    assert runner.fds()["fds"][0]["no_poll"] is True
    with open(daemon.configuration, encoding="utf-8") as file:
        text = file.read()
    daemon.configure(text.replace("timeout: 1h", "timeout: 10ms"))
    daemon.baton("reload")
    until(lambda: runner.fds()["fds"] == [], "the end of the other")


@test
def a_quota_of_none(daemon):
    runner = Notifier(daemon)
    runner.do("notify('FDSTORE=1', os.memfd_create('x'))")
    assert runner.fds() == {"version": 1, "name": "web", "store_max": 0, "fds": []}
    assert "it may store 0 descriptors" in daemon.said()


@test
def more_time(daemon):
    """EXTEND_TIMEOUT_USEC: for a start, and for a stop."""
    runner = Notifier(daemon, f"    start_timeout: {2 * FACTOR:g}s\n    stop_timeout: {2 * FACTOR:g}s\n    restart: never\n",
                      ", lazy", wait=False)
    runner.do("notify('EXTEND_TIMEOUT_USEC=600000000\\nSTATUS=long')\nsignal.signal(signal.SIGTERM, lambda *x: "
              "notify('STOPPING=1\\nEXTEND_TIMEOUT_USEC=600000000'))\nbegan = time.monotonic()")
    runner.begin(f"time.sleep(max(0, {2.5 * FACTOR} - time.monotonic() + began)); notify('READY=1'); barrier(); tell(0)")
    runner.told()
    assert runner.status()["state"] == "up"
    daemon.baton("stop", "web", "--no-wait")
    until(lambda: runner.status()["state"] == "stopping", "its stop")
    runner.begin(f"time.sleep({2.5 * FACTOR}); os._exit(0)")
    status = until(lambda: (s := runner.status())["state"] == "down" and s, "its end")
    assert status["last_exit"]["cause"] == "stopped" and status["last_exit"]["exit"].get("code", 0) == 0, status


@test
def its_own_watchdog(daemon):
    """WATCHDOG_USEC makes one, in the place of what is configured; it outlives the supervisor."""
    runner = Notifier(daemon)
    first = daemon.pid("web")
    runner.do("notify('WATCHDOG_USEC=600000000')")
    kill_supervisor(daemon)
    assert daemon.pid("web") == first
    runner.begin("notify('WATCHDOG_USEC=100000')")  # it may be killed before it says that it has said so
    until(lambda: daemon.pid("web") not in (0, first), "another instance")
    assert "gave no sign of life for 0.1 s" in daemon.said()
    daemon.until_state("web", "up")
    second = daemon.pid("web")
    runner.do(f"notify('WATCHDOG_USEC={int(FACTOR * 1e6)}')\nnotify('WATCHDOG_USEC=0')")
    runner.begin("notify('WATCHDOG=trigger')")
    until(lambda: daemon.pid("web") not in (0, second), "a third instance")


@test
def an_errno_is_told(daemon):
    runner = Notifier(daemon, "    restart: never\n")
    runner.do("notify('ERRNO=28')")
    runner.begin("os._exit(3)")
    status = daemon.until_state("web", "failed")
    assert "it said: No space left on device" in status["reason"], status


@test
def systemd_notify(daemon):
    """The tool, from a shell, with its own barrier."""
    if not shutil.which("systemd-notify"):
        raise Skip("no systemd-notify: tools/setup")
    daemon.start("runners:\n  web:\n    ready: notify\n"
                 "    command: [sh, -c, 'systemd-notify --ready --status=\"from a shell\" && exec sleep 1000']\n")
    status = daemon.until_state("web", "up")
    assert status["status_text"] == "from a shell", status


LIBSYSTEMD = r"""
import os, socket, sys
from systemd import daemon
assert daemon.booted() in (True, False)
fds = daemon.listen_fds_with_names()
assert fds[3] == "http" and daemon.is_socket_inet(3, socket.AF_INET, socket.SOCK_STREAM, 1), fds
if len(fds) == 1:
    fd = os.memfd_create("state")
    os.write(fd, b"of the first")
    assert daemon.notify("FDSTORE=1\nFDNAME=state", fds=[fd])
    state = "first"
else:
    assert fds == {3: "http", 4: "state"}, fds
    state = os.pread(4, 100, 0).decode()
assert daemon.notify("READY=1\nSTATUS=" + state)
usec = int(os.environ["WATCHDOG_USEC"])
import time
while not os.path.exists(sys.argv[1]):
    daemon.notify("WATCHDOG=1")
    time.sleep(usec / 4e6)
time.sleep(1000)
"""


@test
def libsystemd(daemon):
    """Readiness, socket, watchdog and store of a program on the real library: it stops its signs of life, is killed, and the
    next one has what it has stored."""
    python = interpreter()
    if subprocess.run([python, "-c", "from systemd import daemon"], capture_output=True, check=False).returncode != 0:
        raise Skip("no python3-systemd: tools/setup")
    program, stop = os.path.join(daemon.folder, "program.py"), os.path.join(daemon.folder, "stop")
    with open(program, "w", encoding="utf-8") as file:
        file.write(LIBSYSTEMD)
    with socket.socket() as one:
        one.bind((HOST, 0))
        port = one.getsockname()[1]
    daemon.start(f"runners:\n  web:\n    command: [{python}, {program}, {stop}]\n    ready: notify\n"
                 f"    watchdog: {2 * FACTOR:g}s\n"
                 f"    fd_store: {{ max: 2 }}\n    backoff: {{ initial: 0 }}\n"
                 f"    sockets: [ {{ tcp: \"{HOST}:{port}\", name: http }} ]\n")
    first = daemon.until_state("web", "up")
    assert first["status_text"] == "first", first
    with open(stop, "w", encoding="utf-8"):
        pass
    until(lambda: (s := daemon.status("web")).get("pid", 0) not in (0, first["pid"]) and
          s.get("status_text") == "of the first", "the next one")
    assert "gave no sign of life" in daemon.said()
    os.unlink(stop)


if __name__ == "__main__":
    main()
