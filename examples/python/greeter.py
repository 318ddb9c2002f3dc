#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A whole runner: baton call --exec ./greeter.py -- greet.Greeter/Greet string:world"""

import logging
import sys
import time

import baton

try:
    runner = baton.Runner(software="greeter.py 1")
except baton.Error as error:  # started by hand
    sys.exit(f"greeter.py: {error}")
log = logging.getLogger("greeter")
log.addHandler(baton.LogHandler(runner))
log.setLevel(logging.INFO)


@runner.method("greet.Greeter/Greet")
def greet(call):
    """A unary call with baton.Values, as the command line sends them."""
    names = baton.from_values(call.request)
    if not names:
        raise baton.CallError(baton.Status.INVALID_ARGUMENT, "whom? One name is needed")
    log.info("greeting %s", names[0])
    return baton.to_values(f"Hello, {names[0]}!")


@runner.method("greet.Greeter/Chat", stream=True)
def chat(call):
    """Streams both ways: each item is answered; the result says how many there were."""
    count = 0
    for item in call:
        count += 1
        yield b"Hello, " + item.data + b"!"
    return b"%d" % count


@runner.method("greet.Greeter/Clock")
def clock(call):
    """A stream without end: a second per item, until nobody listens."""
    while not call.wait_cancelled(1.0):
        yield time.strftime("%H:%M:%S").encode()


runner.run()
