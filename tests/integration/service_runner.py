#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A native runner with a service, by hand: it does what its arguments say to each event, so that supervisors can be tried.

    service_runner.py [EVENT=WHAT...]       WHAT: ok, refuse, hang, die, late (answered at the next event)
"""

import os
import socket
import sys

import baton_wire as wire

INIT, RUNNING, READY, STOPPED = 1, 2, 3, 4
TABLE = {(INIT, "Mount"): READY, (INIT, "Takeover"): READY, (INIT, "Stop"): STOPPED, (READY, "Start"): RUNNING,
         (READY, "Stop"): STOPPED, (READY, "Exit"): STOPPED, (RUNNING, "Stop"): READY}
plan = dict(word.split("=", 1) for word in sys.argv[1:])
state, last, under_way, done = INIT, 0, "", []


def describe(call):
    call.answer(wire.baton.InfoResponse(service=True, service_state=state, last_event=last, software="by hand 1",
                                        description='{"events": %d}' % len(done), saves="Save" in plan, version=1,
                                        version_min=1, under_way=under_way).SerializeToString(),
                type="baton.InfoResponse")


def carry_out(call, event):
    global state, last
    last = wire.baton.LifecycleEvent.FromString(call.payload).event
    if (state, event) not in TABLE:
        call.answer(status=wire.FAILED_PRECONDITION, message=f"{event} is refused, says the runner")
        return
    state = TABLE[state, event]
    done.append(event)
    print("did", event, flush=True)
    call.answer(wire.baton.LifecycleState(service_state=state, event=last).SerializeToString(), type="baton.LifecycleState")


def on_call(call):
    global under_way
    service, _, event = call.envelope.method.partition("/")
    what = plan.get(event, "ok")
    if service != "baton.Runner" or event == "Ping":
        call.answer(call.payload)
    elif what == "die":
        os._exit(7)
    elif what == "hang":
        under_way = event
    elif what == "refuse":
        call.answer(status=wire.INTERNAL, message=f"no {event} today")
    elif event == "Info":
        describe(call)
    else:
        carry_out(call, event)


class Peer(wire.Peer):
    def read_channel(self, number):
        """Channels that nobody serves end at once."""
        try:
            super().read_channel(number)
        except wire.Closed:
            if number == 0:
                raise
            self.channels.pop(number).close()


def main():
    lane = socket.socket(socket.AF_UNIX)
    lane.connect(os.environ["BATON_BOOTSTRAP"])
    peer = Peer(lane, side=1, channels=3, software="by hand 1", on_call=on_call, service_state=INIT)
    try:
        while state != STOPPED and not peer.closed:
            peer.turn(60)
    except wire.Closed:
        pass


main()
