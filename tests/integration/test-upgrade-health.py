#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The health of a runner that was upgraded: asked for a while once it serves; one that is not healthy is replaced by the program
before, with the state that it has by then, while clients go on; one that dies is followed by the program before."""

import json
import os
import shutil
import signal
import subprocess

from daemon_tests import BATON, BUILD, FACTOR, TIMEOUT, children, descendants, is_alive, main, owned, test, until
from state_runner import RUNNER, call, who

COUNTER = os.path.join(BUILD, "examples", "counter")
LOAD = os.path.join(BUILD, "bench", "call-load")
HEALTH = f"{int(300 * FACTOR)}ms"


def start(daemon, program, *arguments, **keys):
    more = "".join(f", {key}: {value}" for key, value in {"upgrade": f"{{ health: {HEALTH} }}", **keys}.items())
    daemon.start(f"runners:\n  s: {{ command: {json.dumps([program, *arguments])}, ready: hello{more} }}\n", BATON_LOG_LEVEL="info")
    return daemon.until_state("s", "up")["pid"]


def copy(daemon, name="program", source=RUNNER):
    """A file in the place of the one before."""
    path = os.path.join(daemon.folder, name)
    shutil.copy(source, path + ".new")
    os.rename(path + ".new", path)
    return path


def script(daemon, name, *words):
    """One that becomes the runner; with @words among its arguments."""
    path = os.path.join(daemon.folder, name)
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\nexec {RUNNER} {' '.join(words)} \"$@\"\n")
    os.chmod(path + ".new", 0o755)
    os.rename(path + ".new", path)
    return path


def plan(daemon, name, *lines):
    path = os.path.join(daemon.folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))
    return path


def sick(daemon, name="sick", *lines):
    """A program that says that it is not serving."""
    return script(daemon, name, "--name", "sick", "--plan", plan(daemon, name + ".plan", *(lines or ("health=no",))))


def fails(daemon, text, *options):
    done = daemon.baton("upgrade", "s", *options, check=False, timeout=6 * TIMEOUT)
    assert done.returncode == 26 and text in done.stderr, (done.returncode, done.stdout, done.stderr)
    return done.stderr


def begin(daemon, *options):
    running = subprocess.Popen([BATON, "upgrade", "s", *options], env=daemon.environment, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    owned.add(running.pid)
    return running


def watched(daemon):
    """The pid of the successor, while its health is watched."""
    return until(lambda: (s := daemon.status("s")).get("upgrade_phase") == "watching" and s.get("pid"), "a successor")


def is_alone(daemon, pid):
    def runners():
        return [one for one in descendants(daemon.keeper()) if os.path.basename(exe(one)) in ("state-runner", "program")]
    # That a process has ended is seen here before the supervisor is told.
    until(lambda: runners() == [pid] and "past" not in daemon.status("s"), "the end of the others")
    status = daemon.status("s")
    assert status["state"] == "up" and status["pid"] == pid and "upgrade_phase" not in status, status
    return status


def exe(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:
        return ""


@test
def one_that_is_healthy_stays(daemon):
    before = start(daemon, RUNNER)
    call(daemon, "Add", 5)
    running = begin(daemon, "--json")
    after = watched(daemon)
    assert after != before and who(daemon)[0] == after and running.poll() is None
    done = json.loads(running.communicate(timeout=TIMEOUT)[0])
    assert done["outcome"] == "upgraded" and done["pid"] == after, done
    assert done["upgrade"]["phases_us"]["watching"] >= 300000 and done["upgrade"]["pause_us"] < 300000 * FACTOR, done
    assert is_alone(daemon, after)["upgrades_done"] == 1 and call(daemon, "Get") == "5"


@test
def one_that_is_not_is_replaced_by_the_one_before(daemon):
    before = start(daemon, RUNNER)
    call(daemon, "Add", 5)
    running = begin(daemon, "--exec", sick(daemon))
    middle = watched(daemon)
    assert who(daemon)[:2] == (middle, "sick") and call(daemon, "Add", 2) == "7"
    out, err = running.communicate(timeout=6 * TIMEOUT)
    assert running.returncode == 26 and out == "", (running.returncode, out, err)
    assert "upgrade s: ABORTED: upgrade failed while watching: the successor: Health: it is not serving, for " in err, err
    after = daemon.pid("s")
    assert f"; pid {after} serves" in err and after not in (before, middle), err
    # With what was counted meanwhile, and its configuration as it was.
    assert who(daemon)[:2] == (after, "state") and call(daemon, "Get") == "7"
    status = is_alone(daemon, after)
    assert status["upgrades_failed"] == 1 and not status.get("upgrades_done") and status["restarts"] == 0, status
    there, back = status["upgrades"]
    assert there["phase"] == "watching" and not there["done"] and back["done"] and back["back"], status["upgrades"]
    daemon.baton("restart", "s")
    assert who(daemon)[1] == "state"
    events = daemon.baton("events", "--since", 0, "--json").stdout
    kinds = [json.loads(line) for line in events.splitlines() if '"runner_upgraded"' in line]
    assert len(kinds) == 2 and "watching" not in kinds[1].get("text", ""), kinds


@test
def its_file_need_not_be_there_any_more(daemon):
    path = copy(daemon)
    before = start(daemon, path)
    inode = os.stat(f"/proc/{before}/exe").st_ino
    sick(daemon, "program")
    fails(daemon, "upgrade failed while watching: the successor: Health: it is not serving")
    after = daemon.pid("s")
    assert after != before and os.stat(f"/proc/{after}/exe").st_ino == inode and who(daemon)[1] == "state"
    is_alone(daemon, after)
    # It is not what would be started now, and so is tried again by whoever looks for what has changed.
    assert json.loads(daemon.baton("upgrade", "--changed", "--check", "--json").stdout)["outcome"] == "possible"
    copy(daemon)
    assert daemon.baton("upgrade", "--changed", timeout=6 * TIMEOUT).returncode == 0 and who(daemon)[1] == "state"


@test
def one_that_dies_is_followed_by_the_one_before(daemon):
    path = copy(daemon)
    inode = os.stat(path).st_ino
    start(daemon, path, upgrade="{ health: 1h }", backoff="{ initial: 10ms }")
    script(daemon, "program", "--name", "new")
    running = begin(daemon)
    middle = watched(daemon)
    assert who(daemon)[1] == "new"
    os.kill(middle, signal.SIGKILL)
    err = running.communicate(timeout=TIMEOUT)[1]
    assert running.returncode == 26 and "upgrade failed while watching: the successor: killed by signal 9" in err, err
    after = until(lambda: (s := daemon.status("s"))["state"] == "up" and s.get("pid"), "the next one")
    assert os.stat(f"/proc/{after}/exe").st_ino == inode and who(daemon)[:2] == (after, "state")
    is_alone(daemon, after)
    # That was for one process: what comes later is of what is at the path.
    os.kill(after, signal.SIGKILL)
    until(lambda: (s := daemon.status("s"))["state"] == "up" and s.get("pid", 0) not in (0, after), "another one")
    assert who(daemon)[1] == "new"


def begin_takeover(daemon):
    """It waits until nothing is being upgraded."""
    taking = subprocess.Popen([BATON, "takeover"], env=daemon.environment, stdout=subprocess.DEVNULL)
    owned.add(taking.pid)
    until(lambda: taking.poll() is not None or sum(exe(pid).endswith("/baton-supervisor") for pid in children(daemon.keeper())) == 2,
          "the successor")
    return taking


@test
def a_takeover_that_waits_for_its_end_is_not_in_its_way(daemon):
    """Nor in the way of others: the way back, and a restart, need starts."""
    before = start(daemon, RUNNER)
    running = begin(daemon, "--exec", sick(daemon))
    middle = watched(daemon)
    taking = begin_takeover(daemon)
    err = running.communicate(timeout=6 * TIMEOUT)[1]
    assert running.returncode == 26 and "Health: it is not serving" in err, err
    assert taking.wait(TIMEOUT) == 0
    after = daemon.pid("s")
    assert after not in (before, middle) and who(daemon)[:2] == (after, "state")


@test
def the_program_before_crosses(daemon):
    """Which is to follow one that died under it, and waits for its turn when there is a takeover."""
    path = copy(daemon)
    inode = os.stat(path).st_ino
    start(daemon, path, upgrade="{ health: 1h }", backoff=f"{{ initial: {int(2 * FACTOR)}s }}")
    script(daemon, "program", "--name", "new")
    running = begin(daemon)
    os.kill(watched(daemon), signal.SIGKILL)
    running.communicate(timeout=TIMEOUT)
    for _ in range(2):
        assert daemon.status("s")["state"] == "backoff"
        daemon.baton("takeover")
    after = until(lambda: (s := daemon.status("s"))["state"] == "up" and s.get("pid"), "the next one")
    assert os.stat(f"/proc/{after}/exe").st_ino == inode and who(daemon)[:2] == (after, "state")


@test
def one_that_does_not_answer(daemon):
    """Nor does it give its state away: it is killed in the end, and followed by the program before."""
    path = copy(daemon)
    inode = os.stat(path).st_ino
    timeout = f"{int(2 * FACTOR)}s"
    start(daemon, path, upgrade=f"{{ health: {HEALTH}, timeout: {timeout} }}", backoff="{ initial: 10ms }", start_timeout=timeout)
    script(daemon, "program", "--name", "new")
    running = begin(daemon)
    middle = watched(daemon)
    os.kill(middle, signal.SIGSTOP)
    err = running.communicate(timeout=6 * TIMEOUT)[1]
    assert running.returncode == 26 and "Health: it does not answer, for " in err, err
    assert "; the way back failed while crossing: the predecessor: Stop: not within " in err and "; it is not running" in err, err
    after = until(lambda: (s := daemon.status("s"))["state"] == "up" and s.get("pid"), "the next one")
    assert not is_alive(middle) and os.stat(f"/proc/{after}/exe").st_ino == inode
    is_alone(daemon, after)


@test
def where_there_is_no_way_back_it_serves_on(daemon):
    path = script(daemon, "program", "--name", "first")
    start(daemon, path)
    call(daemon, "Add", 3)
    script(daemon, "program", "--name", "sick", "--plan", plan(daemon, "sick.plan", "health=no"))
    err = fails(daemon, "; there is no way back: the program before, a script, was replaced; pid ")
    assert f"pid {daemon.pid('s')} serves" in err and who(daemon)[1] == "sick" and call(daemon, "Get") == "3"
    is_alone(daemon, daemon.pid("s"))


@test
def one_before_that_does_not_want_to(daemon):
    start(daemon, RUNNER, "--plan", os.path.join(daemon.folder, "plan"))
    call(daemon, "Add", 3)
    plan(daemon, "plan", "restore=refuse")
    path = script(daemon, "sick", "--name", "sick", "--plan", plan(daemon, "sick.plan", "health=no"), "--plan", "/dev/null", "--")
    err = fails(daemon, "; the way back failed while crossing: the successor: Takeover: ", "--exec", path)
    assert "no restore today" in err and who(daemon)[1] == "sick" and call(daemon, "Add") == "4", err
    status = is_alone(daemon, daemon.pid("s"))
    assert [one["done"] for one in status["upgrades"]] == [False, False], status["upgrades"]
    plan(daemon, "plan")
    assert daemon.baton("upgrade", "s", timeout=6 * TIMEOUT).returncode == 0
    assert who(daemon)[1] == "state" and call(daemon, "Get") == "4"


@test
def a_stop_ends_it(daemon):
    start(daemon, RUNNER, upgrade="{ health: 1h }")
    running = begin(daemon)
    watched(daemon)
    assert "is being upgraded already" in daemon.baton("upgrade", "s", check=False).stderr
    daemon.baton("stop", "s")
    assert running.wait(TIMEOUT) == 0
    status = daemon.status("s")
    assert status["state"] == "down" and status["upgrades_done"] == 1, status


@test
def clients_notice_nothing(daemon):
    """Neither of an upgrade to one that is not healthy, nor of the way back."""
    daemon.start(f"""runners:
  counter: {{ command: [{COUNTER}], ready: hello, upgrade: {{ health: {HEALTH}, drain: 1h }} }}
""")
    daemon.until_state("counter", "up")
    load = subprocess.Popen([LOAD, "counter", "3600", "20000"], stdout=subprocess.PIPE, text=True, env=daemon.environment)
    owned.add(load.pid)
    assert load.stdout.readline() == "begun\n"
    path = os.path.join(daemon.folder, "sick")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\nexec {COUNTER} --unhealthy\n")
    os.chmod(path, 0o755)
    for _ in range(3):
        done = daemon.baton("upgrade", "counter", "--exec", path, check=False, timeout=6 * TIMEOUT)
        assert done.returncode == 26 and "Health: it is not serving" in done.stderr, done.stderr
    load.send_signal(signal.SIGTERM)
    counted = json.loads(load.communicate(timeout=6 * TIMEOUT)[0])
    assert counted["failed"] == 0 and counted["wrong"] == 0 and not counted["lost"] and counted["whole"], counted


if __name__ == "__main__":
    main()
