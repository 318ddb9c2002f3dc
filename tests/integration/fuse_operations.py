#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every operation of a file system, in a directory of its own: fuse_operations.py DIRECTORY [UID]

Prints one line for each, with what it returned: an errno, what stat() says, content. What differs from one directory to the
other by nature (inode and device numbers, times) is not printed, but what must hold among them is. So on two file systems
that do the same, the outputs are the same. With UID that user does it, in a directory that is theirs.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import signal
import socket
import stat
import struct
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_FDCWD = -100
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, FALLOC_FL_COLLAPSE_RANGE = 1, 2, 16, 8


def say(name, value=None):
    print(name, value, flush=True)


def do(name, function, *arguments, **more):
    """The result, which is printed; or the errno's name, which is."""
    try:
        result = function(*arguments, **more)
    except OSError as error:
        say(name, errno.errorcode.get(error.errno, error.errno))
        return None
    say(name, result if isinstance(result, (int, str, bytes, bool, list, tuple)) and not name.startswith("open") else "ok")
    return result


def look(name, path, follow=False):
    """What stat() says, but for numbers and times."""
    try:
        s = os.stat(path, follow_symlinks=follow)
    except OSError as error:
        say(f"stat {name}", errno.errorcode.get(error.errno))
        return None
    size = s.st_size if not stat.S_ISDIR(s.st_mode) else "-"
    say(f"stat {name}", (oct(s.st_mode), s.st_nlink, s.st_uid, s.st_gid, size, s.st_blksize, s.st_rdev))
    return s


