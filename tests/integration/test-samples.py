#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The samples in the documents, word by word as they are there: what README says is typed, its Python client and its Python
runner, the calls of docs/modules.md, the beginning of docs/protocol.md, the C of docs/upgrade.md, and the configurations.
Only folders and file names that are of this test take the place of those in the text.
"""

import os
import re
import shlex
import signal
import subprocess
import sys

import daemon_tests
from daemon_tests import BUILD, Skip, TIMEOUT, test, until, write_script

SOURCE = os.environ.get("abs_top_srcdir", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PYTHON = "/usr/bin/python3"  # README's: Debian's protobuf module belongs to it


def read(name):
    with open(os.path.join(SOURCE, name), encoding="utf-8") as file:
        return file.read()


def indented(name, begin):
    """The block of @name that is indented by four columns and has a line that begins with @begin, without those columns."""
    lines = read(name).split("\n")
    found = [i for i, line in enumerate(lines) if line.startswith("    " + begin)]
    assert len(found) == 1, f"{name}: {len(found)} lines begin with {begin!r}"
    first = last = found[0]
    while lines[first - 1].startswith("    ") or (not lines[first - 1] and lines[first - 2].startswith("    ")):
        first -= 1
    while lines[last + 1].startswith("    ") or (not lines[last + 1] and lines[last + 2].startswith("    ")):
        last += 1
    return "\n".join(line[4:] for line in lines[first:last + 1]) + "\n"


def fenced(name, language=""):
    """The blocks of @name between lines of ```."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", read(name), re.M | re.S)
    return [text for kind, text in blocks if kind == language]


def commands(block):
    """Command lines, without what is said of them further right."""
    joined = re.sub(r"\\\n +", "", block)
    return [re.sub(r" {5,}.*", "", line) for line in joined.split("\n") if line.strip()]


def environment(daemon):
    return {**daemon.environment, "PATH": BUILD + ":" + os.environ["PATH"]}


def python(daemon):
    """An environment where Python finds the package as it is installed."""
    if not os.access(PYTHON, os.X_OK) or subprocess.run([PYTHON, "-c", "import google.protobuf"], check=False,
                                                        stderr=subprocess.DEVNULL).returncode != 0:
        raise Skip(f"the Debian package python3-protobuf is needed, for {PYTHON}")
    package = os.path.join(daemon.folder, "python", "baton")
    made = os.path.join(BUILD, "python", "baton")
    os.makedirs(package)
    for folder in (os.path.join(SOURCE, "python", "baton"), made):
        for name in os.listdir(folder):
            path = os.path.join(package, name)
            if name.endswith(".py") and not os.path.lexists(path):
                os.symlink(os.path.join(folder, name), path)
    if not os.path.exists(os.path.join(package, "control_pb2.py")):
        raise Skip("the Python package was not built: there was no protoc")
    return {**environment(daemon), "PYTHONPATH": os.path.dirname(package), "PYTHONDONTWRITEBYTECODE": "1"}


def output(daemon, command, env=None):
    """What a command line, for a shell in the daemon's folder, or a list of words prints. It must succeed, without a word."""
    done = subprocess.run(command, shell=isinstance(command, str), env=env or environment(daemon), cwd=daemon.folder,
                          text=True, capture_output=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (0, ""), (command, done)
    return done.stdout


@test
def calls_of_the_readme(daemon):
    lines = commands(indented("README", "baton call --exec baton-runner-echo"))
    assert [output(daemon, line) for line in lines] == ["hello\n", "891568578\n"], lines


@test
def calls_of_modules(daemon):
    lines = [line for block in fenced("docs/modules.md") if block.startswith("baton call ") for line in commands(block)]
    assert len(lines) == 2
    env = {**environment(daemon), "BATON_MODULE_PATH": os.path.join(SOURCE, "examples", "modules")}  # as if installed
    for line in lines:
        assert output(daemon, line, env) == "891568578\n", line


@test
def python_client(daemon):
    env = python(daemon)
    assert output(daemon, [PYTHON, write_script(daemon, "client.py", indented("README", "with baton.Client()"))], env) == "b'hello'\n"


@test
def python_runner(daemon):
    env = python(daemon)
    write_script(daemon, "hello", indented("README", "runner = baton.Runner()"))
    call, = commands(indented("README", "baton call --raw --exec ./hello"))
    assert output(daemon, call, env) == "Hello, world"
    methods = re.search(r"'(baton methods)' what it offers", read("README"))[1]
    assert "hello.Hello/Greet" in output(daemon, f"{methods} --exec ./hello", env)
    run = re.search(r"'(baton run --native \./hello)' shows", read("README"))[1]
    process = subprocess.Popen(shlex.split(run), env=env, cwd=daemon.folder, stdout=subprocess.DEVNULL)
    try:
        until(lambda: any("hello" in words for words in command_lines(process.pid)), "the runner")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def command_lines(pid):
    return [daemon_tests.words_of(one).decode() for one in daemon_tests.descendants(pid)[1:]]


@test
def a_supervisor_that_stays(daemon):
    """The commands one after the other; the first two lines in the place of a shell's."""
    block = indented("README", "baton supervise --runtime-dir=/tmp/fleet").replace("/tmp/fleet", daemon.folder)
    export, supervise, *lines = commands(block.replace("examples/", SOURCE + "/examples/"))
    variable, value = re.fullmatch(r"export (\w+)=(\S+)", export).groups()
    env = {**environment(daemon), variable: value}
    assert supervise.endswith(" &")
    with open(daemon.log, "wb") as log:
        daemon.process = subprocess.Popen(shlex.split(supervise[:-1]), env=env, stdout=log, stderr=log)
    daemon_tests.owned.add(daemon.process.pid)
    until(lambda: subprocess.run(["baton", "status"], env=env, capture_output=True, check=False).stdout.count(b"  up ") == 4,
          "the fleet")
    assert [line.split()[1] for line in lines] == ["status", "logs", "restart", "check", "shutdown"], lines
    more = commands(indented("README", "baton takeover --keeper"))
    for line in [*lines[:-1], *(line for line in more if line.startswith("baton takeover")), lines[-1]]:
        if "-f " in line:
            follow(line, env)
        else:
            output(daemon, line, env)
    assert daemon.process.wait(TIMEOUT) == 0


def follow(line, env):
    process = subprocess.Popen(shlex.split(line), env=env, stdout=subprocess.PIPE)
    assert b"is at work" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT)


@test
def a_supervisor_of_its_own(daemon):
    """What docs/protocol.md begins with, up to the first bytes over the lane."""
    text, = fenced("docs/protocol.md", "python")
    program = "import socket, subprocess\n" + text + "assert ours.recv(1)\nours.close()\n"
    output(daemon, [sys.executable, "-c", program])


@test
def c_of_upgrades(daemon):
    """As it is there, with the functions that it names declared."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    text, = fenced("docs/upgrade.md", "c")
    names = re.findall(r"^ +\.(\w+) = \1,", text, re.M)
    assert len(names) == 6
    declared = "".join(f"__typeof__(*((struct baton_service *) 0)->{name}) {name};\n" for name in names)
    path = write_script(daemon, "sample.c", f"#include <baton/runner.h>\n{declared}{text}const void *used = &service;\n")
    try:
        output(daemon, [*compiler, "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{SOURCE}/include", path])
    except FileNotFoundError as error:
        raise Skip(f"there is no compiler {compiler[0]}") from error


@test
def configurations(daemon):
    """Of each block of YAML nothing is refused but programs and users that are not on this machine."""
    blocks = [(name, text) for name in ("configuration", "fuse", "upgrade") for text in fenced(f"docs/{name}.md", "yaml")]
    assert len(blocks) == 6
    for name, text in blocks:
        if text.startswith("    "):
            text = "  one:\n    command: [sleep, 1]\n" + text
        if text.startswith("  "):
            text = "runners:\n" + text
        path = write_script(daemon, "sample.yaml", text)
        done = daemon.baton("check", path, check=False)
        for line in (done.stdout + done.stderr).splitlines():
            assert re.search(r": (program \S+: (No such file|not found in PATH)|there is no (user|group) \w+$)|: good: ", line), \
                (name, line, text)


if __name__ == "__main__":
    daemon_tests.main()
