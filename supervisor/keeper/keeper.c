/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Keeper: the parent that stays. It starts the supervisor, is born every runner's parent (they are cloned with
 * CLONE_PARENT), holds their descriptors and tells of their exits. It allocates nothing after the start, parses nothing
 * foreign and decides nothing but who lives: whatever is sent to it is answered, refused or logged.
 *
 * Order is everything here:
 * - A child says BORN before anything else, so when it is seen dead its BORN is already in the socket: an exit whose pid
 *   is not in the table makes us read the socket empty and look again before it is taken for a stranger's.
 * - The status is copied while the child is a zombie (WNOWAIT); while it is one, its number is its own, and its group
 *   can be killed. After it was reaped no signal goes to that number again.
 * - The supervisor's last words are read before its death is acted on.
 *
 * Phases: SERVING; STOPPING (the supervisor was told by SIGTERM and has stop_timeout); KILLING (everything gets SIGKILL,
 * again after each exit, since orphans come to us); ended when there is no child left. There is no recovery yet: a
 * supervisor that dies takes the tree with it.
 */

#include "supervisor/keeper/keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/keeper/children.h"
#include "supervisor/keeper/launch.h"
#include "supervisor/keeper/port.h"
#include "supervisor/keeper/table.h"

typedef enum Phase {
        PHASE_SERVING,
        PHASE_STOPPING,
        PHASE_KILLING,
        PHASE_ENDED,
} Phase;

typedef struct Keeper {
        Phase phase;
        uint64_t stop_timeout_us, deadline_us; /* of STOPPING */
        int status;                            /* the keeper's own, at the end */
        Table *table;
        Port port;
        pid_t supervisor; /* 0: reaped */
        bool condemned;   /* it did not keep the window and was killed */
        int signal_fd;
        int private_fd; /* borrowed; -1 once it ended */
        int pidfd;      /* of this process, for the supervisor and its children */
        int program;    /* of the supervisor */
} Keeper;

/* ------------------------------------------------------------------------------------------------ ending the tree */

static size_t count_runners(Keeper *k) {
        size_t n = 0;

        for (TableSlot *slot = table_first(k->table); slot; slot = table_next(slot))
                n += slot->state == TABLE_BORN;
        return n;
}

/* kill_runner() - its group, and itself: setsid comes after BORN, until then it has no group of its own. */
static int kill_runner(const TableSlot *slot, int signal) {
        int group = kill(-slot->pid, signal);

        if (group < 0 && errno != ESRCH)
                return -errno;
        if (group < 0 && kill(slot->pid, signal) < 0)
                return -errno;
        return 0;
}

static void kill_everything(Keeper *k) {
        int r;

        for (TableSlot *slot = table_first(k->table); slot; slot = table_next(slot))
                if (slot->state == TABLE_BORN)
                        (void) kill_runner(slot, SIGKILL);
        if (k->supervisor > 0)
                (void) kill(k->supervisor, SIGKILL);
        r = children_kill();
        if (r < 0)
                log_warning("cannot list children in /proc, orphans may stay: %s", strerror(-r));
}

static void begin_kill(Keeper *k) {
        if (k->phase >= PHASE_KILLING)
                return;
        k->phase = PHASE_KILLING;
        kill_everything(k);
}

static void begin_stop(Keeper *k, const char *why) {
        if (k->phase != PHASE_SERVING)
                return;
        log_info("%s: stopping", why);
        k->phase = PHASE_STOPPING;
        k->deadline_us = clock_after(clock_now(), k->stop_timeout_us);
        if (k->supervisor > 0)
                (void) kill(k->supervisor, SIGTERM);
}

/* ------------------------------------------------------------------------------------------------------- messages */

typedef int RequestHandler(Keeper *k, PortMessage *message);

static int on_reserve(Keeper *k, PortMessage *message) {
        const KeeperMessage *m = &message->m;

        return k->phase >= PHASE_KILLING ? -ESHUTDOWN : table_reserve(k->table, m->instance, m->name, m->flags);
}

static int on_put(Keeper *k, PortMessage *message) {
        const KeeperMessage *m = &message->m;

        return table_put(k->table, m->instance, m->fd_kind, m->fd_tag, fd_take(&message->fd));
}

static int on_drop(Keeper *k, PortMessage *message) {
        const KeeperMessage *m = &message->m;

        return table_drop(k->table, m->instance, m->fd_kind, m->fd_tag);
}

