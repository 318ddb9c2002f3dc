/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Takeover of the supervisor, and recovery after its death, as a model for Spin: `make check-model`. docs/takeover.md
 * names the function that does each step.
 *
 * Who takes part: the keeper; generations 0 (predecessor), 1 (successor, once one was asked for) and those that recoveries
 * start; one runner that is there from the beginning and may exit at any time; and one that is to be started and shall
 * run exactly once in the end. A generation may die at any point, CRASHES times in all. What it had sent stays readable;
 * what was sent to it is lost.
 *
 * What must hold:
 *   at most one generation is active (reads and writes what belongs to runners and clients), at any time;
 *   in the end exactly one is, and stays it;
 *   whoever becomes active knows every byte that was ever consumed, and has every descriptor that was ever made;
 *   the exit of the one runner takes effect exactly once;
 *   the other one runs once, not twice, and the table knows it.
 *
 * Mutants, each of which must be caught:
 *   MUTANT_COMMIT_EARLY   the keeper commits when the successor is ready, without having read FROZEN
 *   MUTANT_THAW_ALONE     the predecessor goes on after a time-out, without asking the keeper
 *   MUTANT_DEATH_AT_ONCE  the keeper acts on a death before it has read that generation's socket to its end
 *   MUTANT_DELTA_MISSING  what came between pre-copy and freeze is not handed over
 *   MUTANT_EFFECT_EARLY   an exit takes effect when it is reported, not when its slot is given up
 */

#ifndef CRASHES
#define CRASHES 2
#endif
#define GENERATIONS 4 /* predecessor, successor, and one recovery for each crash */
#define NOBODY      GENERATIONS

mtype = {
        RESERVE, BORN, STARTED, ACK, TAKEOVER, FROZEN, ABORT, READY, REFUSE, /* to the keeper */
        EXITED, GO, LEAVE, THAW                                              /* from it */
};

chan up[GENERATIONS] = [6] of { mtype };
chan down[GENERATIONS] = [4] of { mtype };

bool alive[GENERATIONS], reaped[GENERATIONS], acts[GENERATIONS];
byte writers[GENERATIONS]; /* children that hold the generation's socket and have not said BORN yet */
byte crashes;

/* The keeper's table. */
byte current, next, former; /* generations: the active one; its successor before the commit; the one that was left */
byte started;               /* how many there were */
bool frozen, ready;
bool exit_reaped, exit_done;                    /* slot of the first runner: EXITED; given up */
bool slot_reserved, slot_born, slot_started;    /* of the second */

/* The world. */
bool exited;
byte effects;                          /* how often that exit took effect */
byte running;                          /* processes of the second runner */
byte consumed, known[GENERATIONS];     /* bytes read from runners, and who accounts for how many */
byte made, has[GENERATIONS];           /* descriptors */
byte copy_has, delta_has, delta_known; /* what crosses: in pre-copy; at the freeze */
bool tried;                            /* a takeover was asked for */

#define N_ACTIVE  (acts[0] + acts[1] + acts[2] + acts[3])
#define END_OF(i) (!alive[i] && writers[i] == 0 && empty(up[i]))

/* ------------------------------------------------------------------------------------------------------------ supervisors */

/* A child between clone() and BORN: it is there, and holds the socket, whatever becomes of its parent. */
proctype Child(byte i) {
        atomic { up[i]!BORN; writers[i]-- }
}

inline become_active(i) {
        acts[i] = true;
        assert(known[i] == consumed);
        assert(has[i] == made)
}

inline end_process(i) {
        alive[i] = false;
        acts[i] = false
}

/* The second runner is wanted, and the table does not have it. */
inline start_runner(i) {
        up[i]!RESERVE;
        atomic { running++; writers[i]++; run Child(i) }
        (writers[i] == 0); /* clone() returns when the child has gone on */
        up[i]!STARTED
}

