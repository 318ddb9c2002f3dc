#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Attach: lanes of clients' own to runners, over a control connection and protocol written from the document alone.

The supervisor's part is tested with runners in Python, which take what they are given, refuse, keep silent or die over it;
the whole with baton-runner-echo. TAP on stdout.
"""

import os
import signal
import socket

import baton_wire as wire
from baton_wire import control
from tree_tests import has, main, start_python, test, until

ECHO = os.path.join(wire.BUILD, "baton-runner-echo")

# A runner that attaches: what it is told is the answer to the call "told".
RUNNER = """
import select
import baton_wire as wire
clients, told = [], []
def serve(call):
    if call.envelope.method == "baton.Runner/Attach":
        request = wire.baton.AttachRequest.FromString(call.payload)
        told.append(f"{request.pid} {request.uid} {request.gid} {request.name} {request.epoch} {request.max_clients}")
        if len(clients) >= request.max_clients:
            message = f"{len(clients)} clients are attached, and {request.max_clients} may be"
            return call.answer(status=wire.RESOURCE_EXHAUSTED, message=message)
        lane = socket.socket(fileno=call.fds[request.lane])
        call.answer(wire.baton.AttachResponse(client=len(told)).SerializeToString(), type="baton.AttachResponse")
        clients.append(wire.Peer(lane, side=1, on_call=serve))
    elif call.envelope.method == "told":
        call.answer("\\n".join(told).encode())
    elif call.envelope.method == "die":
        os._exit(3)
    elif call.envelope.method.startswith("baton."):
        call.answer(status=wire.UNIMPLEMENTED, message="no")
    else:
        call.answer(call.payload)
def turn(peer):
    try:
        peer.turn()
    except wire.Closed:
        clients.remove(peer)
        peer.close()
peer = wire.Peer(connect(), side=1, channels=3, on_call=serve)
while True:
    waiting = [end for one in [peer, *clients] for end in (one.lane, *one.channels.values())]
    select.select(waiting, [], [])
    peer.turn()
    for client in list(clients):
        turn(client)
"""


def start(tree, name="py", **fields):
    call = start_python(tree, RUNNER, name=name, **fields)
    assert call.status == wire.OK, vars(call)
    return control.StartResponse.FromString(call.payload)


@test
def attached(tree, folder):
    started = start(tree)
    client, response = tree.attach("py")
    assert (response.name, response.instance, response.pid) == ("py", started.instance, started.pid), response
    assert response.client == 1
    assert client.call("echo", b"hello").payload == b"hello"
    other, response = tree.attach("py")
    assert response.client == 2
    told = other.call("told").payload.decode().split("\n")
    assert told == [f"{os.getpid()} {os.getuid()} {os.getgid()} test 0 64"] * 2, told
    client.close()
    assert other.call("echo", b"still").payload == b"still"
    tree.stopped("py", timeout_us=300000)
    until_closed(other)


def until_closed(peer):
    try:
        while True:
            peer.turn(wire.TIMEOUT)
            if peer.lane.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                break
    except (wire.Closed, ConnectionResetError):
        pass
    peer.close()


@test
def the_quota(tree, folder):
    start(tree, max_attached=2)
    clients = [tree.attach("py")[0] for _ in range(2)]
    refused = tree.peer.wait(tree.begin_attach("py"))
    assert refused.status == wire.RESOURCE_EXHAUSTED and not refused.fds, vars(refused)
    has(refused.message, "runner py: 2 clients are attached, and 2 may be")
    clients.pop().close()
    until(lambda: tree.peer.wait(tree.begin_attach("py")).status == wire.OK, "room for another")
    for client in clients:
        client.close()


@test
def refusals(tree, folder):
    assert tree.peer.wait(tree.begin_attach("none")).status == wire.NOT_FOUND
    tree.start("/bin/sleep", "600", name="plain", kind=1)
    refused = tree.peer.wait(tree.begin_attach("plain"))
    assert refused.status == wire.FAILED_PRECONDITION, vars(refused)
    has(refused.message, "runner plain: is a plain program")
    code = """
import baton_wire as wire
def serve(call):
    call.answer(status=wire.UNIMPLEMENTED, message="what is that")
