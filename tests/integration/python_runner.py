#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The methods of baton-runner-echo, and more, by the Python package: for test-python.py."""

import logging
import os
import signal
import sys
import threading

import baton

bootstrap = baton.uds_path_argument(sys.argv)
# --NAME=NUMBER: a limit.
limits = {name[2:]: int(number) for name, equals, number in (word.partition("=") for word in sys.argv[1:]) if equals}
runner = baton.Runner(software="python-runner 1", max_frame=4 << 20, stream_window=65536, fd_credit=8,
                      max_object=64 << 20, bootstrap=bootstrap, park_log="--park" in sys.argv, **limits)
logging.getLogger().addHandler(baton.LogHandler(runner))
logging.getLogger().setLevel(logging.DEBUG)


def open_descriptors():
    return len(os.listdir("/proc/self/fd")) - 1


def metadata_back(call):
    for key, value in call.metadata:
        call.add_metadata(key, value)


@runner.method("echo.Echo/Unary", inline=True)
def unary(call):
    metadata_back(call)
    return call.request


@runner.method("echo.Echo/Pooled")
def pooled(call):
    metadata_back(call)
    return call.request


@runner.method("echo.Echo/Sleep")
def sleep(call):
    microseconds, = baton.from_values(call.request)
    if call.wait_cancelled(microseconds / 1e6):
        logging.getLogger("sleep").warning("woken up")


@runner.method("echo.Echo/Later", inline=True)
def later(call):
    threading.Thread(target=call.answer, args=(b"later",)).start()
    return baton.LATER


@runner.method("echo.Echo/Fail")
def fail(call):
    status, text, *detail = baton.from_values(call.request)
    raise baton.CallError(status, text, [tuple(detail)] if detail else ())


@runner.method("echo.Echo/Raise")
def broken(call):
    raise KeyError("a fault of the handler's")


@runner.method("echo.Echo/Call")
def back(call):
    method, *rest = baton.from_values(call.request)
    kind, payload = rest or ("", b"")
    return runner.call(method, payload, kind, parent=call)


@runner.method("echo.Echo/Log")
def log(call):
    count, *text = baton.from_values(call.request)
    for n in range(count):
        logging.getLogger("echo").info("%s %d", text[0] if text else "record", n)


@runner.method("test.Test/LogMuchInline", inline=True)
@runner.method("test.Test/LogMuch")
def log_much(call):
    for n in range(int(call.data)):
        runner.log(6, f"much {n}")


@runner.method("echo.Echo/Output")
def output(call):
    out, *err = baton.from_values(call.request)
    print(out, flush=True)
    print(*err, file=sys.stderr, flush=True)


@runner.method("echo.Echo/Held")
def held(call):
    return baton.to_values(baton.u64(open_descriptors()))


@runner.method("echo.Echo/Crash")
def crash(call):
    os.kill(os.getpid(), baton.from_values(call.request)[0])
    signal.pause()


@runner.method("echo.Echo/Exit")
def leave(call):
    os._exit(baton.from_values(call.request)[0])


@runner.method("stream.Stream/Echo", stream=True)
def echo(call):
    count = 0
    for item in call:
        count += 1
        yield item
    return b"%d" % count


@runner.method("stream.Stream/Count")
def count_to(call):
    """Items of a size, and what has been sent so far in a metadata of the answer."""
    count, size = baton.from_values(call.request)
    for n in range(count):
        yield n.to_bytes(4, "big") + bytes(size - 4)


@runner.method("stream.Stream/Sum", stream=True)
def total(call):
    return b"%d" % sum(len(item.data) for item in call)


@runner.method("stream.Stream/Stuck", stream=True)
def stuck(call):
    """Takes nothing until the call is cancelled."""
    call.wait_cancelled()


@runner.method("stream.Stream/Blocked")
def blocked(call):
    """Sends until it would wait, says how many items that were, then goes on until nobody takes them."""
    sent = 0
    try:
        while True:
            call.send(bytes(1000), timeout=0)
            sent += 1
    except TimeoutError:
        runner.log(6, f"sent {sent}", "stream")
    try:
        while True:
            call.send(bytes(1000))
            sent += 1
    except baton.CallError as error:
        runner.log(6, f"ended {error.status.name}", "stream")
        raise


@runner.method("stream.Stream/OneTooLarge")
def one_too_large(call):
    call.send(bytes(1 << 20))


@runner.method("test.Test/TimeLeft", inline=True, request=bytes, response=bytes)
def time_left(call):
    return repr(call.time_left()).encode()


@runner.method("test.Test/Client")
def client(call):
    """Calls its caller back."""
    method, payload = baton.from_values(call.request)
    return call.connection.call(method, payload, parent=call)


@runner.method("test.Test/Health", request="baton.Values", response=bytes)
def health(call):
    service, serving = baton.from_values(call.request)
    runner.set_health(bool(serving), service)


@runner.method("test.Test/Last")
def last(call):
    """Answers, and leaves."""
    call.answer(bytes(3 << 20))
    runner.quit()
    return baton.LATER


runner.run()
