# SPDX-License-Identifier: Apache-2.0
"""Holds the steps of takeovers, as $BATON_STEPS has them (common/step.h), against the rules of tests/model/takeover.pml: who
may take which step after which. What the model's keeper keeps in its table is kept here, too, and each step that is read is
one that must be possible in that state.

    check(lines) - returns what was seen; raises Wrong at the first step that may not be.
"""

import os

MODEL = os.path.join(os.environ.get("abs_top_srcdir", "."), "tests/model/takeover.pml")

# Each step, and the words of the model that it is.
WORDS = {
    "start": "run Supervisor(0, false)",
    "recover": "inline recover()",
    "begin": "proctype Supervisor(byte i; bool recovers)",
    "active": "inline become_active(i)",
    "freeze": "inline freeze(i)",
    "up!TAKEOVER": "up[i]!TAKEOVER",
    "up!FROZEN": "up[i]!FROZEN",
    "up!ABORT": "up[i]!ABORT",
    "up!READY": "up[i]!READY",
    "up!REFUSE": "up[i]!REFUSE",
    "down?GO": "down[i]?GO",
    "down?LEAVE": "down[i]?LEAVE",
    "down?THAW": "down[i]?THAW",
    "handle_takeover": "inline handle_takeover()",
    "handle_frozen": "inline handle_frozen()",
    "handle_ready": "inline handle_ready()",
    "handle_refuse": "m == REFUSE && i == next -> roll_back()",
    "handle_abort": "m == ABORT && i == current",
    "handle_death": "inline handle_death(i)",
    "commit": "inline commit()",
    "roll_back": "inline roll_back()",
    "down!LEAVE": "down[former]!LEAVE",
    "down!THAW": "down[current]!THAW",
    # Beginning and end of what the model takes as one step.
    "up!SERVING": "become_active(i)",
    "handle_serving": "become_active(i)",
}


class Wrong(Exception):
    pass


class State:
    def __init__(self):
        self.current = self.next = self.former = 0
        self.frozen = self.ready = False
        self.active, self.dead = set(), set()
        self.said = {}      # words that were sent and not read yet, by (process, word)
        self.seen = set()
        self.told = {}      # the keeper's words, likewise
        self.holds = set()  # processes that are frozen

    def need(self, condition, why):
        if not condition:
            raise Wrong(why)

    def say(self, pid, word):
        self.said[pid, word] = self.said.get((pid, word), 0) + 1

    def read(self, pid, word):
        self.need(self.said.get((pid, word), 0) > 0, f"the keeper has read {word} of {pid}, which has not said it")
        self.said[pid, word] -= 1

    def begin(self, pid):
        self.need(not self.active, f"{pid} begins while {self.active} is active")
        self.current, self.next, self.frozen, self.ready = pid, 0, False, False

    def become_active(self, pid):
        others = self.active - {pid}
        self.need(not others, f"{pid} becomes active beside {others}")
        self.need(pid == self.current, f"{pid} becomes active, but {self.current} is the current one")
        self.need(pid not in self.dead, f"{pid} is dead")
        self.active.add(pid)

    # What supervisors do.

    def supervisor(self, pid, step):
        need = self.need
        if step == "active":
            need(pid not in self.holds or self.told.get((pid, "THAW")) == "read", f"{pid} goes on without THAW")
            self.holds.discard(pid)
            self.told.pop((pid, "THAW"), None)
            self.become_active(pid)
        elif step == "freeze":
            need(pid in self.active, f"{pid} freezes, and is not active")
            self.active.discard(pid)
            self.holds.add(pid)
        elif step == "up!TAKEOVER":
            need(pid in self.active, f"{pid} wants a successor, and is not active")
        elif step == "up!FROZEN":
            need(pid not in self.active, f"{pid} says FROZEN, and is active")
        elif step in ("up!READY", "up!REFUSE"):
            need(pid not in self.active, f"{pid} says {step}, and is active")
        elif step == "up!SERVING":
            need(pid in self.active, f"{pid} serves, and is not active")
        elif step == "down?GO":
            need(self.told.get((pid, "GO")) == "sent", f"{pid} has read GO, and none was sent")
        elif step in ("down?LEAVE", "down?THAW"):
            word = step[5:]
            need(self.told.get((pid, word)) == "sent", f"{pid} has read {word}, and none was sent")
            self.told[pid, word] = "read"
        if step.startswith("up!"):
            self.say(pid, step[3:])

    # What the keeper does.

    def keeper(self, step, subject):
        need = self.need
        if step in ("start", "recover"):
            self.begin(subject)
        elif step == "handle_takeover":
            self.read(self.current, "TAKEOVER")
            need(self.next == 0, "a second successor")
            self.next, self.frozen, self.ready = subject, False, False
        elif step == "handle_frozen":
            need(subject == self.current, f"FROZEN of {subject}, which is not the current one")
            self.read(subject, "FROZEN")
            self.frozen = True
        elif step == "handle_ready":
            need(subject == self.next, f"READY of {subject}, which is not the successor")
            self.read(subject, "READY")
            self.ready = True
        elif step == "handle_refuse":
            self.read(subject, "REFUSE")
        elif step == "handle_abort":
            self.read(subject, "ABORT")
        elif step == "handle_serving":
            need(subject == self.current, f"SERVING of {subject}, which is not the current one")
            self.read(subject, "SERVING")
        elif step == "commit":
            need(subject == self.next, f"commit to {subject}, which is not the successor")
            need(self.frozen, "commit before FROZEN was read")
            need(self.ready, "commit before READY was read")
            need(self.current not in self.active, "commit while the predecessor is active")
            self.former, self.current, self.next = self.current, subject, 0
            self.frozen = self.ready = False
            self.told[subject, "GO"] = "sent"
        elif step == "roll_back":
            need(subject == self.next, f"{subject} is rolled back, and is not the successor")
            self.dead.add(subject)
            self.next, self.ready = 0, False
        elif step == "down!THAW":
            need(subject == self.current and self.frozen, f"THAW to {subject}, which was not FROZEN")
            need(self.next == 0, "THAW while there is a successor")
            self.frozen = False
            self.told[subject, "THAW"] = "sent"
        elif step == "down!LEAVE":
            need(subject == self.former, f"LEAVE to {subject}, which was not followed")
            self.told[subject, "LEAVE"] = "sent"
        elif step == "handle_death":
            self.dead.add(subject)
            self.active.discard(subject)
            if subject == self.current:
                self.next = 0
                self.frozen = self.ready = False


def check(lines):
    state = State()
    for number, line in enumerate(lines, 1):
        pid, who, step, subject = line.split()
        try:
            if step not in WORDS:
                raise Wrong(f"no such step: {step}")
            if who == "keeper":
                state.keeper(step, int(subject))
            else:
                state.supervisor(int(pid), step)
        except Wrong as why:
            before = "\n  ".join(lines[max(0, number - 12):number])
            raise Wrong(f"step {number}: {why}\n  {before}") from None
        state.seen.add(step)
    if state.active != {state.current}:
        raise Wrong(f"in the end {state.current} is the current one, and {state.active} active")
    return state


def unknown_words():
    """Steps that the model does not have."""
    with open(MODEL, encoding="utf-8") as file:
        model = file.read()
    return [step for step, words in WORDS.items() if words not in model]
