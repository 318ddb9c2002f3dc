#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Upgrades under HTTP load: nginx, passed its sockets, and the example server, which hands its connections over. What the
clients count is compared with an upgrade of nginx's own. Also upgrades of plain programs that fail: the old one serves on."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

from daemon_tests import BUILD, FACTOR, Skip, TIMEOUT, is_alive, main, test, until

LOAD = os.path.join(BUILD, "bench", "http-load")
HTTP = os.path.join(BUILD, "examples", "http")
UPGRADES = int(os.environ.get("BATON_TEST_UPGRADES", "20"))

NGINX = """
daemon {daemon};
master_process on;
worker_processes 2;
pid {folder}/{name}.pid;
error_log {folder}/{name}.log notice;
worker_shutdown_timeout 5s;
events {{ worker_connections 512; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello\\n"; }} }}
}}
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def nginx(folder, port, daemon="off", name="nginx"):
    """Its command."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        raise Skip("no nginx: tools/setup")
    path = os.path.join(folder, name + ".conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(NGINX.format(folder=folder, port=port, daemon=daemon, name=name))
    return [program, "-p", folder, "-c", path, "-e", os.path.join(folder, name + ".log")]


class Load:
    """Clients that ask until they are told to stop, and what they have counted."""

    def __init__(self, port, new=4, kept=4):
        self.process = subprocess.Popen([LOAD, str(port), "600", str(new), str(kept), "500"], stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=TIMEOUT)
        return json.loads(out)


# Counted as http-load does: what a client asked for is lost where reading or writing fails.
WRK = """
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format('{"done":%d,"refused":%d,"reset":%d,"failed":%d}\\n', summary.requests, e.connect, e.read + e.write,
                           e.status + e.timeout))
end
"""


class Wrk:
    """The same by wrk, which never rests: one that connects for each request, one that keeps its connections."""

    def __init__(self, folder, port, connections=4):
        program = shutil.which("wrk")
        if not program:
            raise Skip("no wrk: tools/setup")
        script = os.path.join(folder, "count.lua")
        with open(script, "w", encoding="utf-8") as file:
            file.write(WRK)
        self.processes = {kind: subprocess.Popen([program, "-t1", f"-c{connections}", "-d600s", "--timeout", "60s", "-s", script,
                                                  *words, f"http://127.0.0.1:{port}/"], stdout=subprocess.PIPE, text=True)
                          for kind, words in (("new", ["-H", "Connection: close"]), ("kept", []))}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.communicate()

    def end(self):
        for process in self.processes.values():
            process.send_signal(signal.SIGINT)
        return {kind: json.loads(process.communicate(timeout=TIMEOUT)[0].splitlines()[-1])
                for kind, process in self.processes.items()}


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return client.makefile("rb").read().startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def upgrade(daemon, name, n, seconds=60):
    for _ in range(n):
        before = daemon.pid(name)
        daemon.baton("upgrade", name, timeout=seconds)
        assert daemon.pid(name) not in (0, before)


def own_upgrade(folder, before):
    """As nginx's manual has it: USR2 makes another master, QUIT ends the first. The new master's pid."""
    path = os.path.join(folder, "own.pid")

    def pid():
        try:
            with open(path, encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            return 0
    os.kill(before, signal.SIGUSR2)
    after = until(lambda: pid() if pid() != before else 0, "another nginx")
    until(lambda: len(os.listdir(f"/proc/{after}/task")) and open(f"/proc/{after}/task/{after}/children").read().split(),
          "its workers")
    os.kill(before, signal.SIGQUIT)
    until(lambda: not is_alive(before), "the end of the first")
    return after


def compare_nginx(daemon, load_of):
    """20 upgrades, and as many of nginx's own under the same clients: no new connection is refused or reset, and of those
    that are kept no more are reset than with nginx's own."""
    port = free_port()
    words = nginx(daemon.folder, port)
    daemon.start(f"runners:\n  web:\n    command: {json.dumps(words)}\n    sockets: [ {{ tcp: \"127.0.0.1:{port}\" }} ]\n"
                 "    socket_variable: { name: NGINX, format: \"%f;\" }\n    upgrade: { signal: QUIT, health: 200ms }\n")
    until(lambda: answers(port), "an answer of nginx")
    with load_of(port) as load:
        upgrade(daemon, "web", UPGRADES)
        ours = load.end()
    daemon.baton("stop", "web")
    port = free_port()
    words = nginx(daemon.folder, port, "on", "own")
    subprocess.run(words, check=True)
    until(lambda: answers(port), "an answer of nginx")
    with open(os.path.join(daemon.folder, "own.pid"), encoding="ascii") as file:
        pid = int(file.read())
    try:
        with load_of(port) as load:
            for _ in range(UPGRADES):
                for _ in range(20):  # each client is connected again
                    until(lambda: answers(port), "an answer of nginx")
                pid = own_upgrade(daemon.folder, pid)
            theirs = load.end()
    finally:
        os.kill(pid, signal.SIGQUIT)
        until(lambda: not is_alive(pid), "the end of nginx")
    print("# ours", json.dumps(ours))
    print("# nginx's own", json.dumps(theirs))
    assert ours["new"]["done"] > 100 and ours["kept"]["done"] > 100 and theirs["kept"]["done"] > 100
    assert ours["new"]["refused"] == ours["new"]["reset"] == ours["new"]["failed"] == 0, ours
    assert ours["kept"]["refused"] == ours["kept"]["failed"] == 0, ours
    # nginx ends every kept connection, whoever upgrades it. Which of them has nothing asked on it just then is chance.
    assert ours["kept"]["reset"] <= 4 * UPGRADES, ours
    assert ours["kept"]["reset"] <= theirs["kept"]["reset"] + UPGRADES, (ours, theirs)


@test
def nginx_under_load(daemon):
    compare_nginx(daemon, Load)


@test
def nginx_under_wrk(daemon):
    compare_nginx(daemon, lambda port: Wrk(daemon.folder, port))


nginx_under_load.seconds = nginx_under_wrk.seconds = 20 * TIMEOUT


@test
def example_under_wrk(daemon):
    """The example server: nothing is refused, nothing is reset."""
    port = free_port()
    daemon.start(f"runners:\n  http: {{ command: [{HTTP}, \"{port}\"], ready: hello }}\n")
    until(lambda: answers(port), "an answer")
    with Wrk(daemon.folder, port) as load:
        upgrade(daemon, "http", UPGRADES)
        count = load.end()
    print("# example", json.dumps(count))
    for kind in ("new", "kept"):
        assert count[kind]["done"] > 100, count
        assert count[kind]["refused"] == count[kind]["reset"] == count[kind]["failed"] == 0, count


@test
def example_under_load(daemon):
    """The same, and no kept connection is ended."""
    port = free_port()
    daemon.start(f"runners:\n  http: {{ command: [{HTTP}, \"{port}\"], ready: hello }}\n")
    until(lambda: answers(port), "an answer")
    with Load(port) as load, socket.create_connection(("127.0.0.1", port)) as half:
        half.sendall(b"GET / HTTP/1.1\r\nHo")
        upgrade(daemon, "http", UPGRADES)
        half.sendall(b"st: x\r\n\r\n")
        answer = half.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200") and f"pid {daemon.pid('http')}, request 1 of".encode() in answer, answer
        count = load.end()
    print("# example", json.dumps(count))
    for kind in ("new", "kept"):
        assert count[kind]["done"] > 100, count
        assert count[kind]["refused"] == count[kind]["reset"] == count[kind]["failed"] == 0, count
    assert count["kept"]["closed"] == 0, count


example_under_load.seconds = example_under_wrk.seconds = 12 * TIMEOUT


# Answers each connection by its pid; ends at once where a file says so; at USR1 finishes.
SERVER = r"""
import os, signal, socket, sys, time
def say(text):
    if "NOTIFY_SOCKET" in os.environ:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(text, os.environ["NOTIFY_SOCKET"])
def finish(*_):
    with open(sys.argv[1] + "/finished", "a") as file:
        file.write(f"{os.getpid()}\n")
    os._exit(0)
signal.signal(signal.SIGUSR1, finish)
listener = socket.socket(fileno=3)
if not os.path.exists(sys.argv[1] + "/silent"):
    say(b"READY=1")
while True:
    client, _ = listener.accept()
    client.sendall(str(os.getpid()).encode())
    client.close()
"""


def server(daemon, more):
    with open(os.path.join(daemon.folder, "server.py"), "w", encoding="utf-8") as file:
        file.write(SERVER)
    script = f"test ! -e {daemon.folder}/broken || exit 3; exec {sys.executable} {daemon.folder}/server.py {daemon.folder}"
    daemon.start(f"runners:\n  web:\n    command: [sh, -c, {json.dumps(script)}]\n"
                 f"    sockets: [ {{ unix: {daemon.folder}/s }} ]\n{more}")
    pid = daemon.until_state("web", "up")["pid"]
    assert ask(daemon) == pid
    return pid


def ask(daemon):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(daemon.folder + "/s")
        return int(client.makefile("rb").read())


@test
def the_old_one_is_told_to_finish(daemon):
    """By the signal that is configured; until the new one is READY it is told nothing."""
    first = server(daemon, "    ready: notify\n    upgrade: { signal: USR1 }\n")
    done = daemon.baton("upgrade", "web")
    second = daemon.pid("web")
    assert second != first, done
    until(lambda: not is_alive(first), "the end of the first")
    with open(daemon.folder + "/finished", encoding="utf-8") as file:
        assert file.read() == f"{first}\n"
    assert ask(daemon) == second and daemon.status("web")["restarts"] == 0


@test
def failures_keep_the_old_one(daemon):
    """One that ends, one that is never READY: each has its reason, and the first one serves on."""
    first = server(daemon, f"    ready: notify\n    upgrade: {{ signal: USR1, timeout: {FACTOR:g}s }}\n")
    for name, words in (("broken", "exited with status 3 before it was ready"),
                        ("silent", f"while starting: the successor is not ready: not within {FACTOR:g} s")):
        path = os.path.join(daemon.folder, name)
        with open(path, "w", encoding="utf-8"):
            pass
        done = daemon.baton("upgrade", "web", check=False)
        assert done.returncode != 0 and words in done.stderr, done
        assert daemon.pid("web") == first == ask(daemon)
        os.unlink(path)
    until(lambda: len(daemon.processes()) and not [p for p in daemon.processes() if p not in
                                                   (first, daemon.supervisor(), daemon.keeper())], "the end of the others")
    daemon.baton("upgrade", "web")
    assert daemon.pid("web") != first


@test
def all_that_write_are_heard(daemon):
    """Predecessors that do not finish, who serves, a successor that fails: none loses a line to the others."""
    script = r"""
import os, signal, socket, sys, time
fails = os.path.exists(sys.argv[1] + "/fails")
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
for n in range(1, 1 << 30):
    os.write(1 + n % 2, b"%d line %d\n" % (os.getpid(), n))
    if n == 20 and not fails:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    if n == 40 and fails:
        os._exit(3)
    time.sleep(0.002)
"""
    with open(os.path.join(daemon.folder, "writes.py"), "w", encoding="utf-8") as file:
        file.write(script)
    daemon.start(f"runners:\n  web:\n    command: [{sys.executable}, {daemon.folder}/writes.py, {daemon.folder}]\n"
                 f"    sockets: [ {{ unix: {daemon.folder}/s }} ]\n    ready: notify\n    log: {{ ring_size: 16M }}\n"
                 "    upgrade: { signal: USR1, drain: 1h }\n    stop_timeout: 100ms\n")
    daemon.until_state("web", "up")
    path = os.path.join(daemon.folder, "fails")
    for n in range(6):
        daemon.baton("upgrade", "web")
        with open(path, "w", encoding="utf-8"):
            pass
        assert daemon.baton("upgrade", "web", check=False).returncode != 0
        os.unlink(path)
        if n == 2:
            os.kill(before := daemon.supervisor(), signal.SIGKILL)
            until(lambda: not is_alive(before) and daemon.answers(), "another supervisor")
    assert daemon.status("web")["past"] == 6, daemon.status("web")
    lines = [json.loads(line) for line in daemon.baton("logs", "web", "--json").stdout.splitlines()]
    numbers = {}
    for line in lines:
        pid, word, number = line["text"].split()
        numbers.setdefault((pid, int(number) % 2), []).append(int(number))
    assert daemon.status("web")["log"]["dropped"] == 0 and len(numbers) == 2 * 13, (daemon.status("web")["log"], len(numbers))
    for (pid, first), got in numbers.items():
        assert got == list(range(1 if first else 2, got[-1] + 1, 2)), (pid, got[:50])


@test
def one_that_cannot_say_it_is_ready(daemon):
    """It has to live for a while; one that ends in that time has failed."""
    first = server(daemon, f"    upgrade: {{ signal: USR1, health: {int(800 * FACTOR)}ms }}\n")
    path = os.path.join(daemon.folder, "broken")
    with open(path, "w", encoding="utf-8"):
        pass
    done = daemon.baton("upgrade", "web", check=False)
    assert done.returncode != 0 and "exited with status 3" in done.stderr, done
    assert daemon.pid("web") == first == ask(daemon)
    os.unlink(path)
    daemon.baton("upgrade", "web")
    assert daemon.pid("web") != first


@test
def without_sockets(daemon):
    daemon.start("runners: { web: { command: [sleep, 1000] } }\n")
    daemon.until_state("web", "up")
    done = daemon.baton("upgrade", "web", check=False)
    assert done.returncode != 0 and "is a plain program without 'sockets'" in done.stderr, done


if __name__ == "__main__":
    main()
