#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of the keeper share, and nobody else includes: keeper.c (its loop, signals, exits, the end of the tree),
 * request.c (what is asked of it), succession.c (which supervisor runs), takeover.c (one follows another that lives).
 */

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/keeper/keeper.h"
#include "supervisor/keeper/ladder.h"
#include "supervisor/keeper/launch.h"
#include "supervisor/keeper/notify.h"
#include "supervisor/keeper/place.h"
#include "supervisor/keeper/port.h"
#include "supervisor/keeper/table.h"

typedef struct Keeper Keeper;
typedef struct Replacement Replacement;
typedef struct Takeover Takeover;

/* Of the whole tree. */
typedef enum Phase {
        PHASE_SERVING,
        PHASE_STOPPING, /* the supervisor was told, or, where there is none, the runners */
        PHASE_KILLING,  /* everything gets SIGKILL, again after each exit, since orphans come to us */
        PHASE_ENDED,    /* no child is left */
} Phase;

/* Of the one supervisor. */
typedef enum Reign {
        REIGN_NONE,     /* there is none; TIMER_START may be running */
        REIGN_STARTING, /* it reads the table */
        REIGN_SERVING,
        REIGN_ABORTED, /* it hung, got SIGABRT, and then SIGKILL: it is to be reaped */
} Reign;

typedef enum Timer {
        TIMER_STOP,      /* the end of STOPPING */
        TIMER_START,     /* of the next supervisor */
        TIMER_HANG,      /* look whether it answers */
        TIMER_WATCHDOG,  /* of the service manager */
        TIMER_RETRY,     /* of sending */
        TIMER_ACCEPT,    /* connections are refused again, after a shortage */
        TIMER_TAKEOVER,  /* of a predecessor that is frozen */
        TIMER_LEAVE,     /* of one that was told to go */
        TIMER_REHEARSAL, /* of what is to go on in our place */
        TIMER_REST,      /* the supervisor's socket is not looked at until then */
        TIMER_REAP,      /* look at all children */
        _TIMER_N,
} Timer;

/* Beside the current supervisor: one that is to follow it, and the one that it has followed. */
struct Takeover {
        int program; /* of the successor; -1: that of the current one */
        pid_t next;  /* 0: none */
        uint32_t generation;
        Port port;
        bool frozen, ready; /* what was read of the two */
        pid_t former;       /* 0: none, or reaped */
        Port former_port;
        bool on_trial; /* the current program came by a takeover, and has not been healthy yet */
};

/* The program that is to go on in our place, while it is tried. */
struct Replacement {
        pid_t pid;   /* of the rehearsal; 0: there is none */
        int program; /* or -1 */
        int answer;  /* the end to read of what it says, or -1 */
        bool check;  /* it is only tried */
};

struct Keeper {
        const KeeperOptions *options;
        Phase phase;
        uint64_t timers[_TIMER_N]; /* USEC_INFINITY: not set */
        uint64_t next_reap_us;     /* not before then are all children looked at, of many */
        int status;                /* the keeper's own, at the end */
        int signal_fd;
        int private_fd; /* borrowed; -1: there is none, or it ended */
        int pidfd;      /* of this process, for the supervisor and its children */
        LaunchStage stage;
        uint64_t nofile;
        Place place;
        int listener; /* of the control socket; the table's */
        Notify notify;
        Table *table;

        int program, previous; /* of the supervisor; -1: there is none before it */
        Ladder ladder;
        uint32_t generation; /* of the last that was started */
        uint32_t reigning;   /* of the supervisor */
        Reign reign;
        Port port;
        pid_t supervisor;   /* 0: reaped */
        uint64_t served_us; /* since when it serves; 0: it does not */
        Takeover takeover;
        Replacement replacement;
        bool condemned;     /* it did not keep the window and was killed */
        bool has_served;    /* any of them ever */
        uint64_t heard_us;  /* the last message of the supervisor itself */
        uint64_t pinged_us; /* since when a PING is not answered; 0: none is */
};

/* ---- keeper.c ---- */

/* keeper_timer() - sets it to fire @delay_us from now. */
void keeper_timer(Keeper *k, Timer timer, uint64_t delay_us);

/* keeper_kill_runner() - its whole group. 0 or a negative errno. */
int keeper_kill_runner(const TableSlot *slot, int signal);

/* keeper_describe() - for people: "exited with status 3". */
enum { KEEPER_HOW_SIZE = 64 };
void keeper_describe(const siginfo_t *info, char how[KEEPER_HOW_SIZE]);

/* keeper_count_runners() - those that have a process. */
size_t keeper_count_runners(Keeper *k);

/* keeper_kill_everything() - the phase is KILLING from now on, unless it is later. */
void keeper_kill_everything(Keeper *k);

