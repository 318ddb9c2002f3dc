#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sockets of plain programs: what a runner is passed, in which order and under which names, and that it stays open across
its restarts, the crash and the takeover of the supervisor; what a reload opens and closes; paths that are there already.
All addresses are of the loopback, or in the test's folder."""

import errno
import json
import os
import signal
import socket
import stat
import sys

import daemon_tests
from daemon_tests import HOST, Skip, is_alive, main, test, until

daemon_tests.LIBEXEC = daemon_tests.CHECKING

# Says what it was passed, then serves: each connection on the first socket is answered with that, and closed.
PROGRAM = r"""
import json, os, socket, sys
said = {name: os.environ.get(name) for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NGINX", "BIND")}
said["pid"] = os.getpid()
said["sockets"] = []
for fd in range(3, 3 + int(said["LISTEN_FDS"] or 0)):
    one = socket.socket(fileno=os.dup(fd))
    name = one.getsockname()
    said["sockets"].append([one.family.name, one.type.name, name.decode() if isinstance(name, bytes) else name,
                            one.getblocking(), one.family == socket.AF_INET6 and
                            one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)])
    one.close()
said["beyond"] = [fd for fd in range(3, 200) if os.path.exists(f"/proc/self/fd/{fd}")][len(said["sockets"]):]
with open(sys.argv[1], "w") as file:
    file.write(json.dumps(said))
os.rename(sys.argv[1], sys.argv[1] + ".done")
listener = socket.socket(fileno=3)
while True:
    client, _ = listener.accept()
    client.sendall(str(os.getpid()).encode())
    client.close()
"""