peer = wire.Peer(connect(), side=1, channels=3, on_call=serve)
peer.run_until(lambda: False)
"""
    assert start_python(tree, code, name="old").status == wire.OK
    refused = tree.peer.wait(tree.begin_attach("old"))
    assert refused.status == wire.FAILED_PRECONDITION, vars(refused)
    has(refused.message, "runner old: takes no attached clients: it does not know baton.Runner/Attach")
    tree.stopped("plain", timeout_us=100000)
    tree.stopped("old", timeout_us=100000)
    refused = tree.peer.wait(tree.begin_attach("old"))
    assert refused.status == wire.FAILED_PRECONDITION and refused.detail(control.RunnerEnded), vars(refused)


# One that never answers Attach, dies over it, or answers it wrongly.
ODD = """
import baton_wire as wire
def serve(call):
    if call.envelope.method == "baton.Runner/Attach":
        ANSWER
    else:
        call.answer(str(len(os.listdir("/proc/self/fd"))).encode())
peer = wire.Peer(connect(), side=1, channels=3, on_call=serve)
while True:
    peer.turn(60)
"""


@test
def odd_runners(tree, folder):
    for name, answer in (("mute", "pass"), ("dies", "os._exit(7)"), ("wrong", "call.answer(b'\\xff')")):
        assert start_python(tree, ODD.replace("ANSWER", answer), name=name).status == wire.OK
    tree.signal("mute", signal.SIGCONT)  # by way of the keeper, behind all that a start leaves to be done
    supervisor = tree.supervisor_pid()
    open_before = len(os.listdir(f"/proc/{supervisor}/fd"))
    late = tree.peer.wait(tree.begin_attach("mute", timeout_us=200000))
    assert late.status == wire.DEADLINE_EXCEEDED, vars(late)
    given_up = tree.begin_attach("mute")
    tree.peer.cancel(given_up)
    assert tree.peer.wait(given_up).status == wire.CANCELLED
    wrong = tree.peer.wait(tree.begin_attach("wrong"))
    assert wrong.status == wire.INTERNAL and not wrong.fds, vars(wrong)
    has(wrong.message, "runner wrong: its answer to baton.Runner/Attach is no AttachResponse")
    until(lambda: len(os.listdir(f"/proc/{supervisor}/fd")) == open_before, "the end of what it held")
    dead = tree.peer.wait(tree.begin_attach("dies"))
    assert dead.status == wire.UNAVAILABLE and dead.detail(control.RunnerEnded).exit.status == 7, vars(dead)
    for name in ("mute", "wrong"):
        tree.stopped(name, timeout_us=100000)


@test
def before_the_runner_is_there(tree, folder):
    begun = start_python(tree, RUNNER, name="early", wait=False)
    attach = tree.begin_attach("early")
    assert tree.peer.wait(attach).status == wire.OK, vars(attach)
    assert tree.peer.wait(begun).status == wire.OK
    client = wire.Peer(socket.socket(fileno=attach.fds[0]), side=0)
    assert client.call("echo", b"x").payload == b"x"
    client.close()


@test
def the_runner_dies(tree, folder):
    start(tree)
    client, _ = tree.attach("py")
    client.start_call("die")
    until_closed(client)


@test
def limits_of_a_start(tree, folder):
    limits = control.Limits(max_frame=65536, max_calls=3, fd_credit=5, stream_window=70000)
    code = RUNNER.replace('if call.envelope.method == "baton.Runner/Attach"', """if call.envelope.method == "hello":
        h = call.peer.remote
        call.answer(f"{h.max_frame} {h.max_calls} {h.fd_credit} {h.stream_window}".encode())
    elif call.envelope.method == "baton.Runner/Attach\"""")
    assert start_python(tree, code, name="py", limits=limits).status == wire.OK
    assert tree.call("py", "hello").payload == b"65536 3 5 70000"
    for max_frame in (65535, 1 << 32):
        refused = tree.begin(ECHO, limits=control.Limits(max_frame=max_frame))
        assert refused.status == wire.INVALID_ARGUMENT, vars(refused)
        has(refused.message, "max_frame is 65536 to 4294967295 bytes")


main("baton-attach-")
