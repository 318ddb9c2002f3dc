#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The fault matrix of a takeover: each phase, each fault, both sides. Somebody serves afterwards, whom docs/takeover.md says; no
call fails, no line is lost, nothing stays open; and each step that was taken is one that the model allows.
"""

import os
import signal
import threading

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
import takeover_faults  # noqa: E402
import takeover_steps  # noqa: E402
from daemon_tests import test, until  # noqa: E402
from takeover_faults import PATIENCE, Rehearsal, print_head, print_row, rehearse  # noqa: E402

PREDECESSOR = ["check", "start", "copy", "freeze", "delta", "commit", "resume"]
SUCCESSOR = ["start", "copy", "delta", "commit", "resume"]


def points(fault):
    return [f"{phase}:{fault}" for phase in PREDECESSOR] + [f"{phase}@successor:{fault}" for phase in SUCCESSOR]


def allowed(point):
    """Who may serve afterwards."""
    place, fault = point.split(":")
    phase, _, side = place.partition("@")
    if side != "successor":
        if phase == "resume" or (phase == "commit" and fault == "emfile"):
            return {"successor"}
        if phase == "commit" and fault in ("kill", "hang"):
            return {"successor", "recovery"}  # whether the successor had said READY by then
        if phase == "commit":
            return {"predecessor", "successor"}  # ABORT, which may come after READY
        return {"refuse": {"predecessor"}, "emfile": {"predecessor", "successor"}}.get(fault, {"recovery"})
    if phase == "resume":
        return {"successor"} if fault == "emfile" else {"recovery"}
    if phase == "commit":  # READY is said: whether the keeper has read FROZEN by then
        return {"kill": {"predecessor", "recovery"}, "refuse": {"predecessor", "successor"}, "emfile": {"successor"},
                "hang": {"recovery"}}[fault]
    return {"predecessor", "successor"} if fault == "emfile" else {"predecessor"}


def walk(daemon, name, chosen, **options):
    for row in rehearse(daemon.folder, name, chosen, **options):
        print_row(row)
        assert row["serves"] in allowed(row["point"]), row


@test
def refuse(daemon):
    print_head()
    walk(daemon, "refuse", [point for point in points("refuse") if point != "resume@successor:refuse"])
    walk(daemon, "refuse-late", ["resume@successor:refuse"])


@test
def emfile(daemon):
    walk(daemon, "emfile", points("emfile"))


def killed(daemon, chosen):
    # After some deaths in a row the next supervisor waits longer and longer: a few in each tree.
    for i in range(0, len(chosen), 3):
        walk(daemon, f"kill-{i}", chosen[i:i + 3])


@test
def kill_predecessor(daemon):
    killed(daemon, points("kill")[:len(PREDECESSOR)])


@test
def kill_successor(daemon):
    killed(daemon, points("kill")[len(PREDECESSOR):])


def hung(daemon, chosen):
    for i in range(0, len(chosen), 3):
        walk(daemon, f"hang-{i}", chosen[i:i + 3], hang_timeout=PATIENCE)


@test
def hang_predecessor(daemon):
    hung(daemon, points("hang")[1:len(PREDECESSOR)])


@test
def hang_successor(daemon):
    hung(daemon, points("hang")[len(PREDECESSOR):])


@test
def hang_while_nothing_is_owed(daemon):
    """The keeper has not heard of a takeover yet: as always when one hangs while idle, somebody must say so."""
    rehearsal = Rehearsal(daemon.folder, "force")
    log = rehearsal.daemon

    def force():
        until(lambda: "fault point: check of the predecessor: hang" in log.said(), "it hangs")
        os.kill(log.keeper(), signal.SIGUSR1)

    forcing = threading.Thread(target=force)
    try:
        forcing.start()
        row = rehearsal.take_over("check:hang")
        forcing.join()
        rehearsal.end()
    except BaseException:
        rehearsal.kill()
        raise
    print_row(row)
    assert row["serves"] == "recovery", row


@test
def faults_are_refused(daemon):
    daemon.start("runners:\n  rests: { command: [sleep, 1001] }\n")
    done = daemon.baton("takeover", "--fault", "copy:kill", check=False)
    assert done.returncode != 0 and "built without fault points" in done.stderr, done
    assert daemon.stop() == 0


@test
def steps_of_the_model(daemon):
    """What is checked is what the model says, and whoever breaks its rules is found out."""
    assert takeover_steps.unknown_words() == []
    good = """1 keeper start 2|2 supervisor active 0|2 supervisor up!SERVING 0|1 keeper handle_serving 2|2 supervisor up!TAKEOVER 0
1 keeper handle_takeover 3|2 supervisor freeze 0|2 supervisor up!FROZEN 0|1 keeper handle_frozen 2|3 supervisor up!READY 0
1 keeper handle_ready 3|1 keeper commit 3|1 keeper down!LEAVE 2|2 supervisor down?LEAVE 0|3 supervisor down?GO 0
3 supervisor active 0|3 supervisor up!SERVING 0|1 keeper handle_serving 3|1 keeper handle_death 2""".replace("\n", "|").split("|")
    takeover_steps.check(good)

    def without(*steps):
        return [line for line in good if line not in steps]

    thaw = ["1 keeper roll_back 3", "1 keeper down!THAW 2", "2 supervisor down?THAW 0", "2 supervisor active 0"]
    takeover_steps.check(good[:9] + thaw)
    wrong = {
        "commit before FROZEN": without("1 keeper handle_frozen 2"),
        "commit before READY": without("1 keeper handle_ready 3"),
        "FROZEN that was not said": without("2 supervisor up!FROZEN 0"),
        "READY that was not said": without("3 supervisor up!READY 0"),
        "FROZEN while active": without("2 supervisor freeze 0"),
        "active before GO": good[:9] + ["3 supervisor active 0"] + good[9:],
        "GO without a commit": good[:9] + ["3 supervisor down?GO 0"],
        "thaw by itself": good[:9] + [thaw[0], thaw[3]],
        "thaw without a word": good[:9] + [thaw[0], thaw[2], thaw[3]],
        "THAW after the commit": good[:12] + ["1 keeper down!THAW 2"],
        "a second successor": good[:6] + ["2 supervisor up!TAKEOVER 0", "1 keeper handle_takeover 4"] + good[6:],
        "a recovery beside one that is active": good[:4] + ["1 keeper recover 3"],
        "nobody in the end": good[:9],
        "a step that there is not": good + ["1 keeper wait 0"],
    }
    for what, steps in wrong.items():
        try:
            takeover_steps.check(steps)
        except takeover_steps.Wrong:
            continue
        raise AssertionError(what + " was not noticed")


refuse.seconds = emfile.seconds = kill_predecessor.seconds = kill_successor.seconds = 12 * daemon_tests.TIMEOUT
hang_predecessor.seconds = hang_successor.seconds = 12 * daemon_tests.TIMEOUT
daemon_tests.main()
