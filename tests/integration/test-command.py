#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The built `baton' as its users see it: call and run, every exit code, signals, output, help.

Each test has a folder of its own as TMPDIR and working directory. After it, nothing is left: no process (we are the
subreaper of all that a test starts) and no file in TMPDIR. Nothing sleeps: a program under test says on a FIFO or on its
output that it is where the test wants it.
"""
import ctypes
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback

FACTOR = float(os.environ.get("BATON_TEST_TIME_FACTOR", "1"))
LIMIT = 20 * FACTOR
BUILD = os.environ.get("abs_top_builddir", os.getcwd())
BATON = os.environ.get("BATON_PROGRAM", os.path.join(BUILD, "baton"))
PR_SET_CHILD_SUBREAPER = 36
WAIT_FOREVER = 1000000


class Failure(Exception):
    def __str__(self):
        return super().__str__()[:4000]


def expect(condition, text):
    if not condition:
        raise Failure(text)


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return f"exit {self.code}\n--- stdout\n{self.out}--- stderr\n{self.err}---"

    def check(self, code, out=None, err=()):
        expect(self.code == code, f"expected exit {code}, got {self!r}")
        expect(out is None or self.out == out, f"expected stdout {out!r}, got {self!r}")
        for text in (err,) if isinstance(err, str) else err:
            expect(text in self.err, f"expected {text!r} on stderr, got {self!r}")
        return self

    def one_line(self):
        expect(self.err.count("\n") == 1, f"expected one line on stderr, got {self!r}")
        return self


class Place:
    """The folder of one test, and what runs in it."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="baton-command-")
        self.tmp = os.path.join(self.folder, "tmp")
        os.mkdir(self.tmp)
        self.environment = dict(os.environ, TMPDIR=self.tmp, XDG_RUNTIME_DIR=self.tmp,
                                BATON_LIBEXEC=os.environ.get("BATON_LIBEXEC", BUILD))

        # A crash is to be the library's, also where a sanitizer would catch it.
        self.environment["ASAN_OPTIONS"] = ":".join(filter(None, [
            os.environ.get("ASAN_OPTIONS"), "handle_segv=0", "quarantine_size_mb=1"]))

    def path(self, name, content=None, mode=0o644):
        path = os.path.join(self.folder, name)
        if content is not None:
            with open(path, "wb") as f:
                f.write(content)
            os.chmod(path, mode)
        return path

    def fifo(self):
        path = self.path("fifo")
        os.mkfifo(path)
        return path

    def start(self, *arguments, **options):
        return subprocess.Popen([BATON, *arguments], **dict(dict(
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            cwd=self.folder, env=self.environment), **options))

    def finish(self, process):
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise Failure(f"{process.args} did not end within {LIMIT:g} s: {Result(process.returncode, out, err)!r}")
        return Result(process.returncode, out, err)

    def baton(self, *arguments, **options):
        return self.finish(self.start(*arguments, **options))

    def check_empty(self):
        left = os.listdir(self.tmp)
        expect(not left, f"left in TMPDIR: {left}")
        left = descendants()
        expect(not left, f"left running: {left}")

    def remove(self):
        for root, folders, files in os.walk(self.folder, topdown=False):
            for name in files:
                os.unlink(os.path.join(root, name))
            for name in folders:
                os.rmdir(os.path.join(root, name))
        os.rmdir(self.folder)


def descendants():
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as f:
                fields = f.read().rpartition(b")")[2].split()
            if int(fields[1]) == os.getpid():
                with open(f"/proc/{entry}/cmdline", "rb") as f:
                    found.append((int(entry), fields[0].decode(), f.read().replace(b"\0", b" ").decode()))
        except OSError:
            pass
    return found


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(child) for child in f.read().split()]


def command_of(pid):
    with open(f"/proc/{pid}/comm") as f:
        return f.read().strip()


def runner_of(process):
    keeper, = children_of(process.pid)
    runner, = [pid for pid in children_of(keeper) if command_of(pid) != "baton-superviso"]
    return runner


