#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The module runner from end to end: `baton call' starts it with a library, calls a C function, prints the result.

Covers every type through the built programs, values of several MiB, buffers in and out, JSON, what a wrong call gets,
libraries that crash, abort, exit, print, or cannot be loaded; descriptions: names alone, what they forbid, what is listed
of them, where they are looked for, those that are broken, and those that ship; a runner that has no room to start. Each
type in detail: tests/test-module.c; descriptions: tests/test-description.c and tests/test-catalog.c. TAP on stdout.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import zlib

BATON = os.environ["BATON_PROGRAM"]
BUILD = os.environ["abs_top_builddir"]
MODULE = os.path.join(BUILD, "baton-runner-module")
FIXTURE = os.path.join(BUILD, "tests", ".libs", "module-fixture.so")
SHIPPED = os.path.join(os.environ["abs_top_srcdir"], "examples", "modules")

OK, INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED = 0, 19, 21, 23, 24
UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 28, 29, 30
USAGE, EXITED_EARLY = 2, 43

n = failures = 0


# What is installed on this machine, and what the caller's environment says, is not what is tested.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "BATON_MODULE_PATH"}
NO_ROOM = "cannot set up the connection to the supervisor: Too many open files"


def call(method, *values, libraries=(FIXTURE,), options=(), stdin=None, path=None):
    command = [BATON, "call", *options, "--exec", MODULE, *libraries, "--", method, *values]
    environment = ENVIRONMENT if path is None else {**ENVIRONMENT, "BATON_MODULE_PATH": path}
    return subprocess.run(command, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                          env=environment, capture_output=True, timeout=60, check=False)


def report(name, good, result):
    global n, failures
    n += 1
    failures += not good
    print(f"{'ok' if good else 'not ok'} {n} - {name}")
    if not good:
        print(f"# {result}"[:2000].replace("\n", "\n# "))
    sys.stdout.flush()


def answers(method, values, expected, **options):
    result = call(method, *values, **options)
    report(f"{method} {' '.join(values)}"[:100].replace("#", ""),
           result.returncode == OK and result.stdout == expected.encode(), result)


def fails(method, values, code, *expected, **options):
    """An exit code of its own, nothing on standard output, and one line that says each of the expected texts."""
    result = call(method, *values, **options)
    text = result.stderr.decode()
    report(f"{method} {' '.join(values)}: {code}, {expected[0]}"[:100].replace("#", ""),
           result.returncode == code and result.stdout == b"" and
           any(all(part in line for part in expected) for line in text.splitlines()), result)


def types():
    answers("i8 next_i8(i8)", ["i8:-2"], "-1\n")
    answers("i16 next_i16(i16)", ["i16:-32768"], "-32767\n")
    answers("i32 next_i32(i32)", ["i32:-1"], "0\n")
    answers("i64 next_i64(i64)", ["i64:-9223372036854775808"], "-9223372036854775807\n")
    answers("u8 next_u8(u8)", ["u8:0xfe"], "255\n")
    answers("u16 next_u16(u16)", ["u16:65534"], "65535\n")
    answers("u32 next_u32(u32)", ["u32:4294967294"], "4294967295\n")
    answers("u64 next_u64(u64)", ["u64:18446744073709551614"], "18446744073709551615\n")
    answers("f32 next_f32(f32)", ["f32:0.5"], "1.5\n")
    answers("f64 next_f64(f64)", ["f64:0.1"], "1.1\n")
    answers("f64 mixed_sum(i8, f64, u64, f32, i32, f64, u16, f32, i64, f64, u8, f64, f64, f64, f64, f64)",
            ["i8:-1", "f64:0.5", "u64:3", "f32:0.25", "i32:-5", "f64:2", "u16:7", "f32:-1", "i64:9", "f64:10", "u8:11",
             "f64:12", "f64:13", "f64:14", "f64:15", "f64:16"], "1330\n")
    answers("void remember(i32)", ["i32:7"], "")
    answers("u64 text_length(string)", ["string:grüß"], "6\n")
    answers("string text_of(i32)", ["i32:1"], "grüß\n")
    answers("string text_of(i32)", ["i32:3"], "null\n")
    answers("i32 split(buffer, u32, out, out)", ["buffer:hex:01020304", "u32:2", "out:2", "out:3"], "2\n0102\n040300\n")
    answers("u64 byte_sum(buffer, u64)", ["buffer:-", "u64:3"], f"{sum(b'abc')}\n", stdin=b"abc")


