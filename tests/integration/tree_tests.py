# SPDX-License-Identifier: Apache-2.0
"""What tests that drive a private tree share: each has a tree and a temporary folder of its own, which must be empty, with
no process left, when the tree has ended. TAP on stdout.
"""

import os
import signal
import sys
import tempfile
import time
import traceback

import baton_wire as wire
from baton_wire import control

PYTHON = sys.executable
HERE = os.path.dirname(os.path.abspath(__file__))
Reason = control.StartFailure
original = os.environ.get("TMPDIR", "/tmp")
tests = []


def test(function):
    tests.append(function)
    return function


def processes_with(folder):
    """Processes whose TMPDIR is the test's folder: what the tree has started."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if entry.isdigit() and f"TMPDIR={folder}".encode() in file.read().split(b"\0"):
                    found.append(int(entry))
        except OSError:
            pass
    return found


def until(condition, what):
    end = time.monotonic() + wire.TIMEOUT
    while not condition():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.005)


def failure(call):
    """The StartFailure of a start that failed."""
    assert call.status == wire.UNAVAILABLE, (call.status, call.message)
    return call.detail(control.StartFailure)


def has(text, *parts):
    assert all(part in text for part in parts), f"{text!r} lacks one of {parts}"
    assert "\n" not in text, f"{text!r} has more than one line"


NATIVE = """
import os, socket, sys, time
sys.path.insert(0, os.environ["WIRE"])
def connect():
    lane = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    lane.connect(os.environ["BATON_BOOTSTRAP"])
    return lane
"""


def start_python(tree, code, wait=True, **fields):
    environment = [f"{name}={value}" for name, value in tree.environment.items()] + [f"WIRE={HERE}"]
    return tree.begin(PYTHON, "-c", NATIVE + code, wait=wait, environment=environment, **fields)


def run(function, prefix):
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        os.environ["TMPDIR"] = folder
        tree = wire.Tree()
        try:
            function(tree, folder)
            status = tree.end()
            assert status == 0, f"the keeper ended with {status}"
            assert os.listdir(folder) == [], f"left behind: {os.listdir(folder)}"
            until(lambda: not processes_with(folder), "the end of every process")
        except BaseException:
            try:
                print("# " + tree.log()[-3000:].replace("\n", "\n# "))
            except ValueError:
                pass
            for pid in processes_with(folder):
                os.kill(pid, signal.SIGKILL)
            tree.keeper.wait()
            raise
        finally:
            os.environ["TMPDIR"] = original
            tempfile.tempdir = None


def on_alarm(number, frame):
    raise TimeoutError("this test took too long")


def main(prefix):
    """Runs the tests, or those that the command line names."""
    chosen = [function for function in tests if len(sys.argv) < 2 or function.__name__ in sys.argv[1:]]
    failed = 0
    print(f"1..{len(chosen)}")
    signal.signal(signal.SIGALRM, on_alarm)
    for index, one in enumerate(chosen, 1):
        signal.alarm(int(3 * wire.TIMEOUT))
        try:
            run(one, prefix)
            print(f"ok {index} - {one.__name__}")
        except Exception:
            failed += 1
            print(f"not ok {index} - {one.__name__}")
            print("# " + traceback.format_exc().replace("\n", "\n# "))
        signal.alarm(0)
        sys.stdout.flush()
    sys.exit(failed > 0)