/* keeper_stop_runners() - SIGTERM to all: where there is no supervisor that could stop them better. */
void keeper_stop_runners(Keeper *k);

/* ---- request.c ---- */

/*
 * keeper_read_port() - until it is empty or at its end. True: there was something, and all of it was such that nobody waits
 * for what comes of it.
 */
bool keeper_read_port(Keeper *k);

/* ---- follow.c ---- */

/* follow_main() - the process of @slot is a zombie: true: another one goes on in its place. */
bool follow_main(Keeper *k, TableSlot *slot);

/* follow_is_followed() - it does: the process of @slot is not the one that was started. */
bool follow_is_followed(const TableSlot *slot);

/*
 * follow_kill() - to the group of the process that is named, where that is not the one of the slot's own; to it alone where
 * its group is nobody's to be signalled. -ESRCH: there is none, or its number cannot be relied on.
 */
int follow_kill(const TableSlot *slot, int signal);

/* follow_dropped() - the supervisor has seen the end of the process of @slot, which was followed. */
void follow_dropped(Keeper *k, TableSlot *slot);

/* ---- succession.c ---- */

/* succession_start() - the first supervisor, or the next one, now. 0, or a negative errno, having said why. */
int succession_start(Keeper *k);

/*
 * succession_died() - the supervisor is a zombie. @how is for people: "exited with status 3"; @exit_status is -1 where a
 * signal killed it.
 */
void succession_died(Keeper *k, const char *how, int exit_status);

/* succession_launch() - the next generation. @program -1: the present one; @handover -1: it has no predecessor. */
int succession_launch(Keeper *k, int program, int socket, int handover, pid_t *ret_pid, const char **ret_step);

/* succession_reign() - the supervisor is another one, which has yet to serve. */
void succession_reign(Keeper *k);

/* succession_force() - kills it, if there is one: the next is started at once, even where none was to be. */
void succession_force(Keeper *k);

/* succession_serving() - it said so. */
void succession_serving(Keeper *k);

/* succession_heard() - it said anything. */
void succession_heard(Keeper *k);

/* succession_ping() - the supervisor is to say that it is alive. */
void succession_ping(Keeper *k);

/* succession_check() - before each wait: whether the timer of a hanging supervisor is to run. */
void succession_check(Keeper *k);

/* succession_hang(), succession_watchdog() - the timers. */
void succession_hang(Keeper *k);
void succession_watchdog(Keeper *k);

/* succession_is_absent() - there is none and will be none for a while: clients are sent away. */
bool succession_is_absent(const Keeper *k);

/* ---- takeover.c ---- */

/* takeover_may_begin() - 0, or why neither a supervisor nor the keeper can be replaced now, as below. */
int takeover_may_begin(const Keeper *k);

/* takeover_forget() - who was followed had all the time there is, and what was to be executed next is not. */
void takeover_forget(Keeper *k);

/*
 * What the current supervisor asks. takeover_program() - what the next takeover executes. takeover_begin() - starts a
 * successor. Both: -EOPNOTSUPP: of a private tree; -ESHUTDOWN; -EBUSY: one is under way, or the last has not served yet.
 */
int takeover_program(Keeper *k, int fd_consume);
int takeover_begin(Keeper *k, int handover_consume);
int takeover_frozen(Keeper *k);
int takeover_abort(Keeper *k);

/* takeover_cancel() - the successor goes, if there is one, and the supervisor goes on. */
void takeover_cancel(Keeper *k, const char *why);

/* takeover_late(), takeover_leave_late() - the timers. */
void takeover_late(Keeper *k);
void takeover_leave_late(Keeper *k);

/* takeover_read() - both sockets, until they are empty or at their ends; and sends the successor what waits. */
void takeover_read(Keeper *k);

/* takeover_died() - @pid is a zombie, and the supervisor's socket was read. True: it was one of the two. */
bool takeover_died(Keeper *k, pid_t pid);

/* takeover_end() - the supervisor is gone, or everything ends: so do they. */
void takeover_end(Keeper *k);

/* ---- replace.c ---- */

/* replace_begin() - tries @program_consume. Errors as takeover_begin(), and why its child could not be made. */
int replace_begin(Keeper *k, int program_consume, bool check);

/* replace_died() - the rehearsal is a zombie. */
void replace_died(Keeper *k, const char *how);

/* replace_perform() - between two turns: executes what was tried. Returns where there is nothing to, or it failed. */
void replace_perform(Keeper *k);

/* replace_cancel() - it goes, if there is one. */
void replace_cancel(Keeper *k, const char *why);

/* replace_late() - the timer. */
void replace_late(Keeper *k);

/* keeper_is_daemon() - it has a control socket instead of a client, and outlives its supervisors. */
static inline bool keeper_is_daemon(const Keeper *k) {
        return k->options->private_fd < 0;
}
