#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""baton upgrade of many: those whose program on the disk, or configuration, is another one now, in batches; one that fails is
the last, and the same command goes on with what is left. What has changed is known after a takeover and after a death of the
supervisor, too."""

import json
import os
import shutil
import signal
import subprocess

import daemon_tests
from daemon_tests import BATON, BUILD, main, owned, test, until, write_script

daemon_tests.LIBEXEC = daemon_tests.CHECKING

RUNNER = os.path.join(BUILD, "tests", "state-runner")
NAMES = [f"s.{number}" for number in range(1, 6)]


def install(daemon, name="program", source=RUNNER):
    """Puts another file in the place of the one before, as an installation does; its path."""
    path = os.path.join(daemon.folder, name)
    shutil.copy(source, path + ".new")
    os.rename(path + ".new", path)
    return path


def configure(daemon, word="one"):
    """Five that have a state, and what cannot be upgraded."""
    daemon.configure(f"""runners:
  s: {{ command: [{daemon.folder}/program, --plan, {daemon.folder}/plan-%n], ready: hello, instances: 5, env: {{ W: {word} }} }}
  echo: {{ command: [{daemon.folder}/echo], ready: hello }}
  plain: {{ command: [{daemon.folder}/plain], env: {{ W: {word} }} }}
  down: {{ command: [{daemon.folder}/program], ready: hello, autostart: false }}
