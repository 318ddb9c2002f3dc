#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`baton logs' and log files, with a daemon: what is printed, in which order and form; followed over restarts of the runner,
over a SIGKILL of the supervisor; rotation; what is said of names that are none.
"""

import itertools
import json
import os
import re
import select
import signal
import subprocess
import time

import daemon_tests
from daemon_tests import BATON, TIMEOUT, children, is_alive, test, until, words_of


def runner(name, script, **more):
    lines = [f"  {name}:", f"    command: {json.dumps(['/bin/sh', '-c', script])}"]
    return "\n".join(lines + [f"    {key}: {value}" for key, value in more.items()]) + "\n"


def start(daemon, *runners):
    daemon.answers = lambda: daemon.process.poll() is None and daemon.baton("logs", "nobody", check=False).returncode == 21
    daemon.start("runners:\n" + "".join(runners))


def supervisor(daemon):
    def find():
        return next((pid for pid in children(daemon.keeper()) if b"--generation" in words_of(pid)), 0)
    return until(find, "a supervisor")


def lines(daemon, *words):
    return daemon.baton("logs", *words).stdout.splitlines()


def objects(daemon, *words):
    return [json.loads(line) for line in lines(daemon, "--json", *words)]


class Follower:
    """`baton logs -f --json' whose objects are read one by one."""

    def __init__(self, daemon, *words):
        self.process = subprocess.Popen([BATON, "logs", "-f", "-n", "all", "--json", *words], env=daemon.environment,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        daemon_tests.owned.add(self.process.pid)

    def next(self):
        return json.loads(self.process.stdout.readline())

    def end(self, number=signal.SIGINT):
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, errors


@test
def lines_of_one(daemon):
    start(daemon, runner("web", "echo one; echo two >&2; printf three; exec sleep 1000"))
    until(lambda: len(lines(daemon, "web")) == 2, "two lines")
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (stdout|stderr) (\d+) (.*)"
    found = sorted(re.fullmatch(form, line).groups() for line in lines(daemon, "web"))
    assert [(stream, text) for stream, _, text in found] == [("stderr", "two"), ("stdout", "one")], found
    assert len({pid for _, pid, _ in found}) == 1
    assert [o["text"] for o in objects(daemon, "web", "--stream=stderr")] == ["two"]
    assert len(lines(daemon, "web", "-n", "1")) == 1
    assert lines(daemon, "web", "--since", "1970-01-01T00:00:00Z") == lines(daemon, "web")
    assert not lines(daemon, "web", "--since", "2999-01-01")
    one = next(o for o in objects(daemon, "web") if o["text"] == "one")
    assert set(one) == {"time", "monotonic_us", "runner", "seq", "instance", "pid", "stream", "text"}, one
    assert one["runner"] == "web" and one["stream"] == "stdout"


@test
def several_in_order(daemon):
    script = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo $i; sleep 0.01; done; exec sleep 1000"
    start(daemon, runner("a", script), runner("long.name", script), runner("silent", "exec sleep 1000"))
    until(lambda: len(lines(daemon, "a")) == 20 and len(lines(daemon, "long.name")) == 20, "all lines")
    found = [line.split() for line in lines(daemon, "a", "long.name", "silent")]
    assert len(found) == 40
    times = [time for _, time, _, _, _ in found]
    assert times == sorted(times)
    for name in ("a", "long.name"):
        assert [int(text) for who, _, _, _, text in found if who == name] == list(range(1, 21))


@test
def patterns(daemon):
    start(daemon, runner("web.a", "echo a; exec sleep 1000"), runner("web.b", "echo b; exec sleep 1000"),
          runner("db", "echo c; exec sleep 1000"))
    if daemon.baton("logs", "web.*", check=False).returncode == 28:
        raise daemon_tests.Skip("this supervisor has no method Status, which says what a pattern fits")
    until(lambda: sorted(o["text"] for o in objects(daemon, "web.*")) == ["a", "b"], "lines of both")


@test
def followed_over_restarts(daemon):
    start(daemon, runner("quick", "echo $$", restart="always", backoff="{initial: 0s, max: 0s}",
                         intensity="{restarts: 0}"))
    follower = Follower(daemon, "quick")
    instances = set()
    for seq in range(1, 21):
        line = follower.next()
        assert line["seq"] == seq and int(line["text"]) == line["pid"], line
        instances.add(line["instance"])
    assert len(instances) == 20
    assert follower.end()[0] == 128 + signal.SIGINT


@test
def followed_over_a_crash(daemon):
    start(daemon, runner("web", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.002; done",
                         log="{directory: %s}" % daemon.folder))
    follower, seq, crashes = Follower(daemon, "web"), 0, 0
    pid, expected, killed_us = None, 0, 0
    while seq < 1500 or line["monotonic_us"] <= killed_us:  # a later one is of the next supervisor, which it has connected to
        line = follower.next()
        seq += 1
        assert line["seq"] == seq, (line, seq)
        if line["pid"] != pid:  # it was started over: then it is counted anew
            pid, expected = line["pid"], 0
        expected += 1
        assert line["text"] == str(expected), (line, expected)
        if seq in (400, 800, 1200):
            crashes += 1
            os.kill(victim := supervisor(daemon), signal.SIGKILL)
            until(lambda: not is_alive(victim), "its end")
            killed_us = time.monotonic_ns() // 1000
    code, errors = follower.end(signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert errors == "baton: logs: the supervisor is gone; connecting to the next one\n" * crashes, errors
    daemon.end()
    with open(os.path.join(daemon.folder, "web.log"), encoding="ascii") as file:
        texts = [line.split()[2:] for line in file]
    assert len(texts) >= 1500 and len(set(map(tuple, texts))) == len(texts)


@test
def files_are_rotated(daemon):
    start(daemon, runner("web", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; done; exec sleep 1000",
                         log="{directory: %s/deep, max_size: 20000, keep: 50}" % daemon.folder))
    path = os.path.join(daemon.folder, "deep", "web.log")

    def content():
        texts, number = [], 1
        while os.path.exists(f"{path}.{number}"):
            assert os.path.getsize(f"{path}.{number}") <= 20000
            number += 1
        for name in [f"{path}.{n}" for n in range(number - 1, 0, -1)] + [path]:
            try:
                with open(name, encoding="ascii") as file:
                    # The last one may be half written.
                    texts += [int(line.split()[3]) for line in file if line.endswith("\n")]
            except FileNotFoundError:  # it is being rotated: look again
                return []
        return texts
    until(lambda: content() == list(range(1, 3001)), "all lines in files, each once")
    assert os.stat(path).st_mode & 0o7777 == 0o640


@test
def not_there(daemon):
    done = subprocess.run([BATON, "logs", "web"], env=daemon.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 46 and "no supervisor runs here" in done.stderr, done
    start(daemon, runner("web", "echo here; exec sleep 1000"))
    until(lambda: lines(daemon, "web"), "a line")
    done = daemon.baton("logs", "nobody", "web", check=False)
    assert done.returncode == 21, done
    assert done.stderr.startswith("baton: logs nobody: NOT_FOUND: there is none of that name"), done
    assert done.stdout.endswith(" here\n"), done


@test
def nobody_reads(daemon):
    start(daemon, runner("web", "while :; do echo line; sleep 0.01; done"))
    until(lambda: lines(daemon, "web"), "a line")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([BATON, "logs", "web"], env=daemon.environment, stdout=writing, stderr=subprocess.PIPE,
                          text=True, check=False)
    os.close(writing)
    assert done.returncode == 128 + signal.SIGPIPE and done.stderr == "", done


@test
def reader_asleep(daemon):
    """Who prints to a reader that does not read hears a signal all the same; what it has asked for is not lost to one that
    reads late, through a descriptor that somebody has made non-blocking."""
    start(daemon, runner("web", "seq 1 100000; exec sleep 1000", log="{ ring_size: 16M }"))
    until(lambda: lines(daemon, "web", "-n", "1")[-1:] and lines(daemon, "web", "-n", "1")[0].endswith(" 100000"), "all")
    for is_blocking, words in itertools.product((True, False), (["-f", "-n", "all"], [])):
        reading, writing = os.pipe()
        os.set_blocking(writing, is_blocking)
        process = subprocess.Popen([BATON, "logs", *words, "web"], env=daemon.environment, stdout=writing)
        daemon_tests.owned.add(process.pid)
        until(lambda: not select.select([], [writing], [], 0)[1], "a full pipe")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 128 + signal.SIGTERM
        os.close(reading)
        os.close(writing)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen([BATON, "logs", "web"], env=daemon.environment, stdout=writing) as process:
        daemon_tests.owned.add(process.pid)
        until(lambda: not select.select([], [writing], [], 0)[1], "a full pipe")
        os.close(writing)
        with os.fdopen(reading) as file:
            assert [int(line.split()[-1]) for line in file] == list(range(1, 100001))
        assert process.wait(TIMEOUT) == 0


@test
def pieces_of_a_long_line(daemon):
    """`baton run' puts them together, but for what came between: that is a line, and so is each side of it."""
    def run(script):
        done = subprocess.run([BATON, "run", "sh", "-c", script], env=daemon.environment, capture_output=True, text=True,
                              timeout=TIMEOUT, check=True)
        return (done.stdout + done.stderr).splitlines()

    write = "head -c %d /dev/zero | tr '\\0' x"
    assert run(write % 40000 + "; echo") == ["x" * 40000]
    # The sleep only makes it likely that there is something between: in whatever order the pipes are read this holds.
    begun, other, *rest = run(write % 20000 + "; echo other >&2; sleep 0.2; " + write % 20000 + "; echo")
    if begun == "other":  # it was read first: the pipes are two
        begun, other = other, begun
    assert other == "other" and "".join([begun, *rest]) == "x" * 40000, [len(line) for line in (begun, other, *rest)]