def renameat2(old, new, flags):
    if libc.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def write(path, data, mode=0o644):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.write(fd, data)
    os.close(fd)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def names():
    do("mkdir", os.mkdir, "d", 0o750)
    do("mkdir again", os.mkdir, "d")
    look("d", "d")
    do("mkdir below nothing", os.mkdir, "nothing/d")
    do("mkdir of a long name", os.mkdir, "x" * 256)
    do("mkdir of the longest name", os.mkdir, "x" * 255)
    do("rmdir of the longest name", os.rmdir, "x" * 255)
    do("create", write, "d/f", b"one")
    look("d/f", "d/f")
    look("d with a file", "d")
    do("rmdir of a full one", os.rmdir, "d")
    do("unlink of a directory", os.unlink, "d")
    do("rmdir of a file", os.rmdir, "d/f")
    do("link", os.link, "d/f", "g")
    look("g", "g")
    say("linked", os.stat("g").st_ino == os.stat("d/f").st_ino)
    do("link again", os.link, "d/f", "g")
    do("link of a directory", os.link, "d", "h")
    do("symlink", os.symlink, "d/f", "s")
    do("symlink again", os.symlink, "d/f", "s")
    look("s", "s")
    do("readlink", os.readlink, "s")
    do("readlink of a file", os.readlink, "g")
    do("read through it", read, "s")
    do("symlink of any text", os.symlink, "/\n..//" + "y" * 1000, "t")
    do("readlink of it", os.readlink, "t")
    do("link of a symlink", os.link, "s", "s2", follow_symlinks=False)
    look("s2", "s2")
    do("symlink loop", os.symlink, "loop", "loop")
    do("open loop", os.open, "loop", os.O_RDONLY)
    do("mkfifo", os.mkfifo, "p", 0o640)
    look("p", "p")
    do("mknod of a socket", os.mknod, "k", 0o600 | stat.S_IFSOCK)
    look("k", "k")
    do("mknod of a device", os.mknod, "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    look("null", "null")
    do("mknod of a device with large numbers", os.mknod, "large", 0o666 | stat.S_IFBLK, os.makedev(300, 70000))
    look("large", "large")
    for i in range(0, 500):
        write(f"d/n{i}", b"")
    say("listed", sorted(os.listdir("d")) == sorted(["f"] + [f"n{i}" for i in range(500)]))
    say("scanned", sorted((e.name, e.is_file(), e.stat().st_size) for e in os.scandir("d"))[:3])
    fd = os.open("d", os.O_RDONLY | os.O_DIRECTORY)
    do("fsync of a directory", os.fsync, fd)
    say("listed by descriptor", len(os.listdir(fd)))
    os.close(fd)
    for i in range(0, 500):
        os.unlink(f"d/n{i}")
    say("listed", os.listdir("d"))
    server = socket.socket(socket.AF_UNIX)
    do("bind", server.bind, "sock")
    server.close()
    look("sock", "sock")


def renames():
    write("a", b"a")
    write("b", b"b")
    os.makedirs("x/y")
    do("rename", os.rename, "a", "c")
    do("rename of nothing", os.rename, "a", "c")
    do("rename over", os.rename, "b", "c")
    do("content", read, "c")
    do("rename to itself", os.rename, "c", "c")
    do("rename of a directory into itself", os.rename, "x", "x/y/z")
    do("rename of a directory over a file", os.rename, "x", "c")
    do("rename of a file over a directory", os.rename, "c", "x")
    do("rename over a full directory", os.rename, "x/y", "x")
    os.mkdir("empty")
    do("rename over an empty directory", os.rename, "x/y", "empty")
    write("e1", b"1")
    write("e2", b"2")
    do("exchange", renameat2, "e1", "e2", RENAME_EXCHANGE)
    say("exchanged", (read("e1"), read("e2")))
    do("exchange with nothing", renameat2, "e1", "e3", RENAME_EXCHANGE)
    do("no replace", renameat2, "e1", "e2", RENAME_NOREPLACE)
    do("no replace of nothing", renameat2, "e1", "e3", RENAME_NOREPLACE)
    os.link("e3", "e4")
    do("rename of two names of one file", os.rename, "e3", "e4")
    say("left", sorted(os.listdir(".")))


def content():
    data = bytes(range(251)) * 12533
    write("big", data)
    say("big", read("big") == data)
    look("big", "big")
    fd = os.open("big", os.O_RDWR)
    do("pwrite", os.pwrite, fd, b"middle", 1000000)
    do("pread", os.pread, fd, 10, 999998 + 4)
    do("pread at the end", os.pread, fd, 100, len(data) - 3) and None
    do("pread behind the end", os.pread, fd, 100, len(data) + 3)
    do("ftruncate", os.ftruncate, fd, 100)
    look("truncated", "big")
    do("ftruncate up", os.ftruncate, fd, 1 << 20)
    say("zeros", os.pread(fd, 1 << 20, 100) == bytes((1 << 20) - 100))
    do("ftruncate negative", os.ftruncate, fd, -1)
    do("fsync", os.fsync, fd)
    do("fdatasync", os.fdatasync, fd)
    do("sparse write", os.pwrite, fd, b"end", 1 << 32)
    look("sparse", "big")
    do("seek data", os.lseek, fd, 1 << 30, os.SEEK_DATA)
    do("seek hole", os.lseek, fd, 1 << 30, os.SEEK_HOLE)
    do("seek behind", os.lseek, fd, 1 << 33, os.SEEK_DATA)
    os.close(fd)
    fd = os.open("append", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"one")
    other = os.open("append", os.O_WRONLY | os.O_APPEND)
    os.write(other, b"two")
    os.write(fd, b"three")
    os.close(fd)
    os.close(other)
    do("appended", read, "append")
    do("open exclusive", os.open, "append", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    do("open for nothing", os.open, "none", os.O_RDONLY)
    do("open a directory to write", os.open, ".", os.O_WRONLY)
    do("open as a directory", os.open, "append", os.O_DIRECTORY)
    do("open a symlink", lambda: (os.symlink("append", "link"), os.open("link", os.O_NOFOLLOW)))
    fd = os.open("append", os.O_RDWR | os.O_TRUNC)
    look("open truncated it", "append")
    do("read of what is only to be written", os.read, os.open("append", os.O_WRONLY), 1)
    do("write of what is only to be read", os.write, os.open("append", os.O_RDONLY), b"x")
    os.close(fd)
    fd = os.open("sync", os.O_RDWR | os.O_CREAT | os.O_SYNC)
    do("synchronous write", os.write, fd, b"s" * 70000)
    os.close(fd)
    buffer = mmap.mmap(-1, 8192)
    buffer[:] = b"d" * 8192
    fd = os.open("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    do("direct write", os.pwrite, fd, buffer, 4096)
    do("direct read", os.preadv, fd, [buffer], 0)
    say("direct", bytes(buffer[4090:4100]))
    os.close(fd)


def ranges():
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 100000)
    do("allocate", fallocate, fd, 0, 0, 200000)
    look("allocated", "f")
    do("allocate and keep the size", fallocate, fd, FALLOC_FL_KEEP_SIZE, 0, 400000)
    look("kept", "f")
    do("punch", fallocate, fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 4096, 8192)
    say("punched", os.pread(fd, 8194, 4095) == b"x" + bytes(8192) + b"x")
    do("zero", fallocate, fd, FALLOC_FL_ZERO_RANGE, 50000, 100)
    say("zeroed", os.pread(fd, 102, 49999) == b"x" + bytes(100) + b"x")
    other = os.open("g", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"copied", 60000)
    do("copy", os.copy_file_range, fd, other, 1000, 60000, 10)
    say("copied", os.pread(other, 6, 10))
    do("sendfile", os.sendfile, other, fd, 0, 5000)
    do("copy by name", lambda: shutil.copyfile("f", "h") and None)
    say("same", read("f") == read("h"))
    os.close(fd)
    os.close(other)


def unnamed():
    fd = os.open("u", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"still here")
    do("unlink of an open file", os.unlink, "u")
    look("by descriptor", fd, True)
    do("read", os.pread, fd, 100, 0)
    do("write", os.pwrite, fd, b"STILL", 0)
    do("read", os.pread, fd, 100, 0)
    do("chmod", os.fchmod, fd, 0o600)
    do("truncate", os.ftruncate, fd, 5)
    look("by descriptor", fd, True)
    write("u", b"another")
    do("the other", read, "u")
    do("and the first", os.pread, fd, 100, 0)
    os.close(fd)
    write("over", b"over")
    fd = os.open("over", os.O_RDONLY)
    os.rename("u", "over")
    do("of what was renamed over", os.read, fd, 100)
    look("it", fd, True)
    os.close(fd)
    fd = os.open(".", os.O_RDWR | os.O_TMPFILE, 0o640)
    os.write(fd, b"temporary")
    look("temporary", fd, True)
    do("name it", os.link, f"/proc/self/fd/{fd}", "named", follow_symlinks=True)
    look("named", "named")
    do("read it", read, "named")
    os.close(fd)
    os.mkdir("gone")
    here = os.open(".", os.O_RDONLY)
    os.chdir("gone")
    os.rmdir("../gone")
    look("a directory that is gone", ".")
    do("create in it", os.open, "x", os.O_CREAT | os.O_WRONLY)
    os.fchdir(here)
    os.close(here)


def attributes():
    write("f", b"data")
    do("chmod", os.chmod, "f", 0o4755)
    look("f", "f")
    do("write takes the bits away, or not", lambda: open("f", "r+b", buffering=0).write(b"D"))
    look("f", "f")
    do("chown to oneself", os.chown, "f", os.geteuid(), os.getegid())
    look("f", "f")
    do("chown to another", os.chown, "f", 12, 34)
    look("f", "f")
    do("utime", os.utime, "f", ns=(1_000_000_001, 2_000_000_002))
    s = os.stat("f")
    say("times", (s.st_atime_ns, s.st_mtime_ns))
    do("utime before 1970", os.utime, "f", ns=(-5_000_000_001, -2_000_000_002))
    s = os.stat("f")
    say("times", (s.st_atime_ns, s.st_mtime_ns))
    do("utime now", os.utime, "f")
    os.symlink("f", "s")
    do("utime of a symlink", os.utime, "s", ns=(3_000_000_003, 4_000_000_004), follow_symlinks=False)
    s = os.lstat("s")
    say("times", (s.st_atime_ns, s.st_mtime_ns))
    do("access", os.access, "f", os.W_OK)
    do("access", os.access, "f", os.X_OK)
    before = os.umask(0o077)
    do("create with a umask", write, "masked", b"", 0o666)
    look("masked", "masked")
    do("mkdir with a umask", os.mkdir, "masked.d", 0o777)
    look("masked.d", "masked.d")
    os.umask(before)
    os.mkdir("group")
    do("set-group-ID", os.chmod, "group", 0o2775)
    os.mkdir("group/d")
    look("group/d", "group/d")
    s = os.statvfs(".")
    say("statvfs", (s.f_bsize, s.f_frsize, s.f_namemax, s.f_blocks))


def extended():
    write("f", b"")
    do("set", os.setxattr, "f", "user.one", b"1")
    do("set new", os.setxattr, "f", "user.one", b"2", os.XATTR_CREATE)
    do("set old", os.setxattr, "f", "user.two", b"2", os.XATTR_REPLACE)
    do("set empty", os.setxattr, "f", "user.empty", b"")
    do("set large", os.setxattr, "f", "user.large", b"l" * 2000)
    do("set far too large", os.setxattr, "f", "user.larger", b"l" * 70000)
    do("get", os.getxattr, "f", "user.one")
    do("get empty", os.getxattr, "f", "user.empty")
    do("get large", os.getxattr, "f", "user.large")
    do("get none", os.getxattr, "f", "user.none")
    do("list", lambda: sorted(os.listxattr("f")))
    do("remove", os.removexattr, "f", "user.one")
    do("remove again", os.removexattr, "f", "user.one")
    do("list", lambda: sorted(os.listxattr("f")))
    do("of no class", os.setxattr, "f", "what", b"")
    do("trusted", os.setxattr, "f", "trusted.x", b"t")
    os.symlink("f", "s")
    do("of a symlink", os.setxattr, "s", "user.x", b"", follow_symlinks=False)
    # An access list: owner rw, user 1234 r, group -, mask r, others -.
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in
                                          ((1, 6, 0xffffffff), (2, 4, 1234), (4, 0, 0xffffffff), (16, 4, 0xffffffff),
                                           (32, 0, 0xffffffff)))
    do("access list", os.setxattr, "f", "system.posix_acl_access", acl)
    look("f", "f")
    do("get it", os.getxattr, "f", "system.posix_acl_access")
    os.mkdir("d")
    do("default access list", os.setxattr, "d", "system.posix_acl_default", acl)
    before = os.umask(0o022)
    write("d/inherits", b"", 0o666)
    look("d/inherits", "d/inherits")
    do("inherited", os.getxattr, "d/inherits", "system.posix_acl_access")
    os.umask(before)


def mapped():
    with open("m", "w+b") as file:
        file.truncate(100000)
        with mmap.mmap(file.fileno(), 100000) as shared:
            shared[50000:50005] = b"hello"
            do("read what was mapped", os.pread, file.fileno(), 5, 50000)
            os.pwrite(file.fileno(), b"there", 60000)
            say("mapped what was written", shared[60000:60005])
            shared.flush()
        private = mmap.mmap(file.fileno(), 100000, mmap.MAP_PRIVATE)
        private[0:1] = b"p"
        private.close()
    do("kept", lambda: (read("m")[50000:50005], read("m")[0:1]))


def locks():
    write("l", b"lock")
    one, two = os.open("l", os.O_RDWR), os.open("l", os.O_RDWR)
    do("flock", fcntl.flock, one, fcntl.LOCK_EX | fcntl.LOCK_NB)
    do("flock by another", fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.flock(one, fcntl.LOCK_UN)
    do("flock when it is free", fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.flock(two, fcntl.LOCK_UN)
    do("lock", fcntl.lockf, one, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        fd = os.open("l", os.O_RDWR)
        answer = b"locked"
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 12)
        except OSError as error:
            answer = errno.errorcode[error.errno].encode()
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 20)
            answer += b" locked"
        except OSError as error:
            answer += errno.errorcode[error.errno].encode()
        os.write(done[1], answer)
        os.read(ready[0], 1)
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError()))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, 12)
            os.write(done[1], b"waited and got it")
        except InterruptedError:
            os.write(done[1], b"interrupted")
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.read(ready[0], 1)
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 12)
        os.write(done[1], b"got it")
        os._exit(0)
    say("another process", os.read(done[0], 100))
    os.write(ready[1], b"x")
    say("waiting", os.read(done[0], 100))
    os.write(ready[1], b"x")
    fcntl.lockf(one, fcntl.LOCK_UN, 10, 5)
    say("after", os.read(done[0], 100))
    os.waitpid(child, 0)
    for fd in (one, two, *ready, *done):
        os.close(fd)