def large(folder):
    data = os.urandom(1 << 16) * 96
    path = os.path.join(folder, "large")
    with open(path, "wb") as file:
        file.write(data)
    answers("u64 crc32(u64, buffer, u32)", ["u64:0", f"buffer:@{path}", f"u32:{len(data)}"], f"{zlib.crc32(data)}\n",
            libraries=["libz.so.1"])
    answers("u64 byte_sum(out, u64)", ["out:3M", "u64:0"], "0\n" + "00" * (3 << 20) + "\n")
    # More than a frame holds.
    answers("u64 byte_sum(out, u64)", ["out:20M", "u64:0"], "0\n" + "00" * (20 << 20) + "\n")
    with open(path, "ab") as file:
        file.write(data)
    answers("u64 crc32(u64, buffer, u32)", ["u64:0", f"buffer:@{path}", f"u32:{2 * len(data)}"],
            f"{zlib.crc32(data + data)}\n", libraries=["libz.so.1"])


def as_json():
    result = call("u64 next_u64(u64)", "u64:18446744073709551614", options=["--json"])
    answer = json.loads(result.stdout)
    report("--json", result.returncode == OK and answer["values"] == [{"type": "u64", "value": "18446744073709551615"}],
           result)


def wrong_calls():
    fails("next_i8", ["i8:1"], INVALID_ARGUMENT, "next_i8", "whole")
    fails("i8 next_i8(int)", ["i8:1"], INVALID_ARGUMENT, "character 12", "parameter's type")
    fails("i8 next_i8(i8)", [], INVALID_ARGUMENT, "argument 1", "missing", "expected 1, given 0")
    fails("i8 next_i8(i8)", ["i16:1"], INVALID_ARGUMENT, "argument 1", "expected i8, given i16")
    fails("i8 next_i8(i8)", ["i8:1", "i8:1"], INVALID_ARGUMENT, "argument 2", "one too many")
    fails("i8 next_i8(i8)", ["i8:128"], USAGE, "argument 1 (i8:128)", "from -128 to 127")
    fails("i8 no_such(i8)", ["i8:1"], NOT_FOUND, "module-fixture.so", "no_such")
    fails("i8 no_such(i8)", ["i8:1"], NOT_FOUND, "no_such", "module-fixture.so, libz.so.1", libraries=[FIXTURE, "libz.so.1"])
    fails("void abort()", [], NOT_FOUND, "abort", "libc.so")
    fails("i32 fixture_variable()", [], INVALID_ARGUMENT, "fixture_variable", "variable")
    fails("some.Service/Method", [], UNIMPLEMENTED, "some.Service/Method")
    fails("string text_of(i32)", ["i32:2"], INTERNAL, "text_of", "not UTF-8")
    fails("u64 byte_sum(out, u64)", ["out:1K", "u64:0"], RESOURCE_EXHAUSTED, "argument 1", "1023",
          libraries=["--max-out", "1023", FIXTURE])


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def described(folder):
    library = os.path.join(folder, "beside", "libfixture.so.1")
    file = library + ".baton"
    write(file, "baton-module 1\n# two of many\ni8 next_i8(i8)\nu64 byte_sum(buffer, u64) # and no more\n")
    shutil.copy(FIXTURE, library)
    one = [library]
    answers("next_i8", ["i8:-2"], "-1\n", libraries=one)
    answers("i8 next_i8(i8)", ["i8:-2"], "-1\n", libraries=one)
    answers("byte_sum", ["buffer:hex:0102ff", "u64:3"], "258\n", libraries=one)
    fails("u8 next_i8(u8)", ["u8:1"], INVALID_ARGUMENT, "'u8 next_i8(u8)' is not 'i8 next_i8(i8)'", "line 3 of " + file,
          libraries=one)
    fails("next_i8", ["i16:1"], INVALID_ARGUMENT, "argument 1 of next_i8: expected i8, given i16", libraries=one)
    fails("u8 next_u8(u8)", ["u8:1"], PERMISSION_DENIED, "next_u8 is not described in " + file, "--open", libraries=one)
    fails("next_u8", ["u8:1"], PERMISSION_DENIED, "next_u8 is not described", libraries=one)
    fails("no_such", [], NOT_FOUND, "exports no function no_such", libraries=one)
    opened = ["--open", library]
    answers("u8 next_u8(u8)", ["u8:254"], "255\n", libraries=opened)
    answers("next_i8", ["i8:-2"], "-1\n", libraries=opened)
    fails("next_u8", ["u8:1"], INVALID_ARGUMENT, "the signature of next_u8 is not known", libraries=opened)
    fails("u8 next_i8(u8)", ["u8:1"], INVALID_ARGUMENT, "is not 'i8 next_i8(i8)'", libraries=opened)

    other = os.path.join(folder, "other.baton")
    write(other, "u8 next_u8(u8)\n")
    answers("next_u8", ["u8:1"], "2\n", libraries=["--describe", other, library])
    fails("next_i8", ["i8:1"], PERMISSION_DENIED, "not described in " + other, libraries=[f"--describe={other}", library])
    answers("next_u8", ["u8:1"], "2\n", libraries=["--describe", other, FIXTURE])
    answers("crc32", ["u64:0", "buffer:hex:616263", "u32:3"], f"{zlib.crc32(b'abc')}\n",
            libraries=[FIXTURE, library, "libz.so.1"], path=SHIPPED)