@test
def a_large_pipe_at_the_end(daemon):
    """A runner may make its pipe larger than it was made, and than what is otherwise taken from one at an end: nothing that it
    holds is lost. Where 4 MiB are not allowed (CAP_SYS_RESOURCE, fs.pipe-max-size) it is 1 MiB, full to the last line."""
    go, script, count = (os.path.join(daemon.folder, name) for name in ("go", "writes.py", "count"))
    os.mkfifo(go)
    with open(script, "w", encoding="utf-8") as file:
        file.write(f"""
import fcntl, os
try:
    size = fcntl.fcntl(1, 1031, 4 << 20)  # F_SETPIPE_SZ
except PermissionError:
    size = fcntl.fcntl(1, 1031, 1 << 20)
with open("{go}"), open("{count}", "w") as file:
    file.write(str(size // 100))
text = b"".join(b"%099d\\n" % i for i in range(size // 100))
os._exit(0 if os.write(1, text) == len(text) else 2)
""")
    start(daemon, runner("one", f"exec python3 {script}", restart="never", oneshot="true", start_timeout="1min", log="{ ring_size: 16M }"))
    pid = until(lambda: daemon.pid("one"), "its process")
    with open(go, "w", encoding="ascii"):  # opens when the runner does
        stopped = supervisor(daemon)
        os.kill(stopped, signal.SIGSTOP)  # so that nothing is read before the end
    until(lambda: not is_alive(pid), "the runner's end")
    os.kill(stopped, signal.SIGCONT)
    daemon.until_state("one", "done")
    with open(count, encoding="ascii") as file:
        n = int(file.read())
    texts = [int(line["text"]) for line in objects(daemon, "one", "-n", "all")]
    assert n > 10000 and texts == list(range(n)), (n, len(texts), texts[:2], texts[-2:])
    assert daemon.status("one")["log"]["dropped"] == 0 and supervisor(daemon) == stopped


if __name__ == "__main__":
    daemon_tests.main()