/* serve_once() - a descriptor comes with its PUT: the keeper has it from here on. */
inline serve_once(i) {
        if
        :: atomic { consumed < 1 -> consumed++; known[i] = consumed }
        :: atomic { made < 1 -> made++; has[i] = made }
        :: true
        fi
}

/* acknowledge() - the effect is in the record, which the keeper writes when it gives up the slot. */
inline acknowledge(i) {
#ifdef MUTANT_EFFECT_EARLY
        effects++;
#endif
        up[i]!ACK
}

inline freeze(i) {
        acts[i] = false;
#ifdef MUTANT_DELTA_MISSING
        delta_has = copy_has;
#else
        delta_has = has[i];
#endif
        delta_known = known[i]
}

proctype Supervisor(byte i; bool recovers) {
        bool held = false, asked = false; /* an exit that was reported while frozen; ABORT was sent */
        {
                if
                :: recovers -> /* ring, store and table are the truth */
                        atomic { known[i] = consumed; has[i] = made; become_active(i) }
                        if
                        :: !slot_started -> start_runner(i)
                        :: else
                        fi
                :: !recovers && i == 0 ->
                        atomic { become_active(i) }
                        start_runner(i)
                :: else -> /* nothing of a peer's is touched before GO */
                        if
                        :: up[i]!READY
                        :: up[i]!REFUSE
                        fi;
                        down[i]?GO;
                        atomic { has[i] = delta_has; known[i] = delta_known; become_active(i) }
                fi;
serving:
                do
                :: down[i]?EXITED -> acknowledge(i)
                :: down[i]?THAW
                :: down[i]?LEAVE -> goto left
                :: atomic { i == 0 && !tried -> tried = true; copy_has = has[i] }
                        up[i]!TAKEOVER;
                        serve_once(i); /* pre-copy: it serves on */
                        atomic { freeze(i) }
                        up[i]!FROZEN;
                        do
                        :: down[i]?EXITED -> held = true
                        :: down[i]?THAW -> break
                        :: down[i]?LEAVE -> goto left
                        :: atomic { !asked -> asked = true } /* it took too long, or the operator had enough */
#ifdef MUTANT_THAW_ALONE
                                break
#else
                                up[i]!ABORT
#endif
                        od;
                        atomic { become_active(i) }
                        if
                        :: held -> held = false; acknowledge(i)
                        :: else
                        fi
                :: atomic { consumed < 1 -> consumed++; known[i] = consumed }
                :: atomic { made < 1 -> made++; has[i] = made }
                od;
left:
                atomic { end_process(i) }
        } unless {
                !alive[i]
        }
}

/* ------------------------------------------------------------------------------------------------------------ the keeper */

/* report() - an exit that was not acknowledged is told to each generation that becomes the current one. */
inline report(i) {
        if
        :: exit_reaped && !exit_done && alive[i] -> down[i]!EXITED
        :: else
        fi
}

inline kill_and_reap(i) {
        if
        :: i != NOBODY -> end_process(i); reaped[i] = true
        :: else
        fi
}

inline commit() {
        former = current;
        current = next;
        next = NOBODY;
        frozen = false;
        ready = false;
        down[current]!GO;
        if
        :: alive[former] -> down[former]!LEAVE
        :: else
        fi;
        report(current)
}

/* roll_back() - no successor any more. Who was frozen goes on; who is not yet is told when FROZEN comes. */
inline roll_back() {
        kill_and_reap(next);
        next = NOBODY;
        ready = false;
        if
        :: frozen && alive[current] -> down[current]!THAW
        :: else
        fi;
        frozen = false
}

/* recover() - a reservation that nobody was born into goes; what was born and not started is killed. */
inline recover() {
        kill_and_reap(next);
        kill_and_reap(former);
        next = NOBODY;
        former = NOBODY;
        frozen = false;
        ready = false;
        if
        :: slot_born && !slot_started -> slot_born = false; running--
        :: else
        fi;
        slot_reserved = false;
        assert(started < GENERATIONS);
        current = started;
        started++;
        alive[current] = true;
        run Supervisor(current, true);
        report(current)
}

