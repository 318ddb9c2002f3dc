#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""baton-runner-fuse: a mount is used as the directory below is, and its users see no difference, while the process that serves it
is replaced or killed over and over. Most tests let tests/fuse-holder do that, as fast as it goes; the last ones a daemon.

Mounts are made in a mount namespace of this process, so that none is left. TAP on stdout.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import signal
import subprocess
import sys

import daemon_tests
from daemon_tests import BUILD, Skip, test, until

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = os.environ.get("abs_top_srcdir", os.path.join(HERE, "..", ".."))
HOLDER = os.path.join(BUILD, "tests", "fuse-holder")
RUNNER = os.path.join(BUILD, "baton-runner-fuse")
OPERATIONS = os.path.join(HERE, "fuse_operations.py")
LONG = bool(os.environ.get("BATON_SOAK"))
ROUNDS = 1000 if LONG else 60  # upgrades or kills
LIMIT = 60 * float(os.environ.get("BATON_TEST_TIME_FACTOR", "1"))
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18

libc = ctypes.CDLL(None, use_errno=True)
why_not = None


def look_for_fuse():
    """Why nothing here can be mounted; None: it can."""
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or os.geteuid() != 0:
        return "only root mounts"
    if libc.unshare(CLONE_NEWNS) < 0 or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) < 0:
        return "no mount namespace: " + os.strerror(ctypes.get_errno())
    return None


def resends():
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(c for c in minor if c.isdigit()))) >= (6, 9)


def abandon_after(daemon, at, process=None):
    """When the test has failed, what it mounted goes, so that its folder can."""
    kill = daemon.kill

    def killed():
        if process:
            process.kill()
            process.wait()
        kill()
        libc.umount2(at.encode(), 2)

    daemon.kill = killed


