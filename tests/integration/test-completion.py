#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Completion: bash and fish are asked what they would offer, for commands, options, and runners with and without a
supervisor; the file for zsh is at least one that it can read."""

import os
import shutil
import subprocess

from daemon_tests import BUILD, Skip, main, test

SOURCE = os.environ.get("abs_top_srcdir", os.path.join(os.path.dirname(__file__), "../.."))
FOLDER = os.path.join(SOURCE, "docs/completion")
RUNNERS = """
runners:
  web:
    command: [sleep, "1000"]
    instances: 2
  db:
    command: [sleep, "1000"]
"""
# As bash does: the words of the line, and which one is being completed.
BASH = """
. "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_baton 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


def ask(daemon, command):
    environment = {**daemon.environment, "PATH": BUILD + ":" + os.environ["PATH"], "HOME": daemon.folder}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 and not done.stderr, (command, done.returncode, done.stderr)
    return done.stdout.split("\n")[:-1]


def bash(daemon, *words):
    return ask(daemon, ["bash", "--norc", "-c", BASH, "bash", os.path.join(FOLDER, "baton"), "baton", *words])


def fish(daemon, *words):
    if not shutil.which("fish"):
        raise Skip("fish is not installed")
    script = f"source {FOLDER}/baton.fish; complete -C '{' '.join(('baton', *words))}'"
    return [line.split("\t")[0] for line in ask(daemon, ["fish", "--no-config", "-c", script])]


def offers(daemon, shell):
    commands = shell(daemon, "")
    assert {"supervise", "status", "call", "help", "scale"} <= set(commands), commands
    assert sorted(shell(daemon, "res")) == ["reset", "restart"]
    assert {"--help", "--no-wait"} <= {option.rstrip("=") for option in shell(daemon, "stop", "--")}
    assert [option.rstrip("=") for option in shell(daemon, "supervise", "--run")] == ["--runtime-dir"]
    assert shell(daemon, "stop", "w") in ([], [""]), "runners without a supervisor"
    daemon.start(RUNNERS)
    assert sorted(shell(daemon, "stop", "")) == ["db", "web", "web.1", "web.2"]
    assert sorted(shell(daemon, "logs", "web.")) == ["web.1", "web.2"]
    assert shell(daemon, "restart", "web.1", "d") == ["db"]
    assert {"web.1", "web.2"} <= set(shell(daemon, "ping", "web"))
    with open(os.path.join(daemon.folder, "some.yaml"), "w", encoding="utf-8"):
        assert os.path.join(daemon.folder, "some.yaml") in shell(daemon, "check", os.path.join(daemon.folder, "some"))


@test
def bash_offers(daemon):
    offers(daemon, bash)
    assert bash(daemon, "signal", "web.1", "US") == ["USR1", "USR2"]
    elsewhere = dict(daemon.environment)
    try:
        daemon.environment["BATON_SOCKET"] = "/nowhere/control"
        assert bash(daemon, "stop", "--socket=" + elsewhere["BATON_SOCKET"], "d") == ["db"]
        assert bash(daemon, "stop", "--socket", "=", elsewhere["BATON_SOCKET"], "d") == ["db"]
        assert bash(daemon, "stop", "d") == [""]
    finally:
        daemon.environment = elsewhere


@test
def fish_offers(daemon):
    offers(daemon, fish)


@test
def zsh_can_read_it(daemon):
    if not shutil.which("zsh"):
        raise Skip("zsh is not installed")
    ask(daemon, ["zsh", "-f", "-n", os.path.join(FOLDER, "_baton")])
    script = f"fpath=({FOLDER} $fpath); autoload -Uz compinit; compinit -D -u; print $_comps[baton]"
    assert ask(daemon, ["zsh", "-f", "-c", script]) == ["_baton"]


main()