def free_ports(n, kind=socket.SOCK_STREAM):
    """Ports of the loopback that nobody has: each is asked for, and given back."""
    sockets = [socket.socket(socket.AF_INET, kind) for _ in range(n)]
    for one in sockets:
        one.bind((HOST, 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def configuration(daemon, sockets, more="", name="web"):
    program = os.path.join(daemon.folder, "program.py")
    with open(program, "w", encoding="utf-8") as file:
        file.write(PROGRAM)
    return (f"runners:\n  {name}:\n    command: [{sys.executable}, {program}, {daemon.folder}/said]\n"
            f"    backoff: {{ initial: 0 }}\n    intensity: {{ restarts: 0 }}\n{more}"
            "    sockets:\n" + "".join(f"      - {{ {one} }}\n" for one in sockets))


def said(daemon, name="said"):
    """What the program said, once: the file is taken away."""
    path = os.path.join(daemon.folder, name + ".done")
    until(lambda: os.path.exists(path), "a word of the program")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    os.unlink(path)
    return json.loads(text)


def ask(address, family=socket.AF_INET):
    """The pid of whoever answers."""
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect(address)
        return int(client.makefile("rb").read())


def kill(pid):
    """Whoever connects from here on is not accepted by it any more."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid), "the end of a process")


def inode(pid, fd):
    return os.readlink(f"/proc/{pid}/fd/{fd}")


@test
def all_kinds(daemon):
    tcp, v6 = free_ports(2)
    udp, = free_ports(1, socket.SOCK_DGRAM)
    path = os.path.join(daemon.folder, "web.sock")
    sockets = [f'tcp: "{HOST}:{tcp}", name: http, backlog: 7', f'tcp: "[::1]:{v6}", ipv6_only: true',
               f'udp: "{HOST}:{udp}", name: "%n-udp"', f"unix: {path}, mode: 0640, user: 65534, group: 65533",
               f"unix: {path}.dgram, type: dgram, mode: 0600", f'unix: "@{path}", type: seqpacket']
    if os.geteuid() != 0:
        sockets[3] = f"unix: {path}, mode: 0640"
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        raise Skip("no IPv6")
    daemon.start(configuration(daemon, sockets, '    socket_variable: { name: BIND, format: "fd@%f", separator: "," }\n'))
    what = said(daemon)
    assert what["LISTEN_FDS"] == "6" and what["LISTEN_PID"] == str(what["pid"]), what
    assert what["LISTEN_FDNAMES"] == "http:web:web-udp:web:web:web", what
    assert what["BIND"] == "fd@3,fd@4,fd@5,fd@6,fd@7,fd@8", what
    assert what["NGINX"] is None and what["beyond"] == [], what
    assert what["sockets"] == [
        ["AF_INET", "SOCK_STREAM", [HOST, tcp], True, False],
        ["AF_INET6", "SOCK_STREAM", ["::1", v6, 0, 0], True, 1],
        ["AF_INET", "SOCK_DGRAM", [HOST, udp], True, False],
        ["AF_UNIX", "SOCK_STREAM", path, True, False],
        ["AF_UNIX", "SOCK_DGRAM", path + ".dgram", True, False],
        ["AF_UNIX", "SOCK_SEQPACKET", "\0" + path, True, False]], what
    info = os.stat(path)
    assert stat.S_IMODE(info.st_mode) == 0o640 and stat.S_IMODE(os.stat(path + ".dgram").st_mode) == 0o600
    assert os.geteuid() != 0 or (info.st_uid, info.st_gid) == (65534, 65533), info
    assert ask((HOST, tcp)) == what["pid"]
    daemon.baton("stop", "web")
    assert not os.path.exists(path) and not os.path.exists(path + ".dgram")
    refused((HOST, tcp))


def refused(address):
    """Nobody listens any more, as soon as the keeper has closed its end, too."""
    def is_refused():
        with socket.socket() as client:
            return client.connect_ex(address) == errno.ECONNREFUSED
    until(is_refused, f"the end of {address}")


@test
def stays_open(daemon):
    """One connection after the other, some of them while there is no process: none is refused."""
    port, = free_ports(1)
    daemon.start(configuration(daemon, [f'tcp: "{HOST}:{port}"'], '    socket_variable: { name: NGINX, format: "%f;" }\n'))
    what = said(daemon)
    assert what["NGINX"] == "3;", what
    first = inode(what["pid"], 3)
    pids = {ask((HOST, port))}
    for _ in range(5):
        kill(daemon.pid("web"))
        pids.add(ask((HOST, port)))
        assert said(daemon)["pid"] in pids
    daemon.baton("restart", "web")
    pids.add(ask((HOST, port)))
    assert len(pids) == 7, pids
    assert inode(daemon.pid("web"), 3) == first


@test
def outlives_supervisors(daemon):
    """SIGKILL of the supervisor, then a takeover: the socket is the same, and those after them pass it on."""
    port, = free_ports(1)
    path = os.path.join(daemon.folder, "web.sock")
    daemon.start(configuration(daemon, [f'tcp: "{HOST}:{port}", name: http', f"unix: {path}"]))
    pid = said(daemon)["pid"]
    first = [inode(pid, fd) for fd in (3, 4)]
    for end in ("kill", "takeover", "kill"):
        before = daemon.supervisor()
        if end == "kill":
            os.kill(before, signal.SIGKILL)
            until(lambda: not is_alive(before) and daemon.answers() and daemon.supervisor() != before, "another supervisor")
        else:
            daemon.baton("takeover")
        assert ask((HOST, port)) == daemon.pid("web")
        kill(daemon.pid("web"))
        pid = ask((HOST, port))
        what = said(daemon)
        assert what["pid"] == pid and what["LISTEN_FDNAMES"] == "http:web", what
        assert [inode(pid, fd) for fd in (3, 4)] == first
    daemon.baton("stop", "web")
    assert not os.path.exists(path)
    refused((HOST, port))
    daemon.baton("start", "web")
    assert ask((HOST, port)) == daemon.pid("web") and os.path.exists(path)


@test
def reload_changes_only_what_changed(daemon):
    one, two, three = free_ports(3)
    path = os.path.join(daemon.folder, "web.sock")
    daemon.start(configuration(daemon, [f'tcp: "{HOST}:{one}"', f'tcp: "{HOST}:{two}"', f"unix: {path}"]))
    pid = said(daemon)["pid"]
    kept, kept_path = inode(pid, 3), inode(pid, 5)
    daemon.configure(configuration(daemon, [f"unix: {path}, mode: 0600", f'tcp: "{HOST}:{three}"',
                                            f'tcp: "{HOST}:{one}", backlog: 3, name: x']))
    assert "sockets" in daemon.baton("reload").stdout
    what = said(daemon)
    assert what["LISTEN_FDNAMES"] == "web:web:x", what
    assert [inode(what["pid"], 3), inode(what["pid"], 5)] == [kept_path, kept]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    refused((HOST, two))
    assert what["sockets"][1][2] == [HOST, three]
    # What is gone from the configuration is closed after a crash, too.
    daemon.configure(configuration(daemon, [f'tcp: "{HOST}:{two}"'], name="other"))
    daemon.baton("reload")
    assert said(daemon)["LISTEN_FDNAMES"] == "other"
    until(lambda: not os.path.exists(path), "the end of the path")
    refused((HOST, one))


@test
def paths_that_are_there(daemon):
    """A stale socket is replaced; one that answers, and what is no socket, are refused, and left alone."""
    path = os.path.join(daemon.folder, "web.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    daemon.start(configuration(daemon, [f"unix: {path}"]))
    assert ask(path, socket.AF_UNIX) == said(daemon)["pid"]
    daemon.baton("stop", "web")
    with socket.socket(socket.AF_UNIX) as lives:
        lives.bind(path)
        lives.listen()
        done = daemon.baton("start", "web", check=False)
        assert done.returncode != 0, done
        assert f"at opening socket web, unix stream {path}: somebody listens there already" in done.stderr, done.stderr
        daemon.baton("stop", "web")
        assert os.path.exists(path)
    os.unlink(path)
    with open(path, "w", encoding="utf-8"):
        pass
    done = daemon.baton("start", "web", check=False)
    assert f"unix stream {path}: is there already, and no socket" in done.stderr, done.stderr
    daemon.baton("stop", "web")
    assert os.path.isfile(path)


@test
def taken_port(daemon):
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        daemon.start(configuration(daemon, [f'tcp: "{HOST}:{port}"'], "    autostart: false\n    restart: never\n"))
        done = daemon.baton("start", "web", check=False)
        assert f"at opening socket web, tcp {HOST}:{port}: Address already in use" in done.stderr, done.stderr
    daemon.configure(configuration(daemon, ["unix: /nowhere/at/all"], "    autostart: false\n    restart: never\n"))
    daemon.baton("reload")
    done = daemon.baton("start", "web", check=False)
    assert "unix stream /nowhere/at/all: its directory is not there" in done.stderr, done.stderr


@test
def many_sockets(daemon):
    """More than fit below the reserved descriptors, of a template: each instance has its own."""
    sockets = [f'unix: "{daemon.folder}/%i-{n}", name: n{n}' for n in range(100)]
    daemon.start(configuration(daemon, sockets, "    instances: 2\n").replace("/said]", '/said%i]'))
    for number in (1, 2):
        what = said(daemon, f"said{number}")
        assert what["LISTEN_FDS"] == "100" and what["LISTEN_PID"] == str(what["pid"]) and what["beyond"] == []
        assert what["LISTEN_FDNAMES"] == ":".join(f"n{n}" for n in range(100))
        assert [one[2] for one in what["sockets"]] == [f"{daemon.folder}/{number}-{n}" for n in range(100)]
    daemon.baton("scale", "web=1")
    until(lambda: not os.path.exists(f"{daemon.folder}/2-0"), "the end of an instance's sockets")
    assert ask(f"{daemon.folder}/1-0", socket.AF_UNIX) == daemon.pid("web.1")


if __name__ == "__main__":
    main()
