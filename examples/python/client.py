#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Starts the greeter beside it, calls it in several ways, and shows its log."""

import os
import sys

import baton

if len(sys.argv) > 1:
    sys.exit(f"client.py: it takes no arguments, not even {sys.argv[1]!r}")
GREETER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "greeter.py")

with baton.Client() as client:
    greeter = client.start(sys.executable, GREETER, name="greeter")

    answer = greeter.call("greet.Greeter/Greet", baton.to_values("world"), timeout=10)
    print(baton.from_values(answer)[0])

    # The same over a lane of our own, past the supervisor; with streams.
    with greeter.attach() as direct, direct.stream("greet.Greeter/Chat", timeout=10) as chat:
        for name in (b"Ada", b"Grace"):
            chat.send(name)
        chat.end()
        for item in chat:
            print(item.data.decode())
        print(chat.result().data.decode(), "greeted")

    try:
        greeter.call("greet.Greeter/Greet", timeout=10)
    except baton.CallError as error:
        print(f"refused: {error}")

    how, _ = greeter.stop()
    for line in greeter.logs():
        print(f"{line.target or line.source}: {line.text.decode()}")
    print(f"{greeter.name}: {how.how} {how.status}")