inline handle_frozen() {
        if
        :: next == NOBODY -> down[current]!THAW /* it has failed already */
        :: next != NOBODY && ready -> commit()
        :: next != NOBODY && !ready -> frozen = true
        fi
}

inline handle_ready() {
#ifdef MUTANT_COMMIT_EARLY
        commit()
#else
        if
        :: frozen -> commit()
        :: else -> ready = true
        fi
#endif
}

inline handle_born() {
        if
        :: slot_reserved -> slot_reserved = false; slot_born = true
        :: else -> running-- /* no reservation: killed at once */
        fi
}

inline handle_ack() {
        if
        :: exit_reaped && !exit_done ->
                exit_done = true;
#ifndef MUTANT_EFFECT_EARLY
                effects++
#endif
        :: else
        fi
}

inline handle_takeover() {
        next = started;
        started++;
        alive[next] = true;
        run Supervisor(next, false)
}

/* handle() - one message of generation i. What a generation that was left behind says is read and means nothing. */
inline handle(i) {
        if
        :: m == RESERVE && i == current -> slot_reserved = true
        :: m == BORN && i == current -> handle_born()
        :: m == STARTED && i == current -> slot_started = slot_born
        :: m == ACK && i == current -> handle_ack()
        :: m == TAKEOVER && i == current -> handle_takeover()
        :: m == FROZEN && i == current -> handle_frozen()
        :: m == READY && i == next -> handle_ready()
        :: m == REFUSE && i == next -> roll_back()
        :: m == ABORT && i == current && next != NOBODY -> roll_back()
        :: else
        fi
}

inline handle_death(i) {
        reaped[i] = true;
        if
        :: i == current -> recover() /* with FROZEN and READY read, the successor would be the current one */
        :: i == next && i != current -> roll_back()
        :: i == former && i != current && i != next -> former = NOBODY
        :: else
        fi
}

active proctype Keeper() {
        mtype m;
        byte i;

        atomic {
                next = NOBODY;
                former = NOBODY;
                started = 1;
                alive[0] = true;
                run Supervisor(0, false);
                run Runner();
                run Fate()
        }
end:
        do
        :: atomic { up[0]?m -> handle(0) }
        :: atomic { up[1]?m -> handle(1) }
        :: atomic { up[2]?m -> handle(2) }
        :: atomic { up[3]?m -> handle(3) }
        :: atomic { exited && !exit_reaped -> exit_reaped = true; report(current) }
        :: atomic {
                if
                :: started > 0 && !alive[0] && !reaped[0] -> i = 0
                :: started > 1 && !alive[1] && !reaped[1] -> i = 1
                :: started > 2 && !alive[2] && !reaped[2] -> i = 2
                :: started > 3 && !alive[3] && !reaped[3] -> i = 3
                fi
           }
#ifndef MUTANT_DEATH_AT_ONCE
                do
                :: atomic { up[i]?m -> handle(i) }
                :: atomic { END_OF(i) -> break }
                od;
#endif
                atomic {
                        if
                        :: !reaped[i] -> handle_death(i)
                        :: else
                        fi
                }
        od
}

/* --------------------------------------------------------------------------------------------------------- what happens */

proctype Runner() {
        if
        :: exited = true
        :: true
        fi
}

proctype Fate() {
end:
        do
        :: atomic { crashes < CRASHES && alive[0] -> crashes++; end_process(0) }
        :: atomic { crashes < CRASHES && alive[1] -> crashes++; end_process(1) }
        :: atomic { crashes < CRASHES && alive[2] -> crashes++; end_process(2) }
        :: atomic { crashes < CRASHES && alive[3] -> crashes++; end_process(3) }
        :: break
        od
}

#define SETTLED (N_ACTIVE == 1 && running == 1 && slot_started && effects == exited)

ltl always { [] (N_ACTIVE <= 1 && running <= 1 && effects <= 1) }
ltl in_the_end { <> [] SETTLED }
