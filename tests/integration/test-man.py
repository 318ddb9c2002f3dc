#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The manual pages: groff has nothing to say against them, baton(1) has every command and option that the help tells of,
and the exit codes; what the other pages point to is there."""

import os
import re
import shutil
import subprocess

from daemon_tests import BATON, BUILD, Skip, main, test

SOURCE = os.environ.get("abs_top_srcdir", os.path.join(os.path.dirname(__file__), "../.."))
PAGES = [os.path.join(BUILD, "docs/man/baton.1"), os.path.join(BUILD, "docs/man/baton-protocol.7"),
         os.path.join(SOURCE, "docs/man/baton.yaml.5")]


def output(*command, **more):
    return subprocess.run(command, text=True, capture_output=True, check=True, **more)


def page(path):
    """As it is written, without the escapes."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for escape, character in ((r"\-", "-"), (r"\(ti", "~"), (r"\(ha", "^"), (r"\(aq", "'"), (r"\(ga", "`"), (r"\&", "")):
        text = text.replace(escape, character)
    return text.replace("\\e", "\\")


def section(text, title, level):
    return text.partition(f"\n.{level} {title}\n")[2].partition(f"\n.{level} ")[0]


@test
def pages_have_no_faults(_daemon):
    if not shutil.which("groff"):
        raise Skip("groff is not installed")
    for path in PAGES:
        done = output("groff", "-ww", "-man", "-Tutf8", "-z", path)
        assert not done.stdout and not done.stderr, done.stderr
        if shutil.which("man"):
            done = output("man", "--warnings", "-l", path, env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"})
            assert "NAME" in done.stdout and not done.stderr, done.stderr


@test
def every_command_and_option(_daemon):
    text = page(PAGES[0])
    commands = re.findall(r"^  ([a-z]+)  +\S", output(BATON, "--help").stdout, re.M)
    assert len(commands) >= 20, commands
    found = re.findall(r"^\.SS (\S+)$", section(text, "COMMANDS", "SH"), re.M)
    assert found == commands, (found, commands)
    for command in commands:
        part = section(text, command, "SS")
        help_text = output(BATON, command, "--help").stdout
        for entry in re.findall(r"^  (-\S*(?: \S+)*?)(?:  .*)?$", help_text, re.M):
            assert f"\n.TP\n.B {entry}\n" in part, (command, entry)
        for word in help_text.split():
            assert word in part or word in ("Usage:", "Example:"), (command, word)


@test
def every_exit_code(_daemon):
    with open(os.path.join(SOURCE, "client/exit-code.h"), encoding="utf-8") as file:
        codes = re.findall(r"EXIT_CODE_\w+ = (\d+),", file.read())
    assert len(codes) > 5, codes
    text = section(page(PAGES[0]), "EXIT STATUS", "SH")
    for code in codes:
        assert re.search(rf"^\.B {code}\b", text, re.M) or code == "16", code


@test
def every_status(_daemon):
    with open(os.path.join(SOURCE, "proto/status.h"), encoding="utf-8") as file:
        statuses = re.findall(r"^\s+STATUS_(\w+)(?: = \d+)?,", file.read(), re.M)
    assert len(statuses) == 17, statuses
    for number, name in enumerate(statuses):
        assert re.search(rf"^\.B {number}\n{name}\b", page(PAGES[1]), re.M), name


main()
