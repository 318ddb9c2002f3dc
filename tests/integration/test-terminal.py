#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`baton run' on a terminal: a shell, a program in raw mode, window size, keys, stop and continue below a shell with job
control, and a terminal that is given back as it was, whatever happens to the runner."""

import errno
import fcntl
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

from daemon_tests import BATON, Skip, main, owned, test, until, words_of

LIMIT = 10 * float(os.environ.get("BATON_TEST_TIME_FACTOR", "1"))
RAW = """
import os, sys, tty
tty.setraw(0)
os.write(1, b"RAW")
while (key := os.read(0, 1)) != b"q":
    os.write(1, b"<%02x>" % key[0])
"""


class Screen:
    """A terminal with a program that is the first of its session."""

    def __init__(self, daemon, *command, size=(24, 80)):
        self.master, slave = os.openpty()
        self.resize(*size)
        self.modes = termios.tcgetattr(self.master)
        self.seen = ""
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
                                        env={**daemon.environment, "PS1": "$ ", "TERM": "dumb", "HOME": daemon.folder})
        owned.add(self.process.pid)
        os.close(slave)

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def read(self, timeout):
        """Whether something came."""
        if not select.select([self.master], [], [], timeout)[0]:
            return False
        try:
            self.seen += os.read(self.master, 65536).decode(errors="replace")
        except OSError as error:
            assert error.errno == errno.EIO
            return False
        return True

    def until(self, pattern):
        """What fits, taken away with everything before it."""
        end = time.monotonic() + LIMIT
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < end and (self.read(end - time.monotonic()) or self.process.poll() is None), \
                f"{pattern!r} did not come: {self.seen!r}"
        self.seen = self.seen[found.end():]
        return found

    def wait(self):
        """Its exit status, when it has ended; all it wrote has been read."""
        end = time.monotonic() + LIMIT
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end: {self.seen!r}"
            self.read(0.01)
        while self.read(0):
            pass
        return self.process.returncode

    def is_as_before(self):
        return termios.tcgetattr(self.master) == self.modes

    def close(self):
        os.close(self.master)


def state(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rsplit(")", 1)[1].split()[0]


def with_job_control(daemon, *options):
    if not shutil.which("bash"):
        raise Skip("bash is not installed")
    screen = Screen(daemon, "bash", "--norc", "--noprofile", "-i", *options)
    screen.until(r"\$ ")
    return screen


@test
def a_shell(daemon):
    screen = Screen(daemon, BATON, "run", "sh", "-i")
    screen.until(r"[$#] ")
    screen.type("echo $((6 * 7))\n")
    screen.until(r"\n42\r\n.*[$#] ")
    screen.type("sleep 1000; echo code $?\n")
    screen.until(r"code \$\?\r\n")
    until(lambda: [pid for pid in daemon.processes() if b"sleep" in words_of(pid)], "sleep")
    screen.type("\x03")
    screen.until(r"[$#] ")
    screen.type("exit 7\n")
    assert screen.wait() == 7 and screen.is_as_before()
    screen.close()


@test
def a_program_in_raw_mode(daemon):
    screen = Screen(daemon, BATON, "run", sys.executable, "-c", RAW)
    screen.until("RAW")
    screen.type("\x03\x1a\x1cx\r")
    screen.until("<03><1a><1c><78><0d>")
    screen.type("q")
    assert screen.wait() == 0 and screen.is_as_before(), screen.seen
    screen.close()


@test
def the_window(daemon):
    screen = Screen(daemon, BATON, "run", "sh", "-c", "trap 'stty size' WINCH; stty size; while :; do read line; done",
                    size=(41, 101))
    screen.until(r"41 101\r\n")
    screen.resize(30, 90)
    screen.until(r"30 90\r\n")
    screen.type("\x03")
    assert screen.wait() == 130 and screen.is_as_before()
    assert "baton" not in screen.seen, "who typed it knows"
    screen.close()


@test
def what_was_written_last_is_not_lost(daemon):
    for _ in range(5):
        screen = Screen(daemon, BATON, "run", "sh", "-c", "seq 20000; printf END; exit 5")
        assert screen.wait() == 5
        assert screen.seen.endswith("\r\n20000\r\nEND"), screen.seen[-100:]
        assert screen.seen.count("\n") == 20000
        screen.close()


@test
def stop_and_continue(daemon):
    screen = with_job_control(daemon)
    screen.type(f"{BATON} run sh -c 'echo pid $$; exec cat'\n")
    pid = int(screen.until(r"\npid (\d+)\r\n")[1])
    until(lambda: b"cat" in words_of(pid), "cat")
    for number in (1, 2):
        screen.type(f"some{number}")
        screen.until(f"some{number}")
        screen.type("\x1a")
        screen.until(r"Stopped.*\r\n[^\n]*\$ ")
        until(lambda: state(pid) == "T", "its stop")  # which the keeper makes, whom nobody waits for
        screen.type("stty -a | grep -o ' icanon'\n")
        screen.until(r"\r\n icanon\r\n")
        screen.type("fg\n")
        screen.until(r"fg\r\n.*run sh[^\n]*\n")
        until(lambda: state(pid) != "T", "its going on")
        screen.type(f"thing{number}\n")
        screen.until(rf"\nsome{number}thing{number}\r\n")
    screen.type("\x04")
    screen.until(r"\$ ")
    screen.type("echo code $?; exit\n")
    screen.until(r"\ncode 0\r\n")
    screen.wait()
    screen.close()


@test
def stop_from_outside(daemon):
    screen = with_job_control(daemon)
    screen.type(f"{BATON} run sh -c 'echo pid $$; exec sleep 1000'\n")
    pid = int(screen.until(r"\npid (\d+)\r\n")[1])
    run, = [one for one in daemon.processes() if open(f"/proc/{one}/cmdline", "rb").read().startswith(BATON.encode())]
    os.kill(run, signal.SIGTSTP)
    screen.until(r"Stopped.*\r\n[^\n]*\$ ")
    assert state(run) == "T"
    until(lambda: state(pid) == "T", "its stop")
    screen.type("kill %1; fg\n")  # it comes when it goes on
    screen.until(r"exec sleep 1000'\r\n[^\n]*\$ ")
    screen.type("exit 3\n")
    assert screen.wait() == 3
    screen.close()


@test
def a_shell_with_jobs_of_its_own(daemon):
    if not shutil.which("bash"):
        raise Skip("bash is not installed")
    screen = Screen(daemon, BATON, "run", "bash", "--norc", "--noprofile", "-i")
    screen.until(r"\$ ")
    screen.type("sh -c 'echo pid $$; exec sleep 1000'\n")
    pid = int(screen.until(r"\npid (\d+)\r\n")[1])
    screen.type("\x1a")
    screen.until(r"Stopped.*\r\n[^\n]*\$ ")
    assert state(pid) == "T"
    screen.type("\x1a") # at its prompt it is for the shell, too
    screen.type("fg\n")
    screen.until(r"fg\r\n")
    until(lambda: state(pid) != "T", "its going on")
    screen.type("\x03")
    screen.until(r"\$ ")
    screen.type("exit 4\n")
    assert screen.wait() == 4 and screen.is_as_before()
    screen.close()


@test
def a_runner_that_is_killed(daemon):
    screen = Screen(daemon, BATON, "run", "--name=victim", sys.executable, "-c", RAW)
    screen.until("RAW")
    assert not screen.is_as_before()
    pid, = [one for one in daemon.processes() if b"setraw" in open(f"/proc/{one}/cmdline", "rb").read()
            and not open(f"/proc/{one}/cmdline", "rb").read().startswith(BATON.encode())]
    os.kill(pid, signal.SIGKILL)
    assert screen.wait() == 137 and screen.is_as_before()
    assert screen.seen.endswith("baton: run victim: killed by signal 9 (SIGKILL)\r\n"), screen.seen
    screen.close()


@test
def baton_is_told_to_end(daemon):
    for number in (signal.SIGTERM, signal.SIGHUP):
        screen = Screen(daemon, BATON, "run", sys.executable, "-c", RAW)
        screen.until("RAW")
        screen.process.send_signal(number)
        assert screen.wait() == 128 + signal.SIGTERM and screen.is_as_before()
        screen.close()


@test
def a_terminal_that_goes_away(daemon):
    screen = Screen(daemon, BATON, "run", sys.executable, "-c", RAW)
    screen.until("RAW")
    screen.close()
    screen.process.wait(LIMIT)


@test
def in_the_background_there_is_none(daemon):
    screen = with_job_control(daemon)
    screen.type(f"{BATON} run sh -c 'tty; echo done' & wait; echo all\n")
    screen.until(r"not a tty\r\ndone\r\n(.*\n)*all\r\n")
    screen.type("exit\n")
    screen.wait()
    screen.close()


@test
def none_where_it_is_not_wanted(daemon):
    for option in ("--no-tty", "--prefix"):
        screen = Screen(daemon, BATON, "run", option, "--name=one", "sh", "-c", "tty; cat; echo after")
        assert screen.wait() == 0
        assert re.search(r"not a tty\r\n(one: )?after\r\n$", screen.seen), screen.seen
        screen.close()
    for option in ("--native", "--prefix"):
        done = daemon.baton("run", "--tty", option, "true", check=False)
        assert done.returncode == 2 and "--tty goes with neither --native nor --prefix" in done.stderr


@test
def one_where_we_have_none(daemon):
    def run(**more):
        return daemon.baton("run", "-t", "sh", "-c", "tty >&2; stty -echo; cat", **more).stdout
    assert re.fullmatch(r"/dev/pts/\d+\n", run(stdin=subprocess.DEVNULL).replace("\r", ""))
    text = "".join(f"line {i}\n" for i in range(5000))
    assert run(input="x" + text).replace("\r", "").endswith("\nline 4998\nline 4999\n")
    path = os.path.join(daemon.folder, "input")
    with open(path, "w", encoding="ascii") as file:
        file.write(text + "without an end")
    with open(path, encoding="ascii") as file:
        assert run(stdin=file).endswith("line 4999\nwithout an end")


main()