def others():
    write("f", b"")
    fd = os.open("f", os.O_RDWR)
    do("ioctl that nobody knows", fcntl.ioctl, fd, 0x12345678)
    os.close(fd)
    write("run", b"#!/bin/sh\nexit 7\n", 0o755)
    do("run", lambda: os.waitstatus_to_exitcode(os.system("./run")))
    shutil.copy("/bin/true", "true")
    do("run a binary", lambda: os.waitstatus_to_exitcode(os.system("./true")))
    failures = []

    def worker(number):
        try:
            for i in range(50):
                os.mkdir(f"w{number}.{i}")
                write(f"w{number}.{i}/f", str(i).encode() * 100)
                assert read(f"w{number}.{i}/f") == str(i).encode() * 100
                os.rename(f"w{number}.{i}/f", f"w{number}.{i}/g")
                shutil.rmtree(f"w{number}.{i}")
        except (OSError, AssertionError) as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=worker, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say("threads", failures)


PARTS = (names, renames, content, ranges, unnamed, attributes, extended, mapped, locks, others)


def main():
    root = sys.argv[1]
    uid = int(sys.argv[2]) if len(sys.argv) > 2 else None
    os.umask(0o022)
    os.chdir(root)
    top = os.open(".", os.O_RDONLY)  # the way to it may be closed to that user
    for part in PARTS:
        os.mkdir(part.__name__)
        if uid is not None:
            os.chown(part.__name__, uid, uid)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    for part in PARTS:
        os.chdir(part.__name__)
        say(f"== {part.__name__}")
        part()
        os.fchdir(top)


main()