class Mount:
    """A directory, `below', and where it is mounted, `at', by a holder that is told "upgrade" and "kill"."""

    def __init__(self, daemon, *arguments, **environment):
        if why_not:
            raise Skip(why_not)
        self.below, self.at = (os.path.join(daemon.folder, name) for name in ("below", "at"))
        for folder in (self.below, self.at):
            os.mkdir(folder)
        os.chmod(daemon.folder, 0o755)
        self.n = 0
        self.process = subprocess.Popen([HOLDER, self.below, self.at, *arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
        daemon_tests.owned.add(self.process.pid)
        abandon_after(daemon, self.at, self.process)
        self.hear("ok start")

    def hear(self, expected):
        line = self.process.stdout.readline().strip()
        assert line == expected, f"the holder said {line!r}"

    def say(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        self.hear(f"ok {word}")
        self.n += 1

    def storm(self, word, *command, check=True, rounds=None, **more):
        """The result of a command that runs on the mount while the holder is told @word over and over (None: nothing)."""
        with open(os.path.join(self.below, "..", "output"), "w+b") as output:
            load = subprocess.Popen(command, stdout=output, stderr=output, **more)
            daemon_tests.owned.add(load.pid)
            for i in range(rounds or ROUNDS if word else 0):
                try:
                    load.wait(0.002 + 0.001 * (i % 7))
                    break
                except subprocess.TimeoutExpired:
                    self.say(word)
            try:
                status = load.wait(LIMIT)
            except subprocess.TimeoutExpired:
                load.kill()
                raise
            output.seek(0)
            text = output.read().decode(errors="replace")
        assert not check or status == 0, f"{command[:4]}: {status}: {text[-2000:]}"
        return text

    def end(self):
        self.process.stdin.write("quit\n")
        self.process.stdin.flush()
        self.hear("ok quit")
        assert self.process.wait(LIMIT) == 0
        self.process.stdin.close()
        self.process.stdout.close()
        assert not os.path.ismount(self.at)


def same_operations(daemon, word, *user):
    mount = Mount(daemon)
    plain = os.path.join(daemon.folder, "plain")
    os.mkdir(plain)
    os.mkdir(os.path.join(mount.at, "x"))
    expected = mount.storm(None, sys.executable, OPERATIONS, plain, *user)
    found = mount.storm(word, sys.executable, OPERATIONS, os.path.join(mount.at, "x"), *user)
    different = [pair for pair in zip(expected.split("\n"), found.split("\n")) if pair[0] != pair[1]]
    assert expected == found, f"below and on the mount: {different[:5]}"
    assert expected.count("\n") > 150 and "threads []" in expected
    mount.end()


@test
def operations_are_the_same(daemon):
    same_operations(daemon, None)


@test
def operations_are_the_same_for_others(daemon):
    same_operations(daemon, None, "1234")


@test
def operations_are_the_same_through_upgrades(daemon):
    same_operations(daemon, "upgrade")


@test
def operations_are_the_same_through_kills(daemon):
    if not resends():
        raise Skip("the kernel cannot resend requests (Linux 6.9)")
    same_operations(daemon, "kill")


WORK = r"""
set -eu
cd "$1"
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
git init -q work
cd work
cp -r "$2/common" "$2/runner" .
git add -A
git commit -qm one
for i in 1 2 3 4; do
        echo "/* $i */" >>common/fd.c
        git commit -qam "number $i"
        git checkout -q -b branch$i
        mv runner "r$i" && git add -A && git commit -qm "moved $i" && git mv "r$i" runner && git commit -qm "back $i"
done
git checkout -q branch1
git gc -q
git fsck --strict --no-dangling --no-progress
test -z "$(git status --porcelain)"
mkdir out
for name in fd cmsg parse frame text; do
        ${CC:-cc} -std=gnu11 -D_GNU_SOURCE -I. -pipe -c "common/$name.c" -o "out/$name.o"
done
ar rcs out/lib.a out/*.o
test "$(ar t out/lib.a | wc -l)" = 5
cd ..
rm -rf work
test -z "$(ls -A | grep -v '^[.]')"
"""


def git_and_compiler(daemon, word):
    if not shutil.which("git"):
        raise Skip("git is not installed")
    mount = Mount(daemon)
    mount.storm(word, "bash", "-c", WORK, "work", mount.at, SOURCES)
    mount.end()


@test
def git_and_a_compiler_through_upgrades(daemon):
    git_and_compiler(daemon, "upgrade")


@test
def git_and_a_compiler_through_kills(daemon):
    if not resends():
        raise Skip("the kernel cannot resend requests (Linux 6.9)")
    git_and_compiler(daemon, "kill")


def fio(daemon, word):
    if not shutil.which("fio"):
        raise Skip("fio is not installed")
    mount = Mount(daemon)
    for engine, mode in (("psync", "randrw"), ("mmap", "randwrite"), ("libaio", "randwrite")):
        mount.storm(word, "fio", "--name=verified", f"--directory={mount.at}", f"--ioengine={engine}", f"--rw={mode}",
                    "--verify_state_save=0", "--size=4M", "--bsrange=4k-128k", "--numjobs=2", "--verify=crc32c", "--verify_fatal=1",
                    "--fsync=16", "--group_reporting", "--minimal", rounds=ROUNDS // 3)
    mount.end()


@test
def fio_through_upgrades(daemon):
    fio(daemon, "upgrade")


@test
def fio_through_kills(daemon):
    if not resends():
        raise Skip("the kernel cannot resend requests (Linux 6.9)")
    fio(daemon, "kill")


ONCE = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(sys.argv[1])
name = sys.argv[2]
for i in range(int(sys.argv[3])):
    a, b = f"{name}.a{i}", f"{name}.b{i}"
    os.mkdir(a)
    os.rename(a, b)
    os.rmdir(b)
    os.close(os.open(a, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.link(a, b)
    os.setxattr(a, "user.x", b"x", os.XATTR_CREATE)
    os.removexattr(b, "user.x")
    os.unlink(a)
    os.symlink("x", a)
    assert libc.renameat2(-100, a.encode(), -100, b.encode(), 2) == 0, os.strerror(ctypes.get_errno())
    assert os.readlink(b) == "x"
    os.unlink(a)
    os.unlink(b)
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"%d\n" % i)
    os.close(fd)
with open(name) as file:
    assert file.read().split() == [str(i) for i in range(int(sys.argv[3]))]
os.unlink(name)
"""


@test
def what_took_effect_is_done_once(daemon):
    """Requests that fail when they are done twice: any that is shows as EEXIST or ENOENT."""
    if not resends():
        raise Skip("the kernel cannot resend requests (Linux 6.9)")
    mount = Mount(daemon)
    second = subprocess.Popen([sys.executable, "-c", ONCE, mount.at, "second", "200" if not LONG else "4000"])
    daemon_tests.owned.add(second.pid)
    mount.storm("kill", sys.executable, "-c", ONCE, mount.at, "first", "400" if not LONG else "8000", rounds=ROUNDS * 3)
    while second.poll() is None:
        mount.say("kill")
    assert second.returncode == 0
    assert os.listdir(mount.at) == []
    assert mount.n > 20, mount.n
    mount.end()


def check_held(mount, held):
    fd, temporary, directory, shared, lock = held
    assert os.pread(fd, 100, 0) == b"unlinked", "a file without a name"
    assert os.fstat(fd).st_nlink == 0
    assert os.pread(temporary, 9, 0) == b"temporary"
    assert os.stat(directory).st_nlink == 0
    os.pwrite(temporary, b"1", 200)
    shared[5:6] = bytes([shared[5] + 1])
    other = os.open(os.path.join(mount.at, "lock"), os.O_RDWR)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise AssertionError("the lock is gone")
    except BlockingIOError:
        pass
    os.close(other)
    assert os.fstat(lock).st_size == 4


@test
def what_is_open_stays_open(daemon):
    """Files and directories without a name, a mapping, a lock and a directory that is half read."""
    mount = Mount(daemon)
    path = lambda name: os.path.join(mount.at, name)
    fd = os.open(path("f"), os.O_RDWR | os.O_CREAT)
    os.write(fd, b"unlinked")
    os.unlink(path("f"))
    temporary = os.open(mount.at, os.O_RDWR | os.O_TMPFILE)
    os.write(temporary, b"temporary")
    os.mkdir(path("d"))
    directory = os.open(path("d"), os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(path("d"))
    mapped = os.open(path("mapped"), os.O_RDWR | os.O_CREAT)
    os.ftruncate(mapped, 100000)
    shared = mmap.mmap(mapped, 100000)
    lock = os.open(path("lock"), os.O_RDWR | os.O_CREAT)
    os.write(lock, b"lock")
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.mkdir(path("many"))
    for i in range(2000):
        os.close(os.open(path(f"many/{i:050}"), os.O_CREAT))
    reading = os.scandir(path("many"))
    seen = [next(reading).name for _ in range(10)]
    held = fd, temporary, directory, shared, lock
    for i in range(1, 11):
        mount.say("upgrade" if i % 2 or not resends() else "kill")
        check_held(mount, held)
        seen += [entry.name for entry in (next(reading, None) for _ in range(150)) if entry]
    seen += [entry.name for entry in reading]
    reading.close()
    assert sorted(seen) == [f"{i:050}" for i in range(2000)], len(seen)
    shared.flush()
    assert shared[5] == 10
    shared.close()
    with open(os.path.join(mount.below, "mapped"), "rb") as file:
        assert file.read()[5] == 10, "what was mapped is below"
    for one in (fd, temporary, directory, mapped, lock):
        os.close(one)
    mount.end()


@test
def without_resend_they_fail(daemon):
    """What a death leaves unanswered ends with EIO; everything after that works."""
    mount = Mount(daemon, "resend", BATON_DISABLE="fuse-resend")
    script = r"""
import errno, os, sys
os.chdir(sys.argv[1])
failed = 0
for i in range(2000):
    try:
        with open("f", "w") as file:
            file.write(str(i))
        os.stat("f")
        os.listdir(".")
    except OSError as error:
        assert error.errno == errno.EIO, error
        failed += 1
print(failed)
"""
    failed = int(mount.storm("kill", sys.executable, "-c", script, mount.at))
    assert failed <= mount.n * 2, f"{failed} of {mount.n}"
    with open(os.path.join(mount.at, "f"), "w", encoding="ascii") as file:
        file.write("it works")
    mount.end()


@test
def the_directory_is_not_left(daemon):
    """What is mounted below it is not shown, and links out of it lead where they lead for whoever follows them."""
    mount = Mount(daemon)
    inner = os.path.join(mount.below, "inner")
    os.mkdir(inner)
    assert libc.mount(b"none", inner.encode(), b"tmpfs", 0, None) == 0
    try:
        os.listdir(os.path.join(mount.at, "inner"))
        raise AssertionError("it was entered")
    except OSError as error:
        assert error.errno == errno.EXDEV, error
    libc.umount2(inner.encode(), 2)
    os.symlink("/proc/self/fd/0", os.path.join(mount.at, "out"))
    assert os.readlink(os.path.join(mount.at, "out")) == "/proc/self/fd/0"
    mount.end()


# ---- by a daemon ----

CONFIGURATION = """
runners:
  files:
    command: [{runner}, {options}{below}, {at}]
    ready: hello
    restart: always
    backoff: {{ initial: 10ms, max: 50ms }}
"""


class Served:
    """The same, by a daemon's runner."""

    def __init__(self, daemon, options="", more="", **environment):
        if why_not:
            raise Skip(why_not)
        self.daemon = daemon
        self.below, self.at = (os.path.join(daemon.folder, name) for name in ("below", "at"))
        for folder in (self.below, self.at):
            os.mkdir(folder)
        abandon_after(daemon, self.at)
        daemon.start(CONFIGURATION.format(runner=RUNNER, options=options, below=self.below, at=self.at) + more, **environment)

    def until_serving(self):
        until(lambda: "RUNNING" in self.daemon.baton("service", "files", "info", check=False).stdout, "RUNNING")


@test
def a_daemon_mounts_and_unmounts(daemon):
    served = Served(daemon)
    served.until_serving()
    with open(os.path.join(served.at, "f"), "w", encoding="ascii") as file:
        file.write("x")
    assert os.listdir(served.below) == ["f"] and os.path.ismount(served.at)
    assert f"{served.below} on {served.at}" in daemon.baton("service", "files", "info").stdout
    assert daemon.stop() == 0
    assert not os.path.ismount(served.at)


@test
def a_dead_mount_is_replaced(daemon):
    served = Served(daemon)
    served.until_serving()
    pid = daemon.pid("files")
    os.kill(pid, signal.SIGKILL)
    until(lambda: daemon.pid("files") not in (0, pid), "another process")
    served.until_serving()
    os.mkdir(os.path.join(served.at, "d"))
    assert os.listdir(served.below) == ["d"]
    daemon.stop()
    assert not os.path.ismount(served.at)


def running_load(served, script, *arguments):
    load = subprocess.Popen(["bash", "-c", script, "load", served.at, *arguments], stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)
    daemon_tests.owned.add(load.pid)
    return load


@test
def a_daemon_upgrades_it_under_load(daemon):
    """`baton upgrade' while git and a compiler work: no error, no unmount."""
    if not shutil.which("git"):
        raise Skip("git is not installed")
    served = Served(daemon)
    served.until_serving()
    load, n, pids = running_load(served, WORK, SOURCES), 0, set()
    while n < 3 or (load.poll() is None and n < ROUNDS):
        daemon.baton("upgrade", "files", timeout=LIMIT)
        pids.add(daemon.pid("files"))
        n += 1
    assert load.wait(LIMIT) == 0, load.stderr.read()
    load.stderr.close()
    assert len(pids) == n, (pids, n)
    served.until_serving()
    assert daemon.stop() == 0
    assert not os.path.ismount(served.at)


a_daemon_upgrades_it_under_load.seconds = 4 * LIMIT


@test
def a_daemon_replaces_the_killed_under_load(daemon):
    """SIGKILL, over and over, while git and a compiler work: a pause, no error. It is the same mount in the end."""
    if not shutil.which("git"):
        raise Skip("git is not installed")
    if not resends():
        raise Skip("the kernel cannot resend requests (Linux 6.9)")
    served = Served(daemon, more="    recover: failover\n    intensity: { restarts: 1000, within: 1s }\n")
    served.until_serving()
    device = os.stat(served.at).st_dev
    load, n = running_load(served, WORK, SOURCES), 0
    while n < 3 or (load.poll() is None and n < ROUNDS):
        pid = daemon.pid("files")
        os.kill(pid, signal.SIGKILL)
        until(lambda: daemon.pid("files") not in (0, pid), "another process", LIMIT)
        served.until_serving()
        n += 1
    assert load.wait(LIMIT) == 0, load.stderr.read()
    load.stderr.close()
    assert os.stat(served.at).st_dev == device
    assert daemon.stop() == 0
    assert not os.path.ismount(served.at)


a_daemon_replaces_the_killed_under_load.seconds = 4 * LIMIT


@test
def the_configuration_says_what_becomes_of_requests(daemon):
    served = Served(daemon, more="    recover: failover\n    pending: none\n")
    served.until_serving()
    assert "unanswered requests: none" in daemon.baton("service", "files", "info").stdout
    daemon.configure("runners: { x: { command: x, ready: hello, pending: resend } }")
    done = subprocess.run([daemon_tests.BATON, "check", daemon.configuration], text=True, capture_output=True,
                          env={**os.environ, "BATON_DISABLE": "fuse-resend"}, check=False)
    assert done.returncode == 49 and "'resend' needs Linux 6.9: use flush or none" in done.stderr, done
    assert daemon.stop() == 0


@test
def resend_is_refused_where_it_cannot_be(daemon):
    if not os.path.exists(RUNNER):
        raise Skip("not built")
    done = subprocess.run([RUNNER, "--pending=resend", daemon.folder, daemon.folder], text=True, capture_output=True,
                          env={**os.environ, "BATON_DISABLE": "fuse-resend"}, check=False)
    assert done.returncode == 1 and "--pending=resend needs Linux 6.9: use flush or none" in done.stderr, done
    done = subprocess.run([RUNNER, "--pending=what", "a", "b"], text=True, capture_output=True, check=False)
    assert done.returncode == 2 and "not 'what'" in done.stderr, done


why_not = look_for_fuse()
daemon_tests.main()