def reap_all():
    """Waits until everything that a killed `baton' left to us has ended."""
    end = time.monotonic() + LIMIT
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return
    except TimeoutError:
        raise Failure(f"still running after {LIMIT:g} s: {descendants()}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        expect(time.monotonic() < end + 1, "the wait took too long")


def alarm(*_):
    raise TimeoutError


def kill_left():
    for pid, _, _ in descendants():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def wait_line(process, text):
    """Reads the process's standard error up to a line with `text'. What was read is returned."""
    read = ""
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        while text not in read:
            line = process.stderr.readline()
            expect(line, f"its output ended without {text!r}: {read!r}")
            read += line
    except TimeoutError:
        raise Failure(f"no {text!r} within {LIMIT:g} s: {read!r}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return read


def wait_fifo(path):
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        with open(path) as f:
            return f.read()
    except TimeoutError:
        raise Failure(f"nobody wrote to the FIFO within {LIMIT:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def elf_of_another_machine():
    vax = 75
    return struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 2, vax, 1, 0x400000, 64, 0, 0, 64, 56, 1,
                       64, 0, 0) + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120, 120, 4096)


def module(place, *arguments, options=(), library="libc.so.6", **popen):
    return place.baton("call", *options, "--exec", "baton-runner-module", library, "--", *arguments, **popen)


def blocked_call(place, *options):
    """A call that is in the library, and stays there, when this returns."""
    fifo = place.fifo()
    process = place.start("call", *options, "--exec", "baton-runner-module", "libc.so.6", "--", "i32 system(string)",
                          f"string:echo there >{fifo}; sleep {WAIT_FOREVER}")
    expect(wait_fifo(fifo) == "there\n", "the call has begun")
    return process


# ---- call ----

def test_call_echo(place):
    r = place.baton("call", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary", "string:hello", "u8:7")
    expect(r.check(0, "hello\n7\n").err == "", r)


def test_call_echo_nothing(place):
    place.baton("call", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary").check(0, "")


def test_call_by_path(place):
    name = os.path.join(os.path.dirname(BATON), "baton-runner-echo")
    place.baton("call", "--exec", os.path.relpath(name, place.folder), "--", "echo.Echo/Unary", "i8:-1").check(0, "-1\n")


def test_call_raw(place):
    data = bytes(range(256)) * 300
    path = place.path("data", data)
    process = place.start("call", "--raw", "--type=x.Y", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary",
                          f"buffer:@{path}", text=False, errors=None)
    out, err = process.communicate(timeout=LIMIT)
    expect(process.returncode == 0 and out == data, f"{process.returncode} {len(out)} {err!r}")


def test_call_large(place):
    data = os.urandom(4 << 20)
    path = place.path("data", data)
    r = place.baton("call", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary", f"buffer:@{path}").check(0)
    expect(r.out == data.hex() + "\n", "4 MiB come back as they went")


def test_call_larger_than_a_frame(place):
    data = os.urandom(20 << 20)
    path = place.path("data", data)
    process = place.start("call", "--raw", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary", f"buffer:@{path}",
                          text=False, errors=None)
    expect(process.communicate(timeout=LIMIT)[0] == data, "20 MiB come back as they went")


def test_call_too_large(place):
    path = place.path("data", b"")
    os.truncate(path, (1 << 30) + 1)
    place.baton("call", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary", f"buffer:@{path}").check(
        24, "", "argument 1").one_line()


def test_call_stdin(place):
    r, w = os.pipe()
    os.write(w, b"\x01\x02")
    os.close(w)
    place.baton("call", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary", "buffer:-", stdin=r).check(0, "0102\n")
    os.close(r)


def test_call_module(place):
    module(place, "u64 crc32(u64, buffer, u32)", "u64:0", "buffer:hex:313233343536373839", "u32:9",
           library="libz.so.1").check(0, "3421780262\n")


def test_call_environment(place):
    module(place, "string getenv(string)", "string:GREETING", options=["--env=GREETING=hello world"]).check(
        0, "hello world\n")


def test_environment_and_arguments_of_bytes(place):
    place.environment["BYTES"] = "\udcff"
    script = 'printf %s "$BYTES$MORE$0" | od -An -tx1'
    place.baton("run", "--env=MORE=\udcfe", "--", "/bin/sh", "-c", script, "\udcfd").check(0, "", " ff fe fd")
    place.baton("call", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary", "u8:1").check(0, "1\n")


def test_call_directory_of_bytes(place):
    directory = place.path("\udcff")
    os.mkdir(directory)
    os.mkdir(os.path.join(directory, "here"))
    module(place, "i32 access(string, i32)", "string:here", "i32:0", cwd=directory).check(0, "0\n")


def test_call_directory(place):
    module(place, "i32 access(string, i32)", "string:tmp", "i32:0").check(0, "0\n")


def test_call_json(place):
    r = place.baton("call", "--json", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary", "string:hé", "u8:7")
    answer = json.loads(r.check(0).out)
    expect(answer["time_us"] > 0, r)
    del answer["time_us"]
    expect(answer == {"status": "OK", "code": 0, "type": "baton.Values", "values": [
        {"type": "string", "value": "hé"}, {"type": "u8", "value": 7}]}, r)


def test_call_json_raw(place):
    r = place.baton("call", "--json", "--raw", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary", "buffer:hex:00ff")
    answer = json.loads(r.check(0).out)
    expect(answer["data"] == "00ff" and answer["type"] == "", r)


def test_call_json_failure(place):
    r = module(place, "u64 strlen(u64)", "u64:1", options=["--json"]).check(30)
    answer = json.loads(r.out)
    expect(answer["status"] == "UNAVAILABLE" and answer["code"] == 14, r)
    expect(answer["exit"]["how"] in ("signaled", "dumped") and answer["exit"]["status"] == signal.SIGSEGV, r)
    expect(answer["runner"].startswith("baton-runner-module"), r)


def test_call_json_details(place):
    """The details of an error, in their order; none: no member."""
    call = ("call", "--json", "--exec", "baton-runner-echo", "--", "echo.Echo/Fail", "u64:9", "string:not now")
    answer = json.loads(place.baton(*call, "string:my.Detail", "buffer:hex:08ff").check(25, None, "not now").out)
    expect(answer["details"] == [{"type": "my.Detail", "data": "08ff"}], answer)
    expect("details" not in json.loads(place.baton(*call).check(25).out), "there are none")


def test_call_json_not_started(place):
    r = place.baton("call", "--json", "--exec", "no-such-program", "--", "M").check(40)
    expect(json.loads(r.out)["reason"] == "not-found", r)


def test_call_max_frame(place):
    """9 MiB come back, in a frame or beside it; a limit that is exceeded is named."""
    size = 9 << 20
    large = ("void bzero(out, u64)", f"out:{size}", "u64:0")
    for options in ([], ["--max-frame=32M"]):
        expect(module(place, *large, options=options).check(0).out == "00" * size + "\n", "all of it")
    r = module(place, *large, options=["--max-frame=8M"]).check(
        24, "", f"accepted are frames of {8 << 20}, objects of {8 << 20}").one_line()
    expect(str(size)[:4] in r.err, r)
    module(place, "void bzero(out, u64)", "out:64K", "u64:0", options=["--max-frame=64K"]).check(
        24, "", "accepted are frames of 65536").one_line()


def test_call_metadata(place):
    call = ("call", "--metadata=a=1", "--metadata", "b=", "--metadata=a=\udcff", "--exec", "baton-runner-echo", "--",
            "echo.Echo/Unary", "u8:1")
    r = place.baton("call", "--json", *call[1:]).check(0)
    expect(json.loads(r.out)["metadata"] == [
        {"key": "a", "value": "1"}, {"key": "b", "value": ""}, {"key": "a", "data": "ff"}], r)
    place.baton(*call).check(0, "1\n")


# ---- call --stream ----

STREAMER = os.path.join(BUILD, "tests", "stream-runner")
ITEMS = 100_000
GROWTH = 16 * 1024  # KiB: much less than what is piped through


def stream(place, *arguments, options=("--raw",), runner=(), lines=None, **popen):
    """Starts a call with streams; `lines' is its whole input."""
    if lines is not None:
        popen["stdin"] = open(place.path("input", lines if isinstance(lines, bytes) else lines.encode()), "rb")
    try:
        return place.start("call", "--stream", *options, "--exec", STREAMER, *runner, "--", *arguments, **popen)
    finally:
        if lines is not None:
            popen["stdin"].close()


def streamed(place, *arguments, **options):
    return place.finish(stream(place, *arguments, **options))


def peak_kib(pid):
    """VmHWM: the most memory that it ever had."""
    with open(f"/proc/{pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmHWM:")).split()[1])


def test_stream_raw(place):
    streamed(place, "bidi", lines="one\n\nthree").check(0, "one\n\nthree\n3").check(0, err="")
    streamed(place, "bidi", lines="").check(0, "0")
    process = stream(place, "bidi", lines=b"\xff\x00\n", text=False, errors=None)
    expect(process.communicate(timeout=LIMIT)[0] == b"\xff\x00\n1", "bytes that are no text")


def test_stream_to_a_terminal(place):
    """What a runner says does not steer it."""
    ours, theirs = os.openpty()

    def shown(*arguments, **options):
        text = b""
        streamed(place, *arguments, stdout=theirs, **options).check(0, err="")
        while not text.endswith(b"\n1\r\n"):
            text += os.read(ours, 1000)
        return text

    expect(shown("bidi", lines=b"a\x1b[31mb\n") == b"a\\x1b[31mb\r\n1\r\n", "escaped, and the answer on its own line")
    text = shown("bidi", options=[], lines='{"type":"string","value":"\u009b31m"}\n')
    expect(b"\\xc2\\x9b31m" in text, "escaped in JSON, too")
    os.close(ours)
    os.close(theirs)


def test_stream_half_close(place):
    streamed(place, "collect", lines="a\nb\nc\n").check(0, "a;b;c;end")
    streamed(place, "collect", lines="").check(0, "end")
    streamed(place, "collect", stdin=subprocess.DEVNULL).check(0, "end")


def test_stream_json(place):
    line = '[{"type":"u64","value":"18446744073709551615"},{"type":"f64","value":"nan"},{"type":"buffer","value":"00ff"}]'
    r = streamed(place, "bidi", options=["--json"], lines=line + '\n{"value": "é", "type": "string"}\n[]\n'
                 '{"type": "a.B", "data": "0A"}\n').check(0, err="")
    *items, answer = r.out.splitlines()
    expect(items == [line, '[{"type":"string","value":"é"}]', "[]", '{"type":"a.B","data":"0a"}'], r)
    answer = json.loads(answer)
    expect(answer.pop("time_us") > 0, r)
    expect(answer == {"status": "OK", "code": 0, "type": "", "data": b"4".hex(),
                      "metadata": [{"key": "items", "value": "4"}]}, r)


def test_stream_answers_before_the_input_ends(place):
    r, w = os.pipe()
    os.write(w, b"one\n")
    streamed(place, "early", stdin=r).check(0, "early")
    os.close(r)
    os.close(w)


def test_stream_status_comes_last(place):
    streamed(place, "refuse", stdin=subprocess.DEVNULL).check(21, "a\nb\nc\n", "refuse: NOT_FOUND: no more").one_line()
    r = streamed(place, "refuse", options=["--raw", "--json"], stdin=subprocess.DEVNULL).check(21)
    *items, answer = r.out.splitlines()
    expect(items == ["a", "b", "c"] and json.loads(answer)["status"] == "NOT_FOUND", r)


def test_stream_method_without_streams(place):
    place.baton("call", "--stream", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary", "u8:7").check(0, "7\n")
    with open(place.path("input", b"[]\n"), "rb") as lines:
        place.baton("call", "--stream", "--exec", "baton-runner-echo", "--", "echo.Echo/Sleep", f"u64:{WAIT_FOREVER}000000",
                    stdin=lines).check(19, "", "the method takes no stream").one_line()


def test_stream_bad_lines(place):
    good = '[{"type": "u8", "value": 1}]\n'
    for line, words in (("7", "no item: {"), ("x", "not JSON"), ("", "not JSON"), ("[", "not JSON"), ("[7]", "value 1: not an object"),
                        ('[{"type": "u8", "value": 256}]', "value 1: outside the range of u8"),
                        ('[{"type": "string", "value": 7}]', "value 1: of type string, needs a string"),
                        ('{"type": "a.B", "data": "0"}', "hexadecimal"), ("x" * (1 << 20) + "y", "longer than 1 MiB"),
                        ('[{"type": "u8", "type": "u8", "value": 1}]', "duplicate")):
        r = streamed(place, "bidi", options=[], lines=good * 2 + line + "\n" + good)
        r.check(2, None, ["baton: call bidi: line 3: ", words]).one_line()
        place.check_empty()
    r = streamed(place, "bidi", options=["--json"], lines="7\n").check(2)
    answer = json.loads(r.out.splitlines()[-1])
    expect(answer["status"] == "INVALID_ARGUMENT" and answer["message"].startswith("line 1: "), r)


def test_stream_too_large(place):
    line = "x" * 300000  # more than a window
    streamed(place, "bidi", lines=f"ok\n{line}\n").check(0, f"ok\n{line}\n2")
    r = streamed(place, "bidi", runner=["65536"], lines=f"ok\n{line}\n").check(24)
    expect(r.err == "baton: call bidi: RESOURCE_EXHAUSTED: runner stream-runner.1: an item of 300000 bytes and 1 descriptors; "
           "the runner accepts 262144, objects of 65536, and 64\n", r)


def test_stream_input_fails(place):
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    streamed(place, "bidi", stdin=fd).check(1, "", "cannot read standard input: Is a directory").one_line()
    os.close(fd)


def test_stream_output_fails(place):
    with open("/dev/full", "w") as full:
        streamed(place, "bidi", lines="one\n", stdout=full).check(1, None, "No space left on device").one_line()


def test_stream_of_a_deadline(place):
    r, w = os.pipe()
    streamed(place, "bidi", options=["--raw", "--deadline=100ms"], stdin=r).check(20, "", "DEADLINE_EXCEEDED").one_line()
    os.close(r)
    os.close(w)


def test_stream_runner_dies(place):
    r, w = os.pipe()
    process = stream(place, "bidi", stdin=r)
    os.close(r)
    os.write(w, b"one\n")
    expect(process.stdout.readline() == "one\n", "it has begun")
    os.kill(runner_of(process), signal.SIGKILL)
    place.finish(process).check(30, "", "UNAVAILABLE: runner stream-runner.1: killed by signal 9 (SIGKILL)").one_line()
    os.close(w)


def test_stream_many(place):
    text = "".join(f"{i}\n" for i in range(ITEMS))
    r = streamed(place, "bidi", lines=text).check(0, err="")
    expect(r.out == text + str(ITEMS), "all of them, in order")
    with open(place.path("output"), "w+") as out:
        streamed(place, "bidi", lines=text, stdout=out).check(0, err="")
        out.seek(0)
        expect(out.read() == text + str(ITEMS), "the same through files")


def test_stream_many_json(place):
    text = "".join(f'[{{"type":"u32","value":{i}}}]\n' for i in range(20000))
    r = streamed(place, "bidi", options=[], lines=text).check(0, err="")
    expect(r.out == text + "20000", "all of them, in order")


def test_stream_slow_reader(place):
    """100 MB for a reader that is the slowest of all: the others wait for it, and nothing grows."""
    item = "x" * 1000 + "\n"
    process = stream(place, "bidi", lines=item * ITEMS)
    count = process.stdout.readline() == item
    keeper, = children_of(process.pid)
    pids = (process.pid, *children_of(keeper))
    before = [peak_kib(pid) for pid in pids]
    for line in process.stdout:
        if count % (ITEMS // 20) == 0 and count < ITEMS * 0.9:
            grown = max(peak_kib(pid) - base for pid, base in zip(pids, before))
            expect(grown < GROWTH, f"after {count} items one of them had grown by {grown} KiB")
        count += line == item
    place.finish(process).check(0, err="")
    expect(count == ITEMS, f"{count} items")


def test_stream_producer_waits(place):
    """A runner that takes nothing: what is piped in stays in the pipe."""
    fifo = place.fifo()
    r, w = os.pipe()
    os.set_blocking(w, False)
    process = stream(place, "stall", f"string:{fifo}", stdin=r)
    os.close(r)
    os.write(w, b"first\n")
    expect(wait_fifo(fifo) == "stalled\n", "it has begun")
    written, end = 0, time.monotonic() + LIMIT
    poll = select.poll()
    poll.register(w, select.POLLOUT)
    while poll.poll(300 * FACTOR):
        written += os.write(w, b"x" * 999 + b"\n")
        expect(written < 8 << 20 and time.monotonic() < end, f"{written} bytes were taken")
    expect(written > 256 << 10, f"{written} bytes: as much as the windows have room for")
    process.send_signal(signal.SIGTERM)
    place.finish(process).check(143, "", "ended by signal 15").one_line()
    os.close(w)


def test_stream_broken_pipe(place):
    process = stream(place, "numbers", "string:1000000000", stdin=subprocess.DEVNULL)
    expect(process.stdout.readline() == "1\n", "it has begun")
    process.stdout.close()
    expect(process.wait(LIMIT) == 141, f"exit {process.returncode}")
    expect(process.stderr.read() == "", "without a word")
    process.stderr.close()


def test_stream_cancel(place):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        fifo = place.fifo()
        r, w = os.pipe()
        process = stream(place, "watch", f"string:{fifo}", stdin=r)
        os.close(r)
        os.write(w, b"one\n")
        expect(wait_fifo(fifo) == "begun\n", "it has begun")
        process.send_signal(number)
        expect(wait_fifo(fifo) == "gone\n", "the runner is told")
        place.finish(process).check(128 + number, "", number.name).one_line()
        os.close(w)
        os.unlink(fifo)
        place.check_empty()


def test_stream_killed(place):
    fifo = place.fifo()
    r, w = os.pipe()
    process = stream(place, "stall", f"string:{fifo}", stdin=r)
    os.write(w, b"one\n")
    wait_fifo(fifo)
    process.kill()
    process.communicate()
    reap_all()
    os.close(r)
    os.close(w)


# ---- call: what goes wrong ----

def test_not_found(place):
    place.baton("call", "--exec", "no-such-program", "--", "M").check(40, "", "no-such-program").one_line()
    place.baton("call", "--exec", "./no-such-program", "--", "M").check(40, "", "no-such-program").one_line()


def test_not_executable(place):
    place.path("text", b"#!/bin/sh\n")
    place.baton("call", "--exec", "./text", "--", "M").check(41, "", "text").one_line()
    place.baton("call", "--exec", "./tmp", "--", "M").check(41, "", "tmp").one_line()
    place.environment["PATH"] = place.folder + ":" + os.environ["PATH"]
    place.baton("call", "--exec", "text", "--", "M").check(41, "", "text").one_line()


def test_wrong_architecture(place):
    place.path("vax", elf_of_another_machine(), 0o755)
    place.baton("call", "--exec", "./vax", "--", "M").check(42, "", "vax").one_line()


def test_exits_at_once(place):
    r = place.baton("call", "--exec", "sh", "-c", "echo first; echo last words >&2; exit 3", "--", "M").check(
        43, "", ["status 3", "    first\n", "    last words\n"])
    expect(r.err.startswith("baton: "), r)
    place.baton("call", "--exec", "sh", "-c", "kill -9 $$", "--", "M").check(43, "", "SIGKILL").one_line()


def test_does_not_connect(place):
    place.baton("call", f"--start-timeout={FACTOR:g}s", "--exec", "sh", "-c", f"echo here I hang; exec sleep {WAIT_FOREVER}",
                "--", "M").check(44, "", "    here I hang\n")


def test_unknown_method(place):
    place.baton("call", "--exec", "baton-runner-echo", "--", "no.Such/Method").check(
        28, "", ["no.Such/Method", "UNIMPLEMENTED"]).one_line()
    module(place, "i32 no_such_function(u8)", "u8:1").check(21, "", "no_such_function").one_line()


def test_wrong_argument(place):
    module(place, "u64 crc32(u64, buffer, u32)", "u64:0", "string:x", "u32:1", library="libz.so.1").check(
        19, "", ["INVALID_ARGUMENT", "argument 2"]).one_line()


def test_bad_value(place):
    module(place, "f", "u8:256").check(2, "", ["argument 1", "--help"]).one_line()
    module(place, "f", "blob:x").check(2, "", ["argument 1", "--help"]).one_line()
    module(place, "f", "buffer:@/no/such/file").check(1, "", ["argument 1", "/no/such/file"]).one_line()


def test_segfault(place):
    r = module(place, "u64 strlen(u64)", "u64:1").check(30, "", ["UNAVAILABLE", "baton-runner-module", "signal 11 (SIGSEGV)"])
    expect(r.err.startswith("baton: call u64 strlen(u64): UNAVAILABLE: "), r)


def test_last_output_is_escaped(place):
    r = module(place, "i32 system(string)", r"string:printf 'one\033[31mtwo\n' >&2; kill -9 $PPID").check(30)
    expect("one\\x1b[31mtwo" in r.err and "\x1b" not in r.err, r)


def test_deadline(place):
    fifo = place.fifo()
    process = place.start("call", "--deadline=100ms", "--exec", "baton-runner-module", "libc.so.6", "--",
                          "i32 system(string)", f"string:sleep {WAIT_FOREVER}; echo >{fifo}")
    place.finish(process).check(20, "", "DEADLINE_EXCEEDED").one_line()


def test_cancel(place):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process = blocked_call(place)
        process.send_signal(number)
        place.finish(process).check(128 + number, "", number.name).one_line()
        os.unlink(place.path("fifo"))
        place.check_empty()


def test_cancel_json(place):
    process = blocked_call(place, "--json")
    process.send_signal(signal.SIGTERM)
    r = place.finish(process).check(143)
    expect(json.loads(r.out)["status"] == "CANCELLED", r)


def test_cancel_start(place):
    fifo = place.fifo()
    process = place.start("call", "--exec", "sh", "-c", f"echo >{fifo}; exec sleep {WAIT_FOREVER}", "--", "M")
    wait_fifo(fifo)
    process.send_signal(signal.SIGTERM)
    place.finish(process).check(143, "", "SIGTERM").one_line()


def test_ignored_signal_stays_ignored(place):
    process = place.start("call", "--exec", "baton-runner-module", "libc.so.6", "--", "i32 kill(i32, i32)",
                          f"i32:{os.getpid()}", "i32:0", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    place.finish(process).check(0, "0\n")


def test_supervisor_killed(place):
    process = blocked_call(place)
    keeper, = children_of(process.pid)
    supervisor, = [pid for pid in children_of(keeper) if command_of(pid) == "baton-superviso"]
    os.kill(supervisor, signal.SIGKILL)
    place.finish(process).check(1, "", ["was killed by signal 9", "the supervisor is gone: ", "and call again"])
    reap_all()


def test_killed(place):
    process = blocked_call(place)
    process.kill()
    process.communicate()
    reap_all()


def test_full_disk(place):
    with open("/dev/full", "w") as full:
        place.baton("call", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary", "u8:1", stdout=full).check(
            1, None, "No space left on device").one_line()
        place.baton("help", stdout=full).check(1, None, "No space left on device")
        place.baton("version", "--json", stdout=full).check(1, None, "No space left on device")


def test_broken_pipe(place):
    r, w = os.pipe()
    os.close(r)
    result = place.baton("call", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary", "u8:1", stdout=w).check(141)
    os.close(w)
    expect(result.err == "", result)


def test_not_installed(place):
    place.environment["BATON_LIBEXEC"] = "/no/such/directory"
    for command in (("call", "--exec", "sh", "--", "M"), ("run", "sh"), ("ping", "--exec", "sh")):
        r = place.baton(*command).check(1, "", ["/no/such/directory/baton-keeper"])
        expect(r.err.count("\n") == 1, r)
    place.environment["BATON_LIBEXEC"] = without_supervisor = os.path.join(place.folder, "libexec")
    os.mkdir(without_supervisor)
    os.symlink(os.path.join(BUILD, "baton-keeper"), os.path.join(without_supervisor, "baton-keeper"))
    r = place.baton("call", "--exec", "sh", "--", "M").check(1, "", ["cannot start the supervisor", "No such file"])
    expect(r.err.count("\n") == 1, r)


# ---- methods ----

# A runner of an older time, from the bytes of docs/protocol.md: it says Hello, knows no method, and ends when it is told.
OLD_RUNNER = b"""import os, socket, struct
lane = socket.socket(socket.AF_UNIX)
lane.connect(os.environ["BATON_BOOTSTRAP"])
fds = []
while len(fds) < 3:
    fds += socket.recv_fds(lane, 8, 4)[1]
rpc = socket.socket(fileno=fds[0])
rpc.setblocking(True)
def send(envelope):
    rpc.sendall(struct.pack(">II", len(envelope) + 4, len(envelope)) + envelope)
send(bytes.fromhex("08015a0408011001"))  # kind: HELLO hello { protocol_min: 1 protocol_max: 1 }
stream = rpc.makefile("rb")
def number(data, at):
    end = next(i for i in range(at, len(data)) if data[i] < 128) + 1
    return sum((data[i] & 127) << 7 * (i - at) for i in range(at, end)), end
def fields(data):
    found, at = {}, 0
    while at < len(data):
        tag, begin = number(data, at)
        value, at = number(data, begin)
        found[tag >> 3] = data[begin:at]
        at += value if tag & 7 == 2 else 0
    return found
while head := stream.read(8):
    length, size = struct.unpack(">II", head)
    envelope = stream.read(length - 4)[:size]
    found = fields(envelope)
    if found[1] == bytes([2]):  # CALL: answered with kind: ANSWER id status: UNIMPLEMENTED message: "no"
        send(bytes.fromhex("080410") + found[2] + bytes.fromhex("280c32026e6f"))
        if b"baton.Runner/Stop" in envelope:
            os._exit(0)
"""


def test_methods(place):
    r = place.baton("methods", "--exec", STREAMER).check(0, err="")
    expect(r.out.splitlines()[:5] == ["METHOD   REQUEST  RESPONSE  STREAMS",
                                      "bidi     bytes    bytes     both",
                                      "collect  a.B      bytes     client",
                                      "numbers  a.Count  bytes     server",
                                      "stall    ?        ?         ?"], r)
    expect("hang     bytes    bytes     -\n" in r.out, r)
    r = place.baton("methods", "--exec", "baton-runner-module", "libm.so.6").check(0, err="")
    expect("others" in r.out, r)


def test_methods_json(place):
    r = json.loads(place.baton("methods", "--json", "--exec", STREAMER).check(0).out)
    expect(set(r) == {"status", "code", "time_us", "methods", "others"} and r["code"] == 0, r)
    expect(r["others"] is False and r["methods"][1] == {
        "name": "collect", "described": True, "request": "a.B", "response": "", "client_streams": True,
        "server_streams": False}, r)
    expect(r["methods"][3] == {"name": "stall", "described": False}, r)


def test_methods_that_are_not_told(place):
    program = place.path("old", OLD_RUNNER)
    r = place.baton("methods", "--json", "--exec", sys.executable, program).check(28)
    expect(r.one_line().err.endswith("UNIMPLEMENTED: the runner does not tell its methods\n"), r)
    expect(json.loads(r.out)["status"] == "UNIMPLEMENTED", r)
    place.baton("ping", "--exec", sys.executable, program).check(25, "", "takes no attached clients").one_line()


def test_methods_not_started(place):
    r = place.baton("methods", "--json", "--exec", "no-such-program").check(40)
    expect(json.loads(r.out)["reason"] == "not-found", r)


# ---- ping ----

def endless_ping(place, *options):
    """Returns when the first one has been answered."""
    process = place.start("ping", "--count=4294967295", "--interval=0", *options, "--exec", "baton-runner-echo")
    expect("seq=1 " in process.stdout.readline(), "the first answer")
    return process


def test_ping(place):
    r = place.baton("ping", "--count=3", "--interval=1ms", "--name=e", "--exec", "baton-runner-echo").check(0, err="")
    *each, summary, head, table = r.out.splitlines()
    expect([re.sub("[0-9.]+ ms", "T", line) for line in each] == [f"e: seq={i} time=T" for i in (1, 2, 3)], r)
    expect(summary == "--- e: 3 sent, 3 answered" and head.split() == ["min", "p50", "p90", "p99", "max"], r)
    figures = [float(word) for word in table.split()[:-1]]
    expect(len(figures) == 5 and figures == sorted(figures) and figures[0] > 0 and table.endswith(" ms"), r)


def test_ping_json(place):
    r = place.baton("ping", "--json", "--count=100", "--interval=0", "--exec", "baton-runner-echo").check(0)
    r = json.loads(r.out)
    expect(set(r) == {"status", "code", "time_us", "runner", "sent", "answered", "min_ns", "p50_ns", "p90_ns", "p99_ns",
                      "max_ns"}, r)
    expect(r["status"] == "OK" and r["sent"] == r["answered"] == 100, r)
    expect(all(isinstance(r[key], int) for key in r if key.endswith("_ns")), r)
    expect(0 < r["min_ns"] <= r["p50_ns"] <= r["p99_ns"] <= r["max_ns"], r)


def test_ping_silence(place):
    process = endless_ping(place, f"--deadline={FACTOR:g}s")
    os.kill(runner_of(process), signal.SIGSTOP)
    r = place.finish(process).check(20, None, "DEADLINE_EXCEEDED").one_line()
    expect("answered\n" in r.out, r.out[-300:])


def test_ping_runner_dies(place):
    process = endless_ping(place)
    os.kill(runner_of(process), signal.SIGKILL)
    r = place.finish(process).check(30, None, "runner baton-runner-echo.1: killed by signal 9 (SIGKILL)").one_line()
    expect("answered\n" in r.out, r.out[-300:])


def test_ping_cancel(place):
    for options in ((), ("--interval=10min",)):
        process = endless_ping(place, *options)
        process.send_signal(signal.SIGINT)
        r = place.finish(process).check(130, None, "ended by signal 2 (SIGINT)").one_line()
        expect("answered\n" in r.out, r.out[-300:])


def test_ping_broken_pipe(place):
    process = endless_ping(place)
    process.stdout.close()
    expect(process.wait(LIMIT) == 141 and process.stderr.read() == "", f"exit {process.returncode}")
    process.stderr.close()


# ---- bench ----

BENCH_TIME = f"--duration={50 * FACTOR:g}ms"  # in which at least one call is answered


def test_bench(place):
    r = place.baton("bench", BENCH_TIME, "--size=0,1K", "--in-flight=1,8", "--exec", "baton-runner-echo")
    r.check(0, err="")
    title, head, *rows = r.out.splitlines()
    expect(title.startswith(f"echo.Echo/Unary of baton-runner-echo.1, {0.05 * FACTOR:g} s each"), r)
    expect([row.split()[:2] for row in rows] == [["0", "1"], ["0", "8"], ["1024", "1"], ["1024", "8"]], r)
    expect(all(float(word) > 0 for row in rows for word in row.split()[4:]), r)


def test_bench_json(place):
    r = json.loads(place.baton("bench", "--json", BENCH_TIME, "--size=64", "--in-flight=2", "--exec",
                               "baton-runner-echo", "--", "echo.Echo/Unary").check(0).out)
    expect(set(r) == {"status", "code", "time_us", "runner", "method", "rows"} and r["method"] == "echo.Echo/Unary", r)
    row, = r["rows"]
    expect(all(isinstance(value, int) for value in row.values()) and row["size"] == 64 and row["in_flight"] == 2, r)
    expect(set(row) == {"size", "in_flight", "calls", "calls_per_s", "bytes_per_s", "p50_ns", "p99_ns", "cpu_baton_ns",
                        "cpu_runner_ns"}, r)
    expect(row["calls"] > 0 and 0 < row["p50_ns"] <= row["p99_ns"], r)
    expect(abs(row["bytes_per_s"] - 128 * row["calls_per_s"]) < 4096, r)


def test_bench_failures(place):
    quick = ("bench", BENCH_TIME, "--in-flight=1,2")
    place.baton(*quick, "--exec", "baton-runner-echo", "--", "no.Such/Method").check(
        28, None, "baton: bench no.Such/Method: UNIMPLEMENTED").one_line()
    r = place.baton(*quick, "--json", "--exec", "baton-runner-echo", "--", "no.Such/Method").check(28)
    expect(json.loads(r.out)["status"] == "UNIMPLEMENTED", r)
    r = place.baton(*quick, "--size=64,9M", "--max-frame=64K", "--exec", "baton-runner-echo").check(
        24, None, "RESOURCE_EXHAUSTED").one_line()
    expect(r.out.count("\n") == 4, r)


def test_bench_cancel(place):
    process = place.start("bench", "--exec", STREAMER, "--", "hang")
    expect(process.stdout.readline().startswith("hang of stream-runner.1"), "it has begun")
    process.send_signal(signal.SIGTERM)
    place.finish(process).check(143, None, "baton: bench hang: CANCELLED: ended by signal 15").one_line()


def test_bench_runner_dies(place):
    process = place.start("bench", "--exec", STREAMER, "--", "hang")
    process.stdout.readline()
    os.kill(runner_of(process), signal.SIGKILL)
    place.finish(process).check(30, None, "runner stream-runner.1: killed by signal 9 (SIGKILL)").one_line()


# ---- run ----

def test_run_status(place):
    for status in (0, 7, 255):
        r = place.baton("run", "sh", "-c", f"echo out; echo err >&2; exit {status}").check(status, "", ["out\n", "err\n"])
        expect(sorted(r.err.splitlines()) == ["err", "out"], r)


def test_run_signal(place):
    place.baton("run", "--", "sh", "-c", "kill -9 $$").check(137, "", "killed by signal 9 (SIGKILL)").one_line()


def test_run_last_line(place):
    r = place.baton("run", "printf", "one\\ntwo").check(0)
    expect(r.err == "one\ntwo\n", r)


def test_run_many_lines(place):
    r = place.baton("run", "seq", "1", "500").check(0)
    expect(r.err == "".join(f"{i}\n" for i in range(1, 501)), "500 lines in order")


def test_run_loses_nothing(place):
    n = 1000000
    lines = place.baton("run", "seq", "1", str(n)).check(0).err.splitlines()
    wrong = next((i for i, line in enumerate(lines) if line != str(i + 1)), None)
    expect(wrong is None and len(lines) == n, f"{len(lines)} lines of {n}, and this is not in order: "
           f"{wrong if wrong is None else lines[max(wrong - 1, 0):wrong + 3]}")


def test_run_long_line(place):
    r = place.baton("run", "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end").check(0)
    expect(r.err == "x" * 100000 + "\nend\n", f"{len(r.err)} bytes")


def test_run_prefix_and_environment(place):
    r = place.baton("run", "--name=web", "--prefix", "--env=A=1", "--env=A=2", "sh", "-c", "echo $A").check(0)
    expect(r.err == "web: 2\n", r)


def test_run_surroundings(place):
    r = place.baton("run", "sh", "-c", "readlink /proc/$$/fd/0; pwd; cut -d ' ' -f 6 /proc/$$/stat; echo $$").check(0)
    stdin, directory, session, pid = r.err.splitlines()
    expect(stdin == "/dev/null" and directory == os.path.realpath(place.folder) and session == pid, r)


def stop_run(place, script, *signals, options=()):
    process = place.start("run", *options, "sh", "-c", script)
    before = wait_line(process, "ready\n")
    for number in signals:
        process.send_signal(number)
    r = place.finish(process)
    r.err = before + r.err
    return r


def test_run_stop(place):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        r = stop_run(place, f"echo ready; exec sleep {WAIT_FOREVER}", number).check(143, "")
        expect(r.err == "ready\n", r)
        place.check_empty()


def test_run_stop_orderly(place):
    r = stop_run(place, f"trap 'echo bye; exit 5' TERM; echo ready; sleep {WAIT_FOREVER} & wait", signal.SIGTERM)
    r.check(5, "", "bye\n")


def test_run_stop_timeout(place):
    stop_run(place, f"trap '' TERM; echo ready; sleep {WAIT_FOREVER}", signal.SIGTERM,
             options=["--stop-timeout=100ms"]).check(137)


def test_run_second_signal(place):
    stop_run(place, f"trap '' TERM; echo ready; sleep {WAIT_FOREVER}", signal.SIGINT, signal.SIGTERM,
             options=["--stop-timeout=10min"]).check(137)


def test_run_killed(place):
    process = place.start("run", "sh", "-c", f"trap '' HUP; echo ready; exec sleep {WAIT_FOREVER}")
    wait_line(process, "ready\n")
    process.kill()
    process.communicate()
    reap_all()


def test_run_log_without_reader(place):
    process = place.start("run", "sh", "-c", "while :; do echo more; done")
    wait_line(process, "more\n")
    process.stderr.close()
    process.stdout.close()
    expect(process.wait(LIMIT) == 141, f"exit {process.returncode}")


class Asleep:
    """The reader of a program's standard error, who does not read until he is told to. We hold the other end, too, and so
    can see that it is full."""

    def __init__(self):
        self.reading, self.writing = os.pipe()

    def wait_full(self):
        until(lambda: not select.select([], [self.writing], [], 0)[1], "a full pipe")

    def read(self):
        """Everything, to its end."""
        os.close(self.writing)
        with os.fdopen(self.reading, "rb") as file:
            return file.read()

    def close(self):
        os.close(self.reading)
        os.close(self.writing)


def until(is_so, what):
    end = time.monotonic() + LIMIT
    while not is_so():
        expect(time.monotonic() < end, f"no {what} within {LIMIT:g} s")
        select.select([], [], [], 0.005)


def blocked_run(place, script, *options):
    """`baton run' of a program that waits in write(), since nobody reads."""
    asleep = Asleep()
    process = place.start("run", *options, "sh", "-c", script, stderr=asleep.writing)
    asleep.wait_full()
    runner = runner_of(process)

    def is_blocked():
        with open(f"/proc/{runner}/wchan") as file:
            return "pipe" in file.read()

    until(is_blocked, "program that waits")
    return process, asleep


ENDLESS = "while :; do echo more; done"


def test_run_reader_asleep(place):
    process, asleep = blocked_run(place, "i=0; while [ $i -lt 60000 ]; do i=$((i + 1)); echo $i; done")
    data = asleep.read()
    expect(process.wait(LIMIT) == 0, f"exit {process.returncode}")
    expect(data == b"".join(b"%d\n" % i for i in range(1, 60001)), f"{len(data)} bytes, end with {data[-100:]!r}")


def test_run_ended_unread(place):
    """The program has ended before anybody reads."""
    fifo, asleep = place.fifo(), Asleep()
    process = place.start("run", "sh", "-c", f"seq 1 25000; printf end; echo done >{fifo}", stderr=asleep.writing)
    expect(wait_fifo(fifo) == "done\n", "it has ended")
    data = asleep.read()
    expect(process.wait(LIMIT) == 0, f"exit {process.returncode}")
    expect(data == b"".join(b"%d\n" % i for i in range(1, 25001)) + b"end\n", f"{len(data)} bytes, {data[-100:]!r}")


def test_run_stop_unread(place):
    """A signal stops a program that waits for the reader, who is not waited for without an end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process, asleep = blocked_run(place, ENDLESS, "--stop-timeout=100ms")
        process.send_signal(number)
        expect(process.wait(LIMIT) == 128 + number, f"exit {process.returncode}")
        asleep.close()
        place.check_empty()


def test_run_stop_unread_verbose(place):
    """Nor do keeper and supervisor, whose own words go where nobody reads, stop for that."""
    place.environment["BATON_LOG_LEVEL"] = "debug"
    process, asleep = blocked_run(place, ENDLESS, "--stop-timeout=100ms")
    process.send_signal(signal.SIGTERM)
    expect(process.wait(LIMIT) == 143, f"exit {process.returncode}")
    asleep.close()


def test_run_stop_read_late(place):
    """Who reads again after the signal has it all, and the program's own end."""
    script = f"trap 'echo bye; exit 5' TERM; i=0; {ENDLESS.replace('more', '$((i += 1))')}"
    process, asleep = blocked_run(place, script, "--stop-timeout=10min")
    process.send_signal(signal.SIGTERM)
    data = asleep.read().decode().splitlines()
    expect(process.wait(LIMIT) == 5, f"exit {process.returncode}")
    expect(data[-1] == "bye" and data[:-1] == [str(i) for i in range(1, len(data))], f"{len(data)} lines, {data[-3:]}")


def test_run_stop_ended_unread(place):
    fifo, asleep = place.fifo(), Asleep()
    process = place.start("run", "--stop-timeout=100ms", "sh", "-c", f"seq 1 25000; echo done >{fifo}",
                          stderr=asleep.writing)
    expect(wait_fifo(fifo) == "done\n", "it has ended")
    asleep.wait_full()
    process.send_signal(signal.SIGTERM)
    expect(process.wait(LIMIT) == 143, f"exit {process.returncode}")
    asleep.close()


def test_run_second_signal_unread(place):
    process, asleep = blocked_run(place, f"trap '' TERM; {ENDLESS}", "--stop-timeout=10min")
    process.send_signal(signal.SIGINT)  # of two that are pending the lower one comes first
    process.send_signal(signal.SIGTERM)
    expect(process.wait(LIMIT) == 130, f"exit {process.returncode}")
    asleep.close()


def test_run_killed_unread(place):
    process, asleep = blocked_run(place, f"trap '' HUP; {ENDLESS}")
    process.kill()
    process.wait(LIMIT)
    asleep.close()
    process.stdout.close()
    reap_all()


def test_run_reader_gone_unread(place):
    process, asleep = blocked_run(place, ENDLESS)
    asleep.close()
    expect(process.wait(LIMIT) == 141, f"exit {process.returncode}")


def test_run_output_nonblocking(place):
    """Somebody who shares the descriptor has made it non-blocking."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = place.start("run", "seq", "1", "100000", stderr=writing)
    until(lambda: not select.select([], [writing], [], 0)[1], "a full pipe")
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    expect(process.wait(LIMIT) == 0, f"exit {process.returncode}")
    expect(data == b"".join(b"%d\n" % i for i in range(1, 100001)), f"{len(data)} bytes, end with {data[-100:]!r}")


def test_run_output_full(place):
    with open("/dev/full", "wb") as full:
        process = place.start("run", "sh", "-c", ENDLESS, stderr=full)
        expect(process.wait(LIMIT) == 1, f"exit {process.returncode}")


def test_run_bytes(place):
    """Whatever bytes there are, the last of which end no line."""
    odd = b"a\0b\xff\xfe\r\n\r\n\n" + bytes(range(11, 256)) * 100
    path = place.path("odd", odd)
    for where in ("", ">&2"):
        process = place.start("run", "sh", "-c", f"cat {path} {where}", text=False, errors=None)
        out, err = process.communicate(timeout=LIMIT)
        expect(process.returncode == 0 and out == b"" and err == odd + b"\n", f"{len(err)} bytes of {len(odd) + 1}")


def test_run_native(place):
    process = place.start("run", "--native", "sh", "-c", f"echo ready; exec {os.path.dirname(BATON)}/baton-runner-echo")
    wait_line(process, "ready\n")
    process.send_signal(signal.SIGTERM)
    r = place.finish(process).check(0, "")
    expect(r.err == "", r)


def test_run_failed_starts(place):
    place.path("vax", elf_of_another_machine(), 0o755)
    place.path("text", b"x")
    place.baton("run", "no-such-program").check(40, "", "no-such-program").one_line()
    place.baton("run", "./text").check(41, "", "text").one_line()
    place.baton("run", "./vax").check(42, "", "vax").one_line()
    place.baton("run", "--native", "true").check(43, "", ["status 0", "Without --native"]).one_line()
    place.baton("run", "--native", "--start-timeout=100ms", "sleep", str(WAIT_FOREVER)).check(44, "", "Without --native")


# ---- words ----

def test_help(place):
    for name in ("call", "run", "methods", "ping", "bench", "supervise", "version", "help"):
        asked = place.baton("help", name).check(0, None, "")
        expect("Example" in asked.out and f"Usage: baton {name}" in asked.out, asked)
        if name != "help":
            expect(place.baton(name, "--help").check(0).out == asked.out, name)
        expect(name in place.baton("--help").check(0).out, f"{name} is in the list")
    for name in re.findall(r"^  ([a-z]+)  ", place.baton("--help").check(0).out, re.M):
        long = [line for line in place.baton(name, "--help").check(0).out.splitlines() if len(line) > 100]
        expect(not long, f"{name}: {long}")


def test_usage(place):
    for arguments in ([], ["nonsense"], ["help", "nonsense"], ["call"], ["call", "--exec", "p"], ["call", "--bogus"],
                      ["run"], ["run", "--bogus", "p"], ["version", "x"], ["supervise", "--bogus"], ["supervise", "--private=77"],
                      ["supervise", "--private=x"], ["run", "--name=a/b", "p"], ["call", "--name=", "--exec", "p", "--", "M"],
                      ["ping"], ["ping", "--count=0", "--exec", "p"], ["methods", "p", "q"], ["bench", "--size=x", "--exec", "p"]):
        r = place.baton(*arguments).check(2, "").one_line()
        expect("--help'" in r.err, r)


def test_version(place):
    r = json.loads(place.baton("version", "--json").check(0).out)
    expect(r["protocol"] == {"min": 1, "max": 1} and r["version"] and r["commit"], r)
    expect(all(isinstance(v, bool) for v in r["features"].values()) and "clone-files" in r["features"], r)
    place.environment["BATON_DISABLE"] = "clone-files"
    r = json.loads(place.baton("version", "--json").check(0).out)
    expect(r["features"]["clone-files"] is False, r)
    expect(place.baton("--version").check(0).out.startswith("baton "), "--version")


def test_unknown_feature(place):
    place.environment["BATON_DISABLE"] = "clone-files,bogus"
    r = place.baton("version", "--json").check(0, None, "no such feature: bogus").one_line()
    expect(json.loads(r.out)["features"]["clone-files"] is False, r)
    place.baton("call", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary").check(1, "", "no such feature: bogus")


def test_without_features(place):
    place.environment["BATON_DISABLE"] = "clone-files,children-file"
    place.baton("call", "--exec", "baton-runner-echo", "--", "echo.Echo/Unary", "u8:1").check(0, "1\n")


def run_test(function):
    place = Place()
    try:
        function(place)
        place.check_empty()
        return None
    except Exception:
        return traceback.format_exc()
    finally:
        kill_left()
        place.remove()


def main():
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGALRM, alarm)
    # A shell's background job ignores INT, and what it starts would respect that.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    wanted = sys.argv[1:]
    tests = [f for name, f in list(globals().items()) if name.startswith("test_") and (not wanted or name in wanted)]
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    for number, function in enumerate(tests, 1):
        error = run_test(function)
        failed += error is not None
        for line in (error or "").splitlines():
            print("# " + line)
        print(f"{'not ok' if error else 'ok'} {number} - {function.__name__}", flush=True)
    sys.exit(failed > 0)


main()
