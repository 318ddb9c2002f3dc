#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Upgrades of servers under the same HTTP clients: ours, and what nginx and HAProxy do by themselves.

    bench/upgrade.py [--upgrades N] [--json FILE]

Each server is asked by 4 clients with a connection for each request and 4 that keep theirs (bench/http-load), all on this
machine's loopback, while it is upgraded N times (20), one after the other. Of each: requests answered, connections refused,
those reset with a request on them, kept ones that the server ended with notice, the longest time in which nobody got an
answer, and the longest that one answer took. A server that is not installed is named, and left out. Last a runner with an
attached client that calls it without a pause, beside one long stream (bench/call-load)."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

BUILD = os.environ.get("abs_top_builddir", os.getcwd())
BATON = os.path.join(BUILD, "baton")

NGINX = """
daemon {daemon};
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello\\n"; }} }}
}}
"""

HAPROXY = """
global
    hard-stop-after 5s
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 1s
frontend web
    bind {bind}
    http-request return status 200 content-type text/plain string "hello"
"""


class Missing(Exception):
    """A program that is not installed."""


def program(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not found:
        raise Missing(f"{name} is not installed")
    return found


def until(condition, what):
    end = time.monotonic() + 30
    while not (result := condition()):
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not come")
        time.sleep(0.002)
    return result


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client.makefile("rb").read().startswith(b"HTTP/1.1 200")
    return False


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def number(path):
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        return int(file.read())
    return 0


def children(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]
    return []


def is_alive(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


# ------------------------------------------------------------------------------------------------------------ candidates


class Baton:
    """A runner of a supervisor; upgraded by `baton upgrade'."""

    def __init__(self, folder, configuration):
        self.environment = {**os.environ, "BATON_SOCKET": os.path.join(folder, "run", "control"),
                            "BATON_LIBEXEC": BUILD, "BATON_PROGRAM": BATON}
        with open(os.path.join(folder, "supervise.log"), "wb") as log:
            self.process = subprocess.Popen(
                [BATON, "supervise", "--runtime-dir", os.path.join(folder, "run"), "--state-dir", os.path.join(folder, "state"),
                 "--log-dir", os.path.join(folder, "log"), write(folder, "baton.yaml", configuration)],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def upgrade(self):
        subprocess.run([BATON, "upgrade", "web"], env=self.environment, check=True, capture_output=True)

    def is_up(self):
        done = subprocess.run([BATON, "status", "--json", "web"], env=self.environment, capture_output=True, check=False)
        return done.returncode == 0 and json.loads(done.stdout)["runners"][0]["state"] == "up"

    def end(self):
        self.process.terminate()
        self.process.wait()


def example(folder, port):
    return Baton(folder, f"runners: {{ web: {{ command: [{BUILD}/examples/http, '{port}'], ready: hello }} }}\n")


def baton_nginx(folder, port):
    path = write(folder, "nginx.conf", NGINX.format(folder=folder, port=port, daemon="off"))
    words = json.dumps([program("nginx"), "-p", folder, "-c", path, "-e", folder + "/nginx.log"])
    return Baton(folder, f"runners:\n  web:\n    command: {words}\n    sockets: [ {{ tcp: '127.0.0.1:{port}' }} ]\n"
                         "    socket_variable: { name: NGINX, format: '%f;' }\n    upgrade: { signal: QUIT, health: 200ms }\n")


def baton_haproxy(folder, port):
    path = write(folder, "haproxy.cfg", HAPROXY.format(bind='"${BIND}"'))
    words = json.dumps([program("haproxy"), "-db", "-f", path])
    return Baton(folder, f"runners:\n  web:\n    command: {words}\n    sockets: [ {{ tcp: '127.0.0.1:{port}' }} ]\n"
                         "    socket_variable: { name: BIND, format: 'fd@%f', separator: ',' }\n"
                         "    upgrade: { signal: USR1 }\n")


class Nginx:
    """Another master by USR2, the first one told to QUIT."""

    def __init__(self, folder, port):
        self.pid_file = os.path.join(folder, "nginx.pid")
        path = write(folder, "nginx.conf", NGINX.format(folder=folder, port=port, daemon="on"))
        subprocess.run([program("nginx"), "-p", folder, "-c", path, "-e", folder + "/nginx.log"], check=True)
        self.pid = until(lambda: number(self.pid_file), "nginx")

    def upgrade(self):
        before = self.pid
        os.kill(before, signal.SIGUSR2)
        self.pid = until(lambda: (n := number(self.pid_file)) != before and n, "another nginx")
        until(lambda: len(children(self.pid)) >= 2, "its workers")
        os.kill(before, signal.SIGQUIT)
        until(lambda: not is_alive(before), "the end of the first nginx")

    def end(self):
        os.kill(self.pid, signal.SIGQUIT)
        until(lambda: not is_alive(self.pid), "the end of nginx")


class Haproxy:
    """A master with workers, which makes new ones at USR2."""

    def __init__(self, folder, port):
        path = write(folder, "haproxy.cfg", HAPROXY.format(bind=f"127.0.0.1:{port}"))
        self.process = subprocess.Popen([program("haproxy"), "-W", "-db", "-f", path], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        until(lambda: children(self.process.pid), "a worker of HAProxy")

    def upgrade(self):
        before = children(self.process.pid)
        asked = [0.0]

        def follows():
            if time.monotonic() - asked[0] > 0.5:  # one that is asked while it is still at the last reload does not hear it
                self.process.send_signal(signal.SIGUSR2)
                asked[0] = time.monotonic()
            return set(children(self.process.pid)) - set(before)
        until(follows, "another worker")
        until(lambda: not any(is_alive(pid) for pid in before), "the end of the first worker")

    def end(self):
        self.process.terminate()
        self.process.wait()


CANDIDATES = (("example server, baton upgrade", example), ("nginx, baton upgrade", baton_nginx), ("nginx, USR2", Nginx),
              ("HAProxy, baton upgrade", baton_haproxy), ("HAProxy, reload (USR2)", Haproxy))


# ------------------------------------------------------------------------------------------------------------- measuring


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run_upgrades(server, upgrades):
    """How long they took, one after the other."""
    began = time.monotonic()
    for _ in range(upgrades):
        server.upgrade()
    return time.monotonic() - began


def measure(make, upgrades):
    with tempfile.TemporaryDirectory(prefix="bench-upgrade-") as folder:
        port = free_port()
        server = make(folder, port)
        try:
            until(lambda: answers(port), "an answer")
            load = subprocess.Popen([os.path.join(BUILD, "bench", "http-load"), str(port), "600", "4", "4", "500"],
                                    stdout=subprocess.PIPE, text=True)
            time.sleep(0.3)
            took = run_upgrades(server, upgrades)
            load.send_signal(signal.SIGTERM)
            out, _ = load.communicate()
        finally:
            server.end()
    return {**json.loads(out), "upgrade_us": int(took / upgrades * 1e6)}


def measure_calls(upgrades):
    """A runner that counts, and a client with a connection of its own: calls without a pause, beside one long stream."""
    with tempfile.TemporaryDirectory(prefix="bench-upgrade-") as folder:
        server = Baton(folder, f"runners: {{ web: {{ command: [{BUILD}/examples/counter], ready: hello, "
                               "upgrade: { drain: 1h } } }\n")
        try:
            until(server.is_up, "the runner")
            load = subprocess.Popen([os.path.join(BUILD, "bench", "call-load"), "web", "600", "100000"],
                                    env=server.environment, stdout=subprocess.PIPE, text=True)
            load.stdout.readline()
            took = run_upgrades(server, upgrades)
            load.send_signal(signal.SIGTERM)
            out, _ = load.communicate()
        finally:
            server.end()
    return {**json.loads(out), "upgrade_us": int(took / upgrades * 1e6)}


def print_calls(one):
    print(f"\n{'':30} {'calls':>8} {'failed':>8} {'items':>11} {'disordered':>12} {'ended':>6} {'gap ms':>7} "
          f"{'slowest ms':>11} {'upgrade ms':>11}")
    print(f"{'attached client, baton upgrade':30} {one['calls']:8} {one['failed'] + one['wrong']:8} {one['items']:11} "
          f"{one['disordered']:12} {int(one['lost']):6} {one['gap_us'] / 1e3:7.1f} {one['slowest_us'] / 1e3:11.1f} "
          f"{one['upgrade_us'] / 1e3:11.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrades", type=int, default=20)
    parser.add_argument("--json")
    options = parser.parse_args()
    results = {}
    print(f"{'':30} {'answers':>8} {'refused':>8} {'new: reset':>11} {'kept: reset':>12} {'ended':>6} {'gap ms':>7} "
          f"{'slowest ms':>11} {'upgrade ms':>11}")
    for name, make in CANDIDATES:
        try:
            one = results[name] = measure(make, options.upgrades)
        except Missing as why:
            print(f"{name:30} left out: {why}")
            continue
        new, kept = one["new"], one["kept"]
        print(f"{name:30} {new['done'] + kept['done']:8} {new['refused'] + kept['refused']:8} {new['reset']:11} "
              f"{kept['reset']:12} {kept['closed']:6} {one['gap_us'] / 1e3:7.1f} "
              f"{max(new['slowest_us'], kept['slowest_us']) / 1e3:11.1f} {one['upgrade_us'] / 1e3:11.1f}", flush=True)
    results["attached client, baton upgrade"] = measure_calls(options.upgrades)
    print_calls(results["attached client, baton upgrade"])
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