""")


def start(daemon):
    install(daemon)
    install(daemon, "echo", os.path.join(BUILD, "baton-runner-echo"))
    write_script(daemon, "plain", "#!/bin/sh\nexec sleep 1000\n")
    configure(daemon)
    with open(daemon.configuration, encoding="utf-8") as file:
        daemon.start(file.read())
    for name in (*NAMES, "echo", "plain"):
        daemon.until_state(name, "up")


def plan(daemon, name, line):
    with open(os.path.join(daemon.folder, f"plan-{name}"), "w", encoding="utf-8") as file:
        file.write(line)


def answers(daemon):
    return daemon.baton("status", "--json", check=False).returncode == 0


def kill_supervisor(daemon):
    """Until there is another one."""
    supervisor = daemon.supervisor()
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: answers(daemon) and daemon.supervisor() != supervisor, "another supervisor")


def pids(daemon):
    return {name: daemon.pid(name) for name in NAMES}


def upgrade(daemon, *options, code=0):
    """The outcomes, by name."""
    done = daemon.baton("upgrade", *options, "--json", check=False, timeout=120)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    outcomes = {}
    for line in done.stdout.splitlines():
        one = json.loads(line)
        assert one["name"] not in outcomes, line
        outcomes[one["name"]] = one["outcome"]
    return outcomes


def are(outcome, *names):
    return {name: outcome for name in names}


OTHERS = are("current", "echo", "plain", "down")


@test
def all_whose_program_is_another(daemon):
    start(daemon)
    before = pids(daemon)
    assert upgrade(daemon, "--all") == {**are("current", *NAMES), **OTHERS}
    assert daemon.baton("upgrade", "--all").stdout == "8 up to date\n"
    assert pids(daemon) == before
    install(daemon)
    assert upgrade(daemon, "--changed", "--check") == {**are("possible", *NAMES), **OTHERS}
    assert pids(daemon) == before
    assert upgrade(daemon, "--changed", "s.1", "s.2", "echo") == {**are("upgraded", "s.1", "s.2"), "echo": "current"}
    done = daemon.baton("upgrade", "--all", "--batch", 2, timeout=60).stdout.splitlines()
    assert sorted(line.split(":")[0] for line in done[:2]) == ["s.3", "s.4"] and done[2].startswith("s.5: "), done
    assert done[3:] == ["3 upgraded, 5 up to date"], done
    after = pids(daemon)
    assert not set(after.values()) & set(before.values())
    assert upgrade(daemon, "--all", "--force") == {**are("upgraded", *NAMES), **OTHERS}
    assert not set(pids(daemon).values()) & set(after.values())


@test
def one_that_fails_is_the_last(daemon):
    start(daemon)
    before = pids(daemon)
    install(daemon)
    plan(daemon, "s.3", "restore=refuse\n")
    done = upgrade(daemon, "--all", "--batch", 2, code=26)
    assert done == {**are("upgraded", "s.1", "s.2", "s.4"), "s.3": "failed", "s.5": "untouched", **OTHERS}, done
    after = pids(daemon)
    assert {name for name in NAMES if after[name] == before[name]} == {"s.3", "s.5"}, (before, after)
    # Again: nothing is done twice, and it ends at the same one; by people's eyes, too.
    done = daemon.baton("upgrade", "--all", check=False, timeout=60)
    assert done.returncode == 26 and done.stdout == "s.5: untouched\n1 failed, 1 untouched, 6 up to date\n", done.stdout
    assert "baton: upgrade s.3: ABORTED: upgrade failed while crossing: the successor: Takeover" in done.stderr
    os.unlink(os.path.join(daemon.folder, "plan-s.3"))
    assert upgrade(daemon, "--all") == {**are("current", "s.1", "s.2", "s.4"), **are("upgraded", "s.3", "s.5"), **OTHERS}
    # Names without --batch: each for itself, as ever.
    plan(daemon, "s.1", "restore=refuse\n")
    done = upgrade(daemon, "s", code=26)
    assert done == {"s.1": "failed", **are("upgraded", *NAMES[1:])}, done


@test
def what_cannot_be_upgraded_is_told(daemon):
    start(daemon)
    install(daemon, "echo", os.path.join(BUILD, "baton-runner-echo"))
    write_script(daemon, "plain", "#!/bin/sh\nexec sleep 1001\n")
    install(daemon)
    done = daemon.baton("upgrade", "--all", "--batch", 8, check=False, timeout=60)
    assert done.returncode == 25 and done.stdout.splitlines()[-1] == "5 upgraded, 2 to be restarted, 1 up to date", done.stdout
    assert "upgrade echo: FAILED_PRECONDITION: keeps its state to itself" in done.stderr, done.stderr
    assert "upgrade plain: FAILED_PRECONDITION: is a plain program without" in done.stderr, done.stderr
    daemon.baton("restart", "echo", "plain")
    assert upgrade(daemon, "--all") == {**are("current", *NAMES), **OTHERS}


@test
def it_is_known_after_a_takeover_and_a_death(daemon):
    start(daemon)

    def follow():
        kill_supervisor(daemon)
        for name in (*NAMES, "echo", "plain"):
            daemon.until_state(name, "up")

    for another in (lambda: daemon.baton("takeover"), follow):
        another()
        assert upgrade(daemon, "--all") == {**are("current", *NAMES), **OTHERS}
        install(daemon)
        another()
        assert upgrade(daemon, "--changed") == {**are("upgraded", *NAMES), **OTHERS}


@test
def so_is_another_configuration(daemon):
    start(daemon)
    configure(daemon, "two")
    for name in NAMES[:2]:
        plan(daemon, name, "restore=refuse\n")
    assert daemon.baton("reload", check=False, timeout=60).returncode == 26
    for name in NAMES[:2]:
        os.unlink(os.path.join(daemon.folder, f"plan-{name}"))
    assert upgrade(daemon, "--changed") == {**are("current", *NAMES), **OTHERS}
    kill_supervisor(daemon)
    daemon.until_state("s.1", "up")
    assert upgrade(daemon, "--all") == {**are("upgraded", *NAMES[:2]), **are("current", *NAMES[2:]), **OTHERS}
    assert upgrade(daemon, "--all") == {**are("current", *NAMES), **OTHERS}


@test
def it_goes_on_after_the_death_of_the_supervisor(daemon):
    start(daemon)
    install(daemon)
    plan(daemon, "s.2", "restore=hang\n")
    running = subprocess.Popen([BATON, "upgrade", "--all", "--json"], env=daemon.environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    owned.add(running.pid)
    until(lambda: daemon.status("s.2").get("upgrade_phase") == "crossing", "the second one")
    supervisor = daemon.supervisor()
    os.kill(supervisor, signal.SIGKILL)
    out, err = running.communicate(timeout=60)
    outcomes = {(one := json.loads(line))["name"]: one["outcome"] for line in out.splitlines()}
    assert running.returncode == 1 and "the supervisor is gone" in err, (running.returncode, err)
    assert outcomes == {"s.1": "upgraded", "s.2": "failed", **are("untouched", *NAMES[2:]), **OTHERS}, outcomes
    plan(daemon, "s.2", "")
    until(lambda: answers(daemon) and daemon.supervisor() != supervisor, "another supervisor")
    for name in NAMES:
        until(lambda: daemon.status(name).get("service_state") == 2, "its service")
    assert upgrade(daemon, "--all") == {"s.1": "current", **are("upgraded", *NAMES[1:]), **OTHERS}


@test
def wrong_words(daemon):
    start(daemon)
    for words, text in ((["--all", "s.1"], "--all goes with no name"), ([], "the name of a runner is missing"),
                        (["s.1", "--force"], "--force goes with --all or --changed"),
                        (["--all", "--exec", RUNNER], "--exec goes with names alone"),
                        (["s.1", "--exec", ""], "--exec wants the path of a program"),
                        (["--all", "--batch", "0"], "--batch wants a number from 1 to 256"),
                        (["--all", "--no-wait"], "--no-wait does not go with batches")):
        done = daemon.baton("upgrade", *words, check=False)
        assert done.returncode == 2 and text in done.stderr, (words, done.returncode, done.stderr)
    assert daemon.baton("upgrade", "--changed", "nobody", check=False).returncode == 21


if __name__ == "__main__":
    main()