static int on_started(Keeper *k, PortMessage *message) {
        TableSlot *slot = table_find(k->table, message->m.instance);

        if (!slot)
                return -ENOENT;
        if (slot->state == TABLE_RESERVED)
                return -ENOTCONN; /* it says that there is a child, which did not say BORN */
        slot->started = true;
        return 0;
}

/*
 * on_cancel() - the supervisor knows of no child. One that was killed from outside between its BORN and telling the
 * supervisor so is a child all the same: it is not let live, and goes without a report.
 */
static int on_cancel(Keeper *k, PortMessage *message) {
        TableSlot *slot = table_find(k->table, message->m.instance);

        if (!slot)
                return -ENOENT;
        if (slot->state == TABLE_BORN) {
                slot->cancelled = true;
                return kill_runner(slot, SIGKILL);
        }
        table_free_slot(k->table, slot);
        return 0;
}

static int on_signal(Keeper *k, PortMessage *message) {
        TableSlot *slot = table_find(k->table, message->m.instance);

        if (!slot)
                return -ENOENT;
        return slot->state == TABLE_BORN ? kill_runner(slot, message->m.result) : -ESRCH;
}

static int on_ack(Keeper *k, PortMessage *message) {
        TableSlot *slot = table_find(k->table, message->m.instance);

        if (!slot)
                return -ENOENT;
        if (slot->state != TABLE_EXITED)
                return -EALREADY;
        table_free_slot(k->table, slot);
        return 0;
}

static int on_shutdown(Keeper *k, PortMessage *message) {
        k->status = message->m.result & 0xff;
        begin_kill(k);
        return 0;
}

/* on_born() - a child that nobody reserved a place for is not let live. */
static int on_born(Keeper *k, PortMessage *message) {
        int r = message->pid > 0 ? table_born(k->table, message->m.instance, message->pid) : -EINVAL;

        if (message->pid > 0 && (r < 0 || k->phase >= PHASE_KILLING))
                (void) kill(message->pid, SIGKILL);
        return r;
}

/* What is not here has nobody to handle it yet. */
static const struct {
        const char *name;
        RequestHandler *handle;
        bool answered; /* with DONE, always */
        bool takes_fd;
} requests[_KEEPER_TYPE_N] = {
        [KEEPER_RESERVE] = { "RESERVE", on_reserve, .answered = true },
        [KEEPER_PUT] = { "PUT", on_put, .answered = true, .takes_fd = true },
        [KEEPER_DROP] = { "DROP", on_drop, .answered = true },
        [KEEPER_STARTED] = { "STARTED", on_started },
        [KEEPER_CANCEL] = { "CANCEL", on_cancel },
        [KEEPER_SIGNAL] = { "SIGNAL", on_signal, .answered = true },
        [KEEPER_ACK] = { "ACK", on_ack },
        [KEEPER_SHUTDOWN] = { "SHUTDOWN", on_shutdown },
        [KEEPER_BORN] = { "BORN", on_born },
};

/* message_error() - what is wrong with it by its type; 0: it can be handled. */
static int message_error(const PortMessage *message) {
        unsigned type = message->m.type;

        if (message->error < 0 && !(message->error == -EMFILE && type < _KEEPER_TYPE_N && requests[type].takes_fd))
                return -EINVAL;
        if (message->error < 0)
                return message->error;
        if (type >= _KEEPER_TYPE_N || type == KEEPER_NONE)
                return -EINVAL;
        if (!requests[type].handle)
                return -EOPNOTSUPP;
        return requests[type].takes_fd == (message->fd >= 0) ? 0 : -EINVAL;
}

static void answer(Keeper *k, uint32_t serial, int result) {
        if (port_answer(&k->port, serial, result) == 0 || k->condemned)
                return;
        k->condemned = true; /* what it said before it dies is still read: BORNs may be among it */
        log_error("supervisor (pid %d) has more than %d unanswered requests: killed", k->supervisor, KEEPER_WINDOW);
        if (k->supervisor > 0)
                (void) kill(k->supervisor, SIGKILL);
}

