#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The module runner from end to end: `baton call' starts it with a library, calls a C function, prints the result.

Covers every type through the built programs, values of several MiB, buffers in and out, JSON, what a wrong call gets, and
libraries that crash, abort, exit, print, or cannot be loaded. Each type in detail: tests/test-module.c. TAP on stdout.
"""

import json
import os
import subprocess
import sys
import tempfile
import zlib

BATON = os.environ["BATON_PROGRAM"]
BUILD = os.environ["abs_top_builddir"]
MODULE = os.path.join(BUILD, "baton-runner-module")
FIXTURE = os.path.join(BUILD, "tests", ".libs", "module-fixture.so")

OK, INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 19, 21, 24, 28, 29, 30
USAGE, EXITED_EARLY = 2, 43

n = failures = 0


def call(method, *values, libraries=(FIXTURE,), options=(), stdin=None):
    command = [BATON, "call", *options, "--exec", MODULE, *libraries, "--", method, *values]
    return subprocess.run(command, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                          capture_output=True, timeout=60, check=False)


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
    fails("u64 byte_sum(out, u64)", ["out:20M", "u64:0"], RESOURCE_EXHAUSTED, "byte_sum")
    with open(path, "ab") as file:
        file.write(data)
    fails("u64 crc32(u64, buffer, u32)", ["u64:0", f"buffer:@{path}", "u32:1"], RESOURCE_EXHAUSTED, "argument 2",
          libraries=["libz.so.1"])


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


def endings():
    fails("void crash()", [], UNAVAILABLE, "SIGSEGV")
    fails("void crash()", [], UNAVAILABLE, "about to crash")
    fails("void give_up()", [], UNAVAILABLE, "SIGABRT")
    fails("void leave(i32)", ["i32:7"], UNAVAILABLE, "status 7")
    fails("i8 f()", [], EXITED_EARLY, "cannot load library /nonexistent.so", libraries=["/nonexistent.so"])
    fails("i8 f()", [], EXITED_EARLY, "no LIBRARY given", libraries=[])


def by_hand():
    environment = {name: value for name, value in os.environ.items() if name != "BATON_BOOTSTRAP"}
    for arguments, status, text in ((["--help"], 0, ""), (["--version"], 0, ""), ([], 2, "no LIBRARY given"),
                                    (["--what", FIXTURE], 2, "--what"), ([FIXTURE], 1, "BATON_BOOTSTRAP"),
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
    as_json()
    wrong_calls()
    endings()
    by_hand()
    print(f"1..{n}")
    return failures > 0


sys.exit(main())
