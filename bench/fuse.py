#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a file system of ours costs: bench/fuse.py [BUILD]

The same work on a directory, on that directory through baton-runner-fuse's file system (by tests/fuse-holder) and, where
Debian's libfuse3-dev is installed, through libfuse3's own passthrough example. Operations and bytes a second, the best of
three, and how they compare with the directory below. Needs root and /dev/fuse.
"""

import glob
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ".")
ROUNDS, FILES, BLOCK, SIZE = 3, 2000, 128 * 1024, 128 * 1024 * 1024


def timed(function, n):
    best = 0.0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        best = max(best, n / (time.perf_counter() - start))
    return best


def measure(folder):
    """Rates in @folder: what is done with names and attributes, and with content."""
    name = os.path.join(folder, "f")
    data = os.urandom(BLOCK)

    def create():
        for i in range(FILES):
            os.close(os.open(f"{name}{i}", os.O_CREAT | os.O_WRONLY))
        for i in range(FILES):
            os.unlink(f"{name}{i}")

    def look():
        for _ in range(FILES):
            os.close(os.open(name, os.O_RDONLY))

    def write():
        fd = os.open(name, os.O_CREAT | os.O_WRONLY)
        for i in range(SIZE // BLOCK):
            os.pwrite(fd, data, i * BLOCK)
        os.close(fd)

    def read():
        fd = os.open(name, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # above; below it is in memory, or nothing is measured but disks
        for i in range(SIZE // BLOCK):
            os.pread(fd, BLOCK, i * BLOCK)
        os.close(fd)

    result = {"create+unlink/s": timed(create, 2 * FILES), "write MiB/s": timed(write, SIZE >> 20)}
    result["read MiB/s"] = timed(read, SIZE >> 20)
    result["open+close/s"] = timed(look, FILES)
    os.unlink(name)
    return result


def ours(below, at):
    holder = subprocess.Popen([os.path.join(BUILD, "tests", "fuse-holder"), below, at], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "ok start\n"
    try:
        return measure(at)
    finally:
        holder.communicate("quit\n")


def theirs(below, at, folder):
    """libfuse3's example, built as it is shipped; None: it is not there."""
    shipped = glob.glob("/usr/share/doc/libfuse3-dev/examples/**/passthrough_ll.c*", recursive=True)
    if not shipped or not shutil.which("cc"):
        return None
    source = os.path.join(folder, "passthrough_ll.c")
    with (gzip.open if shipped[0].endswith(".gz") else open)(shipped[0], "rb") as packed, open(source, "wb") as file:
        file.write(packed.read())
    for helper in glob.glob(os.path.join(os.path.dirname(shipped[0]), "passthrough_helpers.h")):
        shutil.copy(helper, folder)
    program = os.path.join(folder, "passthrough_ll")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=True)
    subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", source, "-o", program, *flags.stdout.split()], check=True,
                   stderr=subprocess.DEVNULL)
    server = subprocess.Popen([program, "-f", "-o", f"source={below},cache=auto,allow_other", at])
    while not os.path.ismount(at):
        assert server.poll() is None
        time.sleep(0.01)
    try:
        return measure(at)
    finally:
        subprocess.run(["umount", at], check=True)
        server.wait()


def main():
    with tempfile.TemporaryDirectory(prefix="bench-fuse-") as folder:
        below, at = (os.path.join(folder, name) for name in ("below", "at"))
        for one in (below, at):
            os.mkdir(one)
        results = {"below": measure(below), "baton": ours(below, at)}
        other = theirs(below, at, folder)
        if other:
            results["libfuse3 passthrough_ll"] = other
    for name, figures in results.items():
        print(name)
        for what, figure in figures.items():
            print(f"  {what:16} {figure:10.0f}  {figure / results['below'][what]:6.2f}")
    with open("bench-fuse.json", "w", encoding="ascii") as file:
        json.dump(results, file, indent=1)


main()
