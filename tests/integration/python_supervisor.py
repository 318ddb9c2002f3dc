#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`baton supervise --private=FD' as test-python-wire.py needs it: its supervisor takes Attach alone, and is itself the
runner at the other end of the lane, which renews it and breaks the rules as it is told.
"""

import os
import select
import socket
import struct
import sys

import baton_wire as wire

CALL, ITEM, ANSWER, HELLO, CREDIT = (wire.baton.CALL, wire.baton.ITEM, wire.baton.ANSWER, wire.baton.HELLO,
                                     wire.baton.CREDIT)


class Runner:
    """One lane's end. `closed' is what the client said last, on any lane, when it ended one."""

    closed = 0

    def __init__(self, lane):
        self.lane = lane
        self.calls = []
        self.peer = self.open(0)
        self.renewal = None

    def open(self, epoch):
        return wire.Peer(self.lane, 1, 1, "fake", self.calls.append, epoch, gives=epoch > 0, features=["arena"])

    def serve(self, call):
        method = call.envelope.method
        for fd in call.fds:
            os.close(fd)
        if method == "number":
            call.answer(b"%d" % call.envelope.id)
        elif method == "closed":
            call.answer(b"%d" % Runner.closed)
        elif method == "shared":
            call.answer(b"a block" if call.envelope.blocks else b"inline")
        elif method == "renew":
            call.answer(b"renewed")
            self.renewal = int(call.payload)
        elif method == "wrong":
            getattr(self, "wrong_" + call.payload.decode())(call)
        elif method != "hold":
            call.answer(call.payload)

    def turn(self):
        """False: it is over."""
        try:
            self.peer.turn()
            while self.calls:
                self.serve(self.calls.pop(0))
            if self.renewal:
                epoch, self.renewal = self.renewal, None
                old = self.peer.channels[0]
                self.peer = self.open(epoch)
                old.close()
                return self.turn()
        except (wire.Closed, ConnectionError):
            self.peer.close()
            return False
        if self.peer.closed:
            Runner.closed = self.peer.closed[0]
            self.peer.close()
            return False
        return True

    def send(self, call, kind, payload=b"", **fields):
        fields.setdefault("id", call.envelope.id)
        self.peer.send(0, wire.baton.Envelope(kind=kind, **fields), payload)

    # --- what ends the connection

    def wrong_kind(self, call):
        self.send(call, 9)

    def wrong_length(self, _):
        self.peer.channels[0].sendall(struct.pack(">I", (8 << 20) + 1))

    def wrong_envelope(self, _):
        self.peer.channels[0].sendall(struct.pack(">IIB", 5, 1, 0xff))

    def wrong_nul(self, call):
        self.send(call, ANSWER, type="a\0b")

    def wrong_hello(self, call):
        self.send(call, HELLO, id=0, hello=wire.baton.Hello(protocol_min=1, protocol_max=1))

    def wrong_id(self, call):
        self.send(call, CALL, id=call.envelope.id, method="x")

    def wrong_credit(self, call):
        self.send(call, CREDIT, credit=1)

    def wrong_window(self, call):
        for _ in range(2):
            self.send(call, ITEM, bytes(200000))

    def wrong_lane(self, _):
        self.lane.sendall(bytes(8))

    def wrong_channel(self, _):
        with open(os.devnull, "rb") as null:
            socket.send_fds(self.lane, [struct.pack("<Q", 0)], [null.fileno()])

    # --- what ends the call

    def wrong_absent(self, call):
        self.send(call, ANSWER, fds=[7])

    def wrong_block(self, call):
        self.send(call, ANSWER, blocks=[wire.baton.Block(arena=1, length=1)])

    def wrong_unwanted(self, call):
        self.send(call, ITEM, b"x")

    def wrong_half_close(self, call):
        self.send(call, ITEM, end=True)

    def wrong_status(self, call):
        self.send(call, ANSWER, status=99)


def main():
    runners = []

    def attach(call):
        ours, theirs = socket.socketpair()
        response = wire.control.AttachResponse(name="fake", instance=1, pid=os.getpid(), lane=0)
        call.answer(response.SerializeToString(), type="baton.control.AttachResponse", fds=[theirs.fileno()])
        theirs.close()
        runners.append(Runner(ours))

    control = wire.Peer(socket.socket(fileno=int(sys.argv[2].split("=")[1])), 0, 1, "fake", attach)
    while not control.closed:
        for end in [control, *runners]:
            try:
                if end is control:
                    end.turn()
                elif not end.turn():
                    runners.remove(end)
            except wire.Closed:
                return
        watched = [end.peer if end is not control else end for end in [control, *runners]]
        select.select([fd for peer in watched for fd in (peer.lane, *peer.channels.values())], [], [])


main()
