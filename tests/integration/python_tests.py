# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Python package have in common. The package is put together in a folder of its own: its sources,
and the messages that the build has made of proto/. run_tests() prints TAP; after each test nothing may be left behind.
"""

import gc
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback

import baton_wire as wire

HERE = os.path.dirname(os.path.abspath(__file__))
BATON = os.environ.get("BATON_PROGRAM", os.path.join(wire.BUILD, "baton"))
ECHO = os.path.join(wire.BUILD, "baton-runner-echo")
RUNNER = os.path.join(HERE, "python_runner.py")
EXAMPLES = os.path.join(wire.SOURCE, "examples", "python")
TIMEOUT = wire.TIMEOUT
tests = []


def test(function):
    tests.append(function)
    return function


def assemble(folder):
    """The package, as it is installed."""
    package = os.path.join(folder, "baton")
    shutil.copytree(os.path.join(wire.SOURCE, "python", "baton"), package,
                    ignore=shutil.ignore_patterns("*_pb2.py", "__pycache__"))
    for name in ("arena", "baton", "control", "values"):
        made = os.path.join(wire.BUILD, "python", "baton", name + "_pb2.py")
        if not os.path.exists(made):
            print(f"1..0 # SKIP the package was not built: {made} is missing (was there no protoc?)")
            sys.exit(0)
        shutil.copy(made, package)


def python(client, **fields):
    return client.start(sys.executable, "-B", RUNNER, name="py", **fields)


def both(client):
    """A runner in C and one in Python."""
    return client.start(ECHO, name="echo"), python(client)


def raises(status, function, *arguments, **options):
    """The CallError of that status that it must raise."""
    try:
        result = function(*arguments, **options)
    except baton.CallError as error:
        assert error.status == status, repr(error)
        return error
    raise AssertionError(f"{status.name} was expected, got {result}")


def until(condition, what):
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.005)


def wait_log(runner, text):
    """Follows the log until a line that begins so; that line."""
    for line in runner.logs(follow=True):
        if line.text.decode().startswith(text):
            return line.text.decode()
    raise AssertionError(f"the log ended without {text!r}")


def own_descriptors():
    gc.collect()
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                  if os.path.lexists(f"/proc/self/fd/{fd}"))


PLACE = tempfile.TemporaryDirectory(prefix="baton-python-")
assemble(PLACE.name)
sys.path.insert(0, PLACE.name)
os.environ.update(PYTHONPATH=PLACE.name, BATON_PROGRAM=BATON,
                  BATON_LIBEXEC=os.environ.get("BATON_LIBEXEC", wire.BUILD))
import baton  # pylint: disable=wrong-import-position


# ------------------------------------------------------------------------------------------------------------ the run

def run(function):
    """One test. Its parameter, if it has one, is a client."""
    original = os.environ.get("TMPDIR", "/tmp")
    temporary = os.path.join(PLACE.name, "tmp")
    os.mkdir(temporary)
    tempfile.tempdir = os.environ["TMPDIR"] = temporary
    before = own_descriptors()
    try:
        if function.__code__.co_argcount:
            with baton.Client(BATON) as client:
                function(client)
        else:
            function()
        assert os.listdir(temporary) == [], f"left behind: {os.listdir(temporary)}"
        until(lambda: len(own_descriptors()) == len(before), f"{before}, not {own_descriptors()}")
    finally:
        shutil.rmtree(temporary)
        tempfile.tempdir = None
        os.environ["TMPDIR"] = original


def on_alarm(*_):
    raise TimeoutError("this test took too long")


def run_tests():
    """All of them, or those named in the arguments."""
    chosen = [function for function in tests if len(sys.argv) < 2 or function.__name__ in sys.argv[1:]]
    failed = 0
    print(f"1..{len(chosen)}")
    signal.signal(signal.SIGALRM, on_alarm)
    for index, one in enumerate(chosen, 1):
        signal.alarm(int(4 * TIMEOUT))
        try:
            run(one)
            print(f"ok {index} - {one.__name__}")
        except Exception:
            failed += 1
            print(f"not ok {index} - {one.__name__}")
            print("# " + traceback.format_exc().replace("\n", "\n# "))
        signal.alarm(0)
        sys.stdout.flush()
    PLACE.cleanup()
    sys.exit(failed > 0)