static void handle_message(Keeper *k, PortMessage *message) {
        unsigned type = message->m.type;
        const char *name = type < _KEEPER_TYPE_N && requests[type].name ? requests[type].name : "message";
        int r = message_error(message);
        bool refused = r < 0;

        if (!refused)
                r = requests[type].handle(k, message);
        message->fd = fd_close(message->fd);
        if (refused && r != -EMFILE)
                log_warning("%s (type %u) from pid %d is refused: %s", name, type, message->pid, strerror(-r));
        else if (r < 0 && !requests[type].answered)
                log_warning("%s for instance %llu from pid %d has no effect: %s", name,
                            (unsigned long long) message->m.instance, message->pid, strerror(-r));
        if (refused ? message->m.serial != 0 : requests[type].answered)
                answer(k, message->m.serial, r);
}

/* read_port() - until it is empty. Answers are retried after each message, since POLLOUT comes late. */
static void read_port(Keeper *k) {
        for (;;) {
                PortMessage message;
                int r = port_receive(&k->port, &message);

                if (r == PORT_EMPTY)
                        break;
                if (r == PORT_CLOSED) {
                        port_close(&k->port);
                        if (k->supervisor > 0 && k->phase == PHASE_SERVING)
                                (void) kill(k->supervisor, SIGKILL); /* it may live, but nobody hears it any more */
                        break;
                }
                handle_message(k, &message);
                (void) port_flush(&k->port, k->table);
        }
}

/* ---------------------------------------------------------------------------------------------------------- exits */

static void supervisor_exited(Keeper *k, const siginfo_t *info) {
        bool exited = info->si_code == CLD_EXITED;
        if (k->phase == PHASE_STOPPING && exited) {
                k->status = info->si_status & 0xff;
        } else if (k->phase <= PHASE_STOPPING) {
                log_error("supervisor (pid %d) %s %d%s%s; runners killed with it: %zu", info->si_pid,
                          exited ? "exited with status" : "was killed by signal", info->si_status, exited ? "" : " SIG",
                          exited ? "" : sigabbrev_np(info->si_status) ?: "?", count_runners(k));
                k->status = 1;
        }
        k->supervisor = 0;
        begin_kill(k);
}

/* child_exited() - @info is of a zombie; it is reaped afterwards. */
static void child_exited(Keeper *k, const siginfo_t *info) {
        TableSlot *slot = table_find_pid(k->table, info->si_pid);

        if (!slot) {
                read_port(k); /* its BORN, or the supervisor's last words, are there */
                slot = table_find_pid(k->table, info->si_pid);
        }
        if (slot) {
                if (slot->flags & KEEPER_FLAG_KILL_GROUP)
                        (void) kill(-slot->pid, SIGKILL);
                if (slot->cancelled)
                        table_free_slot(k->table, slot);
                else
                        table_exited(k->table, slot, info->si_code, info->si_status);
        } else if (info->si_pid == k->supervisor) {
                supervisor_exited(k, info);
        }
}

static int wait_child(idtype_t type, pid_t pid, int flags, siginfo_t *ret_info) {
        int r;

        do {
                *ret_info = (siginfo_t){ 0 };
                r = waitid(type, (id_t) pid, ret_info, WEXITED | WNOHANG | __WALL | flags);
        } while (r < 0 && errno == EINTR);
        return r < 0 ? -errno : 0;
}

/* reap() - every child that has exited. */
static void reap(Keeper *k) {
        siginfo_t info;
        int r;

        read_port(k);
        while ((r = wait_child(P_ALL, 0, WNOWAIT, &info)) == 0 && info.si_pid > 0) {
                siginfo_t reaped;

                child_exited(k, &info);
                (void) wait_child(P_PID, info.si_pid, 0, &reaped);
        }
        if (k->phase == PHASE_KILLING && r == -ECHILD)
                k->phase = PHASE_ENDED;
        else if (k->phase == PHASE_KILLING)
                kill_everything(k);
}

/* ----------------------------------------------------------------------------------------------------------- loop */

static void read_signals(Keeper *k) {
        struct signalfd_siginfo info;
        bool child = false;

        while (read(k->signal_fd, &info, sizeof(info)) == (ssize_t) sizeof(info)) {
                if (info.ssi_signo == SIGCHLD)
                        child = true;
                else
                        begin_stop(k, sigdescr_np((int) info.ssi_signo));
        }
        if (child)
                reap(k);
}

static int poll_timeout(const Keeper *k) {
        uint64_t now, left_ms;

        if (k->phase != PHASE_STOPPING || k->deadline_us == USEC_INFINITY)
                return -1;
        now = clock_now();
        left_ms = k->deadline_us > now ? (k->deadline_us - now) / USEC_PER_MSEC + 1 : 0;
        return (int) MIN(left_ms, (uint64_t) INT32_MAX);
}

