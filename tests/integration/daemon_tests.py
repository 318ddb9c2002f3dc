# SPDX-License-Identifier: Apache-2.0
"""What tests of the daemon share: each has a folder of its own, in which `baton supervise' runs with a configuration, and
which holds no process of it any more at the end. Everything goes through the commands, as a user would. TAP on stdout.

    @test
    def is_restarted(daemon):
        daemon.start(RUNNERS)
        ...

Orphans come to the test and are reaped by it: whoever is PID 1 here may not.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

BUILD = os.environ.get("abs_top_builddir", os.getcwd())
BATON = os.path.join(BUILD, "baton")
LIBEXEC = BUILD
# A test that has takeovers sets LIBEXEC to this: there the predecessor refuses one where what it has told of a runner before is
# not what it is at the freeze (supervisor/snapshot-check.h).
CHECKING = os.path.join(BUILD, "tests/faults")
FACTOR = float(os.environ.get("BATON_TEST_TIME_FACTOR", "1"))
TIMEOUT = 10 * FACTOR
# Of the loopback, and no other test's at the same time: a port that is free there stays so until whoever is told of it binds it.
HOST = f"127.{1 + (os.getpid() >> 16) % 254}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
PR_SET_CHILD_SUBREAPER = 36
tests = []


class Skip(Exception):
    """This test cannot be run here; the text says why."""


def test(function):
    tests.append(function)
    return function


def until(condition, what, timeout=None):
    """What @condition() returned, as soon as that is true."""
    end = time.monotonic() + (timeout or TIMEOUT)
    while not (result := condition()):
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.005)
    return result


def is_alive(pid):
    """Whether the process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid):
    """The kernel goes through them one by one, and leaves one out where the one before it ends just then: so twice the same."""
    def listed():
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    found = listed()
    while (again := listed()) != found:
        found = again
    return found


def what_is_open(pid):
    """What each descriptor of a process is, but for what comes with the first use and stays: the memories of histories, and
    pidfds of children, of which the keeper has one each as soon as a successor was told of them."""
    def comes_late(fd, link):
        if "pidfd" not in link:
            return any(name in link for name in ("baton-takeovers", "baton-chronicle"))
        with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
            return any(line.split() == ["Pid:", str(child)] for line in file for child in below)
    below, found = children(pid), []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            if not comes_late(fd, link):
                found.append(link)
        except OSError:  # it was closed meanwhile
            pass
    return found


def descriptors(pid):
    """How many of these it has."""
    return len(what_is_open(pid))


def until_alone(daemon, n=0):
    """The supervisor has but @n connections to clients: one that has gone is there, with its descriptors, until that is seen."""
    path = os.path.join(daemon.runtime, "control")

    def connected():
        with open("/proc/net/unix", encoding="ascii", errors="replace") as file:
            lines = [line.rstrip("\n").split(None, 7) for line in file]
        return sum(words[5] == "03" and words[7:] == [path] for words in lines[1:])
    until(lambda: connected() == n, f"the end of all connections but {n}")


def memory(pid):
    """KiB of memory of its own. Pages of files are counted less or more as others that map them come and go."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Anonymous:", "Swap:")))


def processes(daemon):
    """The pid of each runner, by its name."""
    return {runner["name"]: runner["pid"] for runner in daemon.status()["runners"]}


def own_programs(daemon):
    """A folder with keeper and supervisor in it, which a test may do away with."""
    libexec = os.path.join(daemon.folder, "libexec")
    os.mkdir(libexec)
    for name in ("baton-keeper", "baton-supervisor"):
        shutil.copy(os.path.join(BUILD, name), libexec)
    return libexec


def words_of(pid):
    """Its command line, as bytes; b"": it has ended meanwhile."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def descendants(pid):
    """@pid and all below it that live: some programs overwrite their environment."""
    try:
        below = [one for child in children(pid) for one in descendants(child)]
    except OSError:
        return []
    return [pid, *below] if is_alive(pid) else below


class Load(threading.Thread):
    """@work(n), again and again until end(), which raises what has gone wrong."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.count, self.error, self.over = work, 0, None, False
        self.start()

    def run(self):
        try:
            while not self.over:
                self.work(self.count)
                self.count += 1
        except BaseException as error:  # whatever it is: the test is to see it
            self.error = error

    def end(self):
        self.over = True
        self.join(6 * TIMEOUT)
        assert not self.is_alive(), "a call hangs"
        if self.error:
            raise self.error
        return self.count


def write_script(daemon, name, text):
    """The path of a program in the test's folder."""
    path = os.path.join(daemon.folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o755)
    return path