def listed(folder):
    """baton.Reflection/List, byte by byte: what is described and exported, once."""
    library = os.path.join(folder, "beside", "libfixture.so.1")
    write(library + ".baton", "i8 next_i8(i8)\nu8 of_a_later_version()\ni32 recall()\n")
    values = b"\x0cbaton.Values"
    for name, libraries, functions in (("two", [library], (b"next_i8", b"recall")), ("none", [FIXTURE], ()),
                                       ("twice the same", ["--open", library, library], (b"next_i8", b"recall"))):
        entries = [b"\x0a" + bytes([len(function)]) + function + b"\x10\x01\x1a" + values + b"\x22" + values
                   for function in functions]
        expected = b"".join(b"\x0a" + bytes([len(entry)]) + entry for entry in entries) + b"\x10\x01"
        result = call("baton.Reflection/List", "buffer:hex:", libraries=libraries,
                      options=["--raw", "--type=baton.ReflectionRequest"])
        report(f"listed: {name}", result.returncode == OK and result.stdout == expected, result)


def places(folder):
    """Each place has a description of its own function; they are taken away one after the other."""
    library = os.path.join(folder, "beside", "libfixture.so.1")
    order = ("beside", "next_i16"), ("first", "next_u16"), ("second", "next_u32")
    for place, function in order:
        integer = function.removeprefix("next_")
        write(os.path.join(folder, place, "libfixture.so.1.baton"), f"{integer} {function}({integer})\n")
    path = ":".join(["", os.path.join(folder, "nowhere"), os.path.join(folder, "first"), os.path.join(folder, "second")])
    for place, function in order:
        answers(function, [function.removeprefix("next_") + ":1"], "2\n", libraries=[library], path=path)
        os.unlink(os.path.join(folder, place, "libfixture.so.1.baton"))
    fails("next_u32", ["u32:1"], INVALID_ARGUMENT, "the signature of next_u32 is not known", libraries=[library], path=path)
    answers("u32 next_u32(u32)", ["u32:1"], "2\n", libraries=[library], path=path)


def broken_description(name, libraries, expected, **options):
    """A failed start, whose last output is the line."""
    result = call("next_i8", "i8:1", libraries=libraries, options=["--json"], **options)
    answer = json.loads(result.stdout)
    line = "baton-runner-module: error: " + expected
    report(f"broken: {name}", result.returncode == EXITED_EARLY and answer["reason"] == "exited-early" and
           answer["last_output"][-1].startswith(line) and result.stderr.decode().splitlines()[-1].strip().startswith(line),
           result)


def broken(folder):
    library = os.path.join(folder, "beside", "libfixture.so.1")
    file = library + ".baton"
    write(file, "baton-module 1\n\n  i8 next_i8(i8, int)\n")
    broken_description("a type", [library], f"description {file}: line 3, column 18: expected a parameter's type: i8 ")
    write(file, "baton-module 2\n")
    broken_description("the version", [library], f"description {file}: line 1, column 14: expected 1, the version of the format")
    broken_description("whatever --open says", ["--open", library], f"description {file}: line 1, column 14: expected 1")
    write(file, "#" * 65537)
    broken_description("the size", [library], f"description {file}: larger than 65536 bytes")
    write(file, "i8 next_i8(i8)\n")
    answers("next_i8", ["i8:1"], "2\n", libraries=[library])
    os.unlink(file)
    file = os.path.join(folder, "first", "libfixture.so.1.baton")
    write(file, "i8 next_i8(i8\n")
    broken_description("in the path", [library], f"description {file}: line 1, column 14 (the end): expected ',' or ')'",
                       path=os.path.join(folder, "first"))
    file = os.path.join(folder, "missing.baton")
    broken_description("no file", [f"--describe={file}", library], f"description {file}: cannot read it: No such file or directory")
    broken_description("a directory", [f"--describe={folder}", library], f"description {folder}: not a regular file")
    fails("i8 f()", [], EXITED_EARLY, "--describe goes with one LIBRARY", libraries=["--describe=x", FIXTURE, FIXTURE])