static void turn(Keeper *k) {
        bool waiting = port_flush(&k->port, k->table);
        struct pollfd fds[] = {
                { .fd = k->signal_fd, .events = POLLIN },
                { .fd = k->port.fd, .events = (short) (POLLIN | (waiting ? POLLOUT : 0)) },
                { .fd = k->private_fd }, /* POLLHUP and POLLERR come unasked */
        };

        if (poll(fds, ARRAY_SIZE(fds), poll_timeout(k)) < 0)
                return;
        if (fds[1].revents)
                read_port(k);
        if (fds[0].revents)
                read_signals(k);
        if (fds[2].revents) {
                k->private_fd = -1;
                begin_stop(k, "the client's lane ended");
        }
        if (k->phase == PHASE_STOPPING && clock_now() >= k->deadline_us) {
                log_warning("supervisor (pid %d) did not stop in time: everything is killed", k->supervisor);
                k->status = 1;
                begin_kill(k);
        }
}

/* ---------------------------------------------------------------------------------------------------------- start */

static int open_signals(void) {
        sigset_t signals;
        int fd;

        (void) sigemptyset(&signals);
        (void) sigaddset(&signals, SIGCHLD);
        (void) sigaddset(&signals, SIGTERM);
        (void) sigaddset(&signals, SIGINT);
        (void) sigaddset(&signals, SIGHUP);
        (void) sigprocmask(SIG_SETMASK, &signals, NULL);
        (void) signal(SIGCHLD, SIG_DFL); /* ignored, it would reap by itself */
        (void) signal(SIGPIPE, SIG_IGN); /* the log may go to a pipe that nobody reads any more */
        fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
        return fd < 0 ? -errno : fd;
}

/* close_inherited() - what is none of ours would be held open as long as the tree lives. */
static void close_inherited(int keep) {
        if (keep > 3)
                (void) close_range(3, (unsigned) keep - 1, 0);
        (void) close_range((unsigned) MAX(keep, 2) + 1, ~0u, 0);
}

static int start_supervisor(Keeper *k, const KeeperOptions *options, uint64_t nofile) {
        _cleanup_fd_ int socket = -1;
        const char *step = NULL;
        Launch launch;
        int r;

        r = port_open(&k->port, &socket);
        if (r < 0) {
                log_error("cannot make the supervisor's socket: %s", strerror(-r));
                return r;
        }
        launch = (Launch){
                .program = k->program,
                .socket = socket,
                .private_fd = k->private_fd,
                .keeper = k->pidfd,
                .generation = 1,
                .nofile = nofile,
                .stop_timeout_us = options->stop_timeout_us,
        };
        r = launch_supervisor(&launch, &k->supervisor, &step);
        if (r < 0)
                log_error("cannot start the supervisor: %s: %s", step, strerror(-r));
        return r;
}

/* prepare() - everything the keeper needs before it has a child. Says itself what failed. */
static int prepare(Keeper *k, struct rlimit *ret_nofile) {
        char path[4096];
        int r;

        k->program = launch_open_program(path, sizeof(path));
        if (k->program < 0) {
                log_error("cannot start the supervisor: open(%s): %s", path, strerror(-k->program));
                return k->program;
        }
        r = fd_raise_limit(ret_nofile);
        if (r == 0)
                r = table_new(&k->table, ret_nofile->rlim_max);
        if (r == 0)
                r = k->signal_fd = open_signals();
        if (r >= 0)
                r = (k->pidfd = pidfd_open(getpid(), 0)) < 0 ? -errno : 0;
        if (r == 0)
                r = prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ? -errno : 0;
        if (r < 0)
                log_error("cannot start: %s", strerror(-r));
        return r;
}

int keeper_run(const KeeperOptions *options) {
        Keeper k = {
                .stop_timeout_us = options->stop_timeout_us,
                .status = 1,
                .port = PORT_NULL,
                .signal_fd = -1,
                .private_fd = options->private_fd,
                .pidfd = -1,
                .program = -1,
        };
        struct rlimit nofile;

        close_inherited(options->private_fd);
        if (prepare(&k, &nofile) == 0 && start_supervisor(&k, options, nofile.rlim_cur) == 0)
                while (k.phase != PHASE_ENDED)
                        turn(&k);

        port_close(&k.port);
        k.table = table_free(k.table);
        fd_close(k.signal_fd);
        fd_close(k.pidfd);
        fd_close(k.program);
        return k.status;
}