class Daemon:
    """`baton supervise' in @folder. Not started yet: start() writes the configuration and does."""

    def __init__(self, folder):
        self.folder = folder
        self.runtime = os.path.join(folder, "run")
        self.configuration = os.path.join(folder, "baton.yaml")
        self.log = os.path.join(folder, "supervise.log")
        self.environment = {**os.environ, "BATON_SOCKET": os.path.join(self.runtime, "control"),
                            "BATON_LIBEXEC": LIBEXEC, "BATON_PROGRAM": BATON, "BATON_TEST_FOLDER": folder}
        self.process = None

    def configure(self, text):
        with open(self.configuration, "w", encoding="utf-8") as file:
            file.write(text)

    def start(self, configuration=None, *options, **environment):
        """Returns when it answers. Without a configuration: without one."""
        command = [BATON, "supervise", "--runtime-dir", self.runtime, "--state-dir", os.path.join(self.folder, "state"),
                   "--log-dir", os.path.join(self.folder, "log"), *options]
        if configuration is not None:
            self.configure(configuration)
            command.append(self.configuration)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**self.environment, **environment})
        owned.add(self.process.pid)
        until(self.answers, "an answer of the supervisor")

    def answers(self):
        assert self.process.poll() is None, f"the supervisor ended: {self.said()}"
        return self.baton("status", "--json", check=False).returncode == 0

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def baton(self, *words, check=True, timeout=None, **more):
        """One command, as a CompletedProcess with text; one that fails is an error unless @check is false."""
        done = subprocess.run([BATON, *map(str, words)], env=self.environment, text=True, capture_output=True,
                              timeout=timeout or TIMEOUT, check=False, **more)
        assert not check or done.returncode == 0, f"baton {words}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def status(self, name=None):
        """`status --json': of one runner by its name, or everything."""
        answer = json.loads(self.baton("status", "--json", *([name] if name else [])).stdout)
        return answer["runners"][0] if name else answer

    def pid(self, name):
        return self.status(name).get("pid", 0)

    def until_state(self, name, state, timeout=None):
        """The status of a runner, as soon as it is in that state."""
        return until(lambda: (s := self.status(name))["state"] == state and s, f"{name}: {state}", timeout)

    def keeper(self):
        return self.process.pid

    def supervisor(self):
        return self.status()["supervisor"]["pid"]

    def stop(self, number=signal.SIGTERM):
        """Its exit status, when it is gone."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT)

    def processes(self):
        """Whatever was started in this folder and lives."""
        mark, found = f"BATON_TEST_FOLDER={self.folder}".encode(), []
        for entry in os.listdir("/proc"):
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if entry.isdigit() and mark in file.read().split(b"\0") and is_alive(entry):
                        found.append(int(entry))
            except OSError:
                pass
        below = descendants(self.process.pid) if self.process and self.process.returncode is None else []
        return [pid for pid in {*found, *below} if pid != os.getpid()]

    def end(self):
        """Stops it, if it is still there. Nothing may be left."""
        if self.process and self.process.poll() is None:
            self.stop()
        reap()
        until(lambda: reap() or not self.processes(), "the end of every process")

    def kill(self):
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.process:
            self.process.wait()
        reap()


def reap():
    """Orphans that have ended."""
    for pid in children(os.getpid()):
        if not is_alive(pid) and pid not in owned:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


owned = set()  # children that their Popen waits for


def run(function):
    with tempfile.TemporaryDirectory(prefix="test-daemon-") as folder:
        daemon = Daemon(folder)
        try:
            function(daemon)
            daemon.end()
        except BaseException:
            try:
                print("# " + daemon.said()[-4000:].replace("\n", "\n# "))
            except OSError:
                pass
            daemon.kill()
            raise


def on_alarm(number, frame):
    raise TimeoutError("this test took too long")


def main():
    """Runs the tests, or those that the command line names."""
    chosen = [function for function in tests if len(sys.argv) < 2 or function.__name__ in sys.argv[1:]]
    failed = 0
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    signal.signal(signal.SIGALRM, on_alarm)
    print(f"1..{len(chosen)}")
    for index, one in enumerate(chosen, 1):
        signal.alarm(int(getattr(one, "seconds", 6 * TIMEOUT)))
        try:
            run(one)
            print(f"ok {index} - {one.__name__}")
        except Skip as why:
            print(f"ok {index} - {one.__name__} # SKIP {why}")
        except Exception:
            failed += 1
            print(f"not ok {index} - {one.__name__}")
            print("# " + traceback.format_exc().replace("\n", "\n# "))
        signal.alarm(0)
        sys.stdout.flush()
    sys.exit(failed > 0)