def shipped():
    answers("sqrt", ["f64:2"], "1.4142135623730951\n", libraries=["libm.so.6"], path=SHIPPED)
    answers("powf", ["f32:2", "f32:10"], "1024\n", libraries=["libm.so.6"], path=SHIPPED)
    answers("f64 ldexp(f64, i32)", ["f64:0.75", "i32:2"], "3\n", libraries=["libm.so.6"], path=SHIPPED)
    answers("crc32", ["u64:0", "buffer:hex:616263", "u32:3"], f"{zlib.crc32(b'abc')}\n", libraries=["libz.so.1"],
            path=SHIPPED)
    answers("zlibVersion", [], f"{zlib.ZLIB_RUNTIME_VERSION}\n", libraries=["libz.so.1"], path=SHIPPED)
    fails("f64 jn(i32, f64)", ["i32:1", "f64:1"], PERMISSION_DENIED, "jn is not described in", libraries=["libm.so.6"],
          path=SHIPPED)


def hang_up(listener):
    """Whoever connects meets the end at once."""
    try:
        while True:
            listener.accept()[0].close()
    except OSError:
        pass


def no_room(folder):
    """One descriptor more each time, until it starts: wherever they ran out, one line says so."""
    path = os.path.join(folder, "socket")
    # At its end the leak checker needs more descriptors than there are.
    environment = {**ENVIRONMENT, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
    seen = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    thread = threading.Thread(target=hang_up, args=(listener,))
    thread.start()
    for limit in range(4, 20):
        result = subprocess.run(["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", MODULE, "--uds-path", path, "libm.so.6"],
                                env=environment, capture_output=True, timeout=60, check=False)
        if result.returncode == 0:
            break
        lines = result.stderr.decode().splitlines()
        seen += lines
        report(f"with {limit} descriptors", result.returncode == 1 and len(lines) == 1, result)
    report("out of descriptors once connected", result.returncode == 0 and f"baton-runner-module: {NO_ROOM}" in seen, seen)
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def endings():
    fails("void crash()", [], UNAVAILABLE, "SIGSEGV")
    fails("void crash()", [], UNAVAILABLE, "about to crash")
    fails("void give_up()", [], UNAVAILABLE, "SIGABRT")
    fails("void leave(i32)", ["i32:7"], UNAVAILABLE, "status 7")
    fails("i8 f()", [], EXITED_EARLY, "cannot load library /nonexistent.so", libraries=["/nonexistent.so"])
    fails("i8 f()", [], EXITED_EARLY, "no LIBRARY given", libraries=[])


def socket_as_argument():
    """Without the variable, as a supervisor may start them: --uds-path, in both forms, anywhere before `--'."""
    script = 'path=$BATON_BOOTSTRAP; unset BATON_BOOTSTRAP; program=$1; shift; eval "exec \\"$program\\" $*"'
    for program, arguments, method, value, expected in (
            (MODULE, '"$LIBRARY" --uds-path "$path"', "i8 next_i8(i8)", "i8:6", b"7\n"),
            (MODULE, '--uds-path="$path" --open -- "$LIBRARY"', "i8 next_i8(i8)", "i8:6", b"7\n"),
            (os.path.join(BUILD, "baton-runner-echo"), '--uds-path="$path"', "echo.Echo/Unary", "i8:7", b"7\n")):
        result = subprocess.run([BATON, "call", f"--env=LIBRARY={FIXTURE}", "--exec", "sh", "-c", script, "sh", program,
                                 arguments, "--", method, value], stdin=subprocess.DEVNULL, env=ENVIRONMENT,
                                capture_output=True, timeout=60, check=False)
        report(f"{os.path.basename(program)} {arguments}", result.returncode == OK and result.stdout == expected, result)


def by_hand():
    environment = {name: value for name, value in os.environ.items() if name != "BATON_BOOTSTRAP"}
    for arguments, status, text in ((["--help"], 0, ""), (["--version"], 0, ""), ([], 2, "no LIBRARY given"),
                                    (["--what", FIXTURE], 2, "--what"),
                                    ([FIXTURE, "--uds-path"], 2, "--uds-path needs a path"),
                                    (["--uds-path=/nonexistent", FIXTURE], 1, "/nonexistent"), ([FIXTURE], 1, "BATON_BOOTSTRAP"),
                                    (["/nonexistent.so"], 1, "cannot load library /nonexistent.so")):
        result = subprocess.run([MODULE, *arguments], env=environment, capture_output=True, timeout=60, check=False)
        lines = result.stderr.decode().splitlines()
        report(f"baton-runner-module {' '.join(map(os.path.basename, arguments))}",
               result.returncode == status and len(lines) == (1 if text else 0) and text in "".join(lines) and
               (status != 0 or len(result.stdout) > 0), result)


def main():
    types()
    with tempfile.TemporaryDirectory() as folder:
        large(folder)
        described(folder)
        listed(folder)
        places(folder)
        broken(folder)
        no_room(folder)
    shipped()
    as_json()
    wrong_calls()
    endings()
    socket_as_argument()
    by_hand()
    print(f"1..{n}")
    return failures > 0


sys.exit(main())
