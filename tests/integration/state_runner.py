# SPDX-License-Identifier: Apache-2.0
"""The runner tests/state-runner, called `s', as tests use it: its program, its plan, its counter."""

import collections
import os

import daemon_tests

RUNNER = os.path.join(daemon_tests.BUILD, "tests", "state-runner")

Who = collections.namedtuple("Who", "pid name size fds")


def plan(daemon, *lines):
    """What its process is to do, from now on; it was started with --plan PATH, where PATH is daemon.plan."""
    with open(daemon.plan, "w", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))


def call(daemon, method, value=None, check=True):
    words = ["call", "--raw", "s", "--", f"state.Counter/{method}", *([f"string:{value}"] if value is not None else [])]
    return daemon.baton(*words, check=check).stdout


def who(daemon):
    pid, name, size, fds = call(daemon, "Who").split()
    return Who(int(pid), name, int(size), int(fds))
