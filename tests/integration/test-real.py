#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Programs that nobody here wrote, supervised: nginx, Redis and PostgreSQL come up, serve, are killed, are started again and
serve what they had, and stop in their own way, with nothing of them left. Each is skipped where it is not installed. TAP on
stdout.
"""

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess

from daemon_tests import HOST, Skip, main, test, until


def program(name, *places):
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin", *places]))
    if not found:
        raise Skip(f"{name} is not installed")
    return found


def let_others_in(folder):
    """Programs that change their user find their files all the same."""
    while os.stat(folder).st_uid == os.getuid() and folder not in ("/", "/tmp"):
        os.chmod(folder, os.stat(folder).st_mode | 0o711)
        folder = os.path.dirname(folder)


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def ask(address, request, family=socket.AF_INET):
    """What a server answers at first, or nothing when there is none."""
    try:
        with socket.socket(family) as client:
            client.settimeout(5)
            client.connect(address)
            client.sendall(request)
            return client.recv(65536)
    except OSError:
        return b""


def crash(daemon, name):
    """SIGKILL to the main process: another one comes up, by policy."""
    before = daemon.status(name)
    os.kill(before["pid"], signal.SIGKILL)
    after = until(lambda: (s := daemon.status(name))["state"] == "up" and s.get("pid", before["pid"]) != before["pid"] and s,
                  f"another {name}", 60)
    assert after["restarts"] == before["restarts"] + 1, after
    assert after["last_exit"]["exit"] == {"how": "signaled", "status": 9}, after["last_exit"]


def stopped_well(daemon, name):
    daemon.baton("stop", name)
    status = daemon.status(name)
    assert status["state"] == "down", status
    assert status["last_exit"]["cause"] == "stopped", status["last_exit"]


@test
def nginx(daemon):
    command, port = program("nginx"), free_port()
    site = os.path.join(daemon.folder, "site")
    os.mkdir(site, 0o755)
    let_others_in(daemon.folder)
    with open(os.path.join(site, "index.html"), "w", encoding="utf-8") as file:
        file.write("served by a runner")
    settings = os.path.join(daemon.folder, "nginx.conf")
    with open(settings, "w", encoding="utf-8") as file:
        file.write(f"""
            daemon off; pid {daemon.folder}/nginx.pid; error_log stderr; worker_processes 2;
            events {{ worker_connections 64; }}
            http {{
                access_log /dev/stdout;
                client_body_temp_path {daemon.folder}/t1; proxy_temp_path {daemon.folder}/t2;
                fastcgi_temp_path {daemon.folder}/t3; uwsgi_temp_path {daemon.folder}/t4;
                scgi_temp_path {daemon.folder}/t5;
                server {{ listen {HOST}:{port}; root {site}; }}
            }}
            """)
    daemon.start(f"""
runners:
  web:
    command: [{command}, -c, {settings}, -e, stderr]
    stop_signal: QUIT
    backoff: {{ initial: 10ms }}
""")
    request = b"GET / HTTP/1.0\r\n\r\n"
    serves = lambda: b"served by a runner" in ask((HOST, port), request)
    until(serves, "a page")
    until(lambda: "GET / HTTP/1.0" in daemon.baton("logs", "web").stdout, "the line of its access log")
    daemon.baton("signal", "web", "HUP")  # its own reload: the workers change, the master stays
    until(serves, "a page after its reload")
    crash(daemon, "web")  # its workers go with it: the port is free for the next one
    until(serves, "a page of the next one")
    assert daemon.status("web")["restarts"] == 1
    stopped_well(daemon, "web")
    assert not serves()


@test
def redis(daemon):
    command = program("redis-server")
    address = os.path.join(daemon.folder, "redis.socket")
    daemon.start(f"""
runners:
  store:
    command: [{command}, --port, "0", --unixsocket, {address}, --dir, {daemon.folder}, --appendonly, "yes", --appendfsync,
              always]
    backoff: {{ initial: 10ms }}
""")
    say = lambda words: ask(address, words.encode() + b"\r\n", socket.AF_UNIX)
    until(lambda: say("PING") == b"+PONG\r\n", "an answer of Redis")
    assert say("SET colour green") == b"+OK\r\n"
    crash(daemon, "store")
    until(lambda: say("PING") == b"+PONG\r\n", "an answer of the next one")
    assert say("GET colour") == b"$5\r\ngreen\r\n"
    daemon.baton("restart", "store")
    until(lambda: say("GET colour") == b"$5\r\ngreen\r\n", "an answer after its restart")
    assert "oO0OoO0OoO0Oo" in daemon.baton("logs", "store", "-n", "1000").stdout
    stopped_well(daemon, "store")
    assert daemon.status("store")["last_exit"]["exit"] == {"how": "exited", "status": 0}


@test
def postgresql(daemon):
    places = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    command, initdb, psql = (program(name, *places) for name in ("postgres", "initdb", "psql"))
    if os.getuid() != 0:
        raise Skip("its user can be changed by root only")
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise Skip("there is no user postgres") from None
    data, sockets = os.path.join(daemon.folder, "data"), os.path.join(daemon.folder, "sockets")
    let_others_in(daemon.folder)
    for folder in (data, sockets):
        os.mkdir(folder, 0o700)
        os.chown(folder, user.pw_uid, user.pw_gid)
    as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": data}
    subprocess.run([initdb, "-D", data, "-A", "trust", "--no-sync"], check=True, capture_output=True, **as_user)
    daemon.start(f"""
runners:
  db:
    command: [{command}, -D, {data}, -k, {sockets}, -h, ""]
    user: postgres
    stop_signal: INT   # its fast shutdown
    backoff: {{ initial: 50ms, max: 1s }}
""")

    def sql(text):
        done = subprocess.run([psql, "-h", sockets, "-Atqc", text, "postgres"], text=True, capture_output=True, check=False,
                              **as_user)
        return done.stdout.strip() if done.returncode == 0 else None

    until(lambda: sql("SELECT 1") == "1", "an answer of PostgreSQL", 30)
    assert sql("CREATE TABLE colours (name text); INSERT INTO colours VALUES ('green')") == ""
    crash(daemon, "db")  # its children are in sessions of their own, and notice
    until(lambda: sql("SELECT name FROM colours") == "green", "what was committed", 60)
    lines = daemon.baton("logs", "db", "-n", "1000").stdout
    assert "database system was not properly shut down; automatic recovery in progress" in lines, lines
    stopped_well(daemon, "db")
    assert "database system is shut down" in daemon.baton("logs", "db").stdout


for each in (nginx, redis, postgresql):
    each.seconds = 120

if __name__ == "__main__":
    main()
