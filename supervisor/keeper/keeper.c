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
 * - Starts that come one after the other are read together: each would wake us for a message that the kernel keeps as well.
 *
 * Phases: SERVING; STOPPING (the supervisor was told by SIGTERM and has stop_timeout); KILLING (everything gets SIGKILL,
 * again after each exit, since orphans come to us); ended when there is no child left. Who supervises meanwhile is in
 * succession.c, what is asked of the keeper in request.c.
 */

#include "supervisor/keeper/keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/pages.h"
#include "common/version.h"
#include "supervisor/keeper/children.h"
#include "supervisor/keeper/keeper-internal.h"
#include "supervisor/keeper/launch.h"
#include "supervisor/keeper/replace.h"
#include "supervisor/keeper/state.h"

#define RETRY_US (10 * USEC_PER_MSEC)
#define PAUSE_US (100 * USEC_PER_MSEC) /* after a shortage */
#define REAP_US  (10 * USEC_PER_MSEC)  /* from one look at all children to the next, of many */
#define REST_US  USEC_PER_MSEC         /* after what nobody waits for: a few starts, which need not wake us each */

enum { MANY = 256 /* children */ };

void keeper_timer(Keeper *k, Timer timer, uint64_t delay_us) {
        k->timers[timer] = clock_after(clock_now(), delay_us);
}

/* ------------------------------------------------------------------------------------------------ ending the tree */

size_t keeper_count_runners(Keeper *k) {
        size_t n = 0;

        for (TableSlot *slot = table_first(k->table); slot; slot = table_next(slot))
                n += slot->state == TABLE_BORN;
        return n;
}

/* The group, and the process itself: setsid comes after BORN, until then it has no group of its own. */
int keeper_kill_runner(const TableSlot *slot, int signal) {
        int main = follow_kill(slot, signal), group;

        if (follow_is_followed(slot))
                return main;
        group = kill(-slot->pid, signal);
        if (group < 0 && errno != ESRCH)
                return -errno;
        if (group < 0 && kill(slot->pid, signal) < 0)
                return -errno;
        return 0;
}

static void kill_all(Keeper *k) {
        int r;

        for (TableSlot *slot = table_first(k->table); slot; slot = table_next(slot))
                if (slot->state == TABLE_BORN)
                        (void) keeper_kill_runner(slot, SIGKILL);
        if (k->supervisor > 0)
                (void) kill(k->supervisor, SIGKILL);
        r = children_kill();
        if (r < 0)
                log_warning("cannot list children in /proc, orphans may stay: %s", strerror(-r));
}

void keeper_kill_everything(Keeper *k) {
        if (k->phase >= PHASE_KILLING)
                return;
        k->phase = PHASE_KILLING;
        replace_cancel(k, "everything is being stopped");
        takeover_end(k);
        k->timers[TIMER_STOP] = k->timers[TIMER_START] = USEC_INFINITY;
        notify_say(&k->notify, KEEPER_NOTIFY_STOPPING, NULL);
        kill_all(k);
}

/* When the last is gone, reap() goes on with what nobody knows. */
void keeper_stop_runners(Keeper *k) {
        k->status = 0;
        for (TableSlot *slot = table_first(k->table); slot; slot = table_next(slot))
                if (slot->state == TABLE_BORN)
                        (void) keeper_kill_runner(slot, SIGTERM);
        if (keeper_count_runners(k) == 0)
                keeper_kill_everything(k);
}

static void begin_stop(Keeper *k, const char *why) {
        if (k->phase != PHASE_SERVING)
                return;
        log_info("%s: stopping", why);
        replace_cancel(k, "everything is being stopped");
        takeover_cancel(k, "everything is being stopped");
        k->phase = PHASE_STOPPING;
        keeper_timer(k, TIMER_STOP, k->options->stop_timeout_us);
        k->timers[TIMER_START] = USEC_INFINITY;
        notify_say(&k->notify, KEEPER_NOTIFY_STOPPING, NULL);
        if (k->supervisor > 0)
                (void) kill(k->supervisor, SIGTERM);
        else
                keeper_stop_runners(k);
}

static void stop_late(Keeper *k) {
        if (k->supervisor > 0)
                log_warning("supervisor (pid %d) did not stop in time: everything is killed", k->supervisor);
        else
                log_warning("runners did not stop in time: everything is killed");
        k->status = 1;
        keeper_kill_everything(k);
}

/* ---------------------------------------------------------------------------------------------------------- exits */

void keeper_describe(const siginfo_t *info, char how[KEEPER_HOW_SIZE]) {
        if (info->si_code == CLD_EXITED)
                (void) snprintf(how, KEEPER_HOW_SIZE, "exited with status %d", info->si_status);
        else
                (void) snprintf(how, KEEPER_HOW_SIZE, "was killed by signal %d SIG%s", info->si_status,
                                sigabbrev_np(info->si_status) ?: "?");
}

static void supervisor_exited(Keeper *k, const siginfo_t *info) {
        pid_t pid = info->si_pid;
        bool exited = info->si_code == CLD_EXITED;
        char how[KEEPER_HOW_SIZE];

        keeper_describe(info, how);
        if (pid == k->supervisor) {
                port_end(&k->port);
                (void) keeper_read_port(k); /* its last words: it may have been followed by them */
        }
        if (!takeover_died(k, pid) && pid == k->supervisor)
                succession_died(k, how, exited ? info->si_status & 0xff : -1);
}

static bool is_supervisor(const Keeper *k, pid_t pid) {
        return pid == k->supervisor || pid == k->takeover.next || pid == k->takeover.former;
}

/* child_exited() - @info is of a zombie; it is reaped afterwards. */
static void child_exited(Keeper *k, const siginfo_t *info) {
        TableSlot *slot = table_find_pid(k->table, info->si_pid);
        char how[KEEPER_HOW_SIZE];

        if (!slot) {
                (void) keeper_read_port(k); /* its BORN, or the supervisor's last words, are there */
                slot = table_find_pid(k->table, info->si_pid);
        }
        if (slot) {
                if (follow_main(k, slot))
                        return;
                if (slot->flags & KEEPER_FLAG_KILL_GROUP)
                        (void) (follow_is_followed(slot) ? follow_kill(slot, SIGKILL) : kill(-slot->pid, SIGKILL));
                if (slot->cancelled)
                        table_free_slot(k->table, slot);
                else
                        table_exited(k->table, slot, info->si_code, info->si_status);
        } else if (is_supervisor(k, info->si_pid)) {
                supervisor_exited(k, info);
        } else if (info->si_pid == k->replacement.pid) {
                keeper_describe(info, how);
                replace_died(k, how);
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

/* reap_one() - of those that @type and @pid name. 0: one that had exited is no more; else there is none, and -ECHILD: no child. */
static int reap_one(Keeper *k, idtype_t type, pid_t pid) {
        siginfo_t info, reaped;
        int r = wait_child(type, pid, WNOWAIT, &info);

        if (r < 0 || info.si_pid <= 0)
                return r < 0 ? r : -EAGAIN;
        child_exited(k, &info);
        (void) wait_child(P_PID, info.si_pid, 0, &reaped);
        return 0;
}

/* has_many() - children: the kernel goes over all of them to say which one has exited. */
static bool has_many(const Keeper *k) {
        return table_count(k->table).slots >= MANY;
}

/* reap_all() - every child that has exited. */
static void reap_all(Keeper *k) {
        int r;

        (void) keeper_read_port(k);
        while ((r = reap_one(k, P_ALL, 0)) == 0)
                ;
        k->next_reap_us = has_many(k) ? clock_after(clock_now(), REAP_US) : 0;
        if (k->phase == PHASE_STOPPING && k->reign == REIGN_NONE && keeper_count_runners(k) == 0)
                keeper_kill_everything(k);
        if (k->phase == PHASE_KILLING && r == -ECHILD)
                k->phase = PHASE_ENDED;
        else if (k->phase == PHASE_KILLING)
                kill_all(k);
}

/*
 * reap() - @pid has exited, if it is a child, and others may have, whose signals became one with its. Of many children these
 * are looked for when the end of this one is reported, and not with each that ends.
 */
static void reap(Keeper *k, pid_t pid) {
        k->timers[TIMER_REST] = USEC_INFINITY; /* what the supervisor has to say of it is waited for */
        (void) keeper_read_port(k);
        (void) reap_one(k, P_PID, pid);
        if (!has_many(k))
                reap_all(k);
        else if (k->timers[TIMER_REAP] == USEC_INFINITY)
                k->timers[TIMER_REAP] = MAX(k->next_reap_us, clock_now() + USEC_PER_MSEC);
}

static void start_next(Keeper *k) {
        (void) succession_start(k);
}

/* ----------------------------------------------------------------------------------------------------------- loop */

/* reload() - with a private client there is nothing to load: whoever hangs up wants us to end. */
static void reload(Keeper *k) {
        if (!keeper_is_daemon(k)) {
                begin_stop(k, sigdescr_np(SIGHUP));
                return;
        }
        k->port.say |= PORT_SAY_RELOAD;
        if (k->ladder.rung == LADDER_DOWN)
                succession_force(k);
}

static void signalled(Keeper *k, int number) {
        if (number == SIGHUP)
                reload(k);
        else if (number == SIGUSR1)
                succession_force(k);
        else
                begin_stop(k, sigdescr_np(number));
}

static void read_signals(Keeper *k) {
        struct signalfd_siginfo info;

        while (read(k->signal_fd, &info, sizeof(info)) == (ssize_t) sizeof(info)) {
                if (info.ssi_signo == SIGCHLD)
                        reap(k, (pid_t) info.ssi_pid);
                else
                        signalled(k, (int) info.ssi_signo);
        }
}

/* send_away() - clients, while there is no supervisor: the end of the connection, and whose it was, tells them so. */
static void send_away(Keeper *k, int listener) {
        int fd = -1;

        for (;;) {
                fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                if (fd < 0)
                        break;
                fd_close(fd);
        }
        if (errno != EAGAIN && errno != ECONNABORTED)
                keeper_timer(k, TIMER_ACCEPT, PAUSE_US);
}

static void (*const expired[_TIMER_N])(Keeper *) = {
        [TIMER_STOP] = stop_late,
        [TIMER_START] = start_next,
        [TIMER_HANG] = succession_hang,
        [TIMER_WATCHDOG] = succession_watchdog,
        [TIMER_RETRY] = NULL, /* to wake up is all */
        [TIMER_ACCEPT] = NULL,
        [TIMER_TAKEOVER] = takeover_late,
        [TIMER_LEAVE] = takeover_leave_late,
        [TIMER_REST] = NULL,
        [TIMER_REAP] = reap_all,
        [TIMER_REHEARSAL] = replace_late,
};

static void run_timers(Keeper *k) {
        uint64_t now = clock_now();

        for (size_t i = 0; i < _TIMER_N; i++) {
                if (k->timers[i] > now)
                        continue;
                k->timers[i] = USEC_INFINITY;
                if (expired[i])
                        expired[i](k);
        }
}

static int poll_timeout(const Keeper *k) {
        uint64_t next = USEC_INFINITY, now;

        for (size_t i = 0; i < _TIMER_N; i++)
                next = MIN(next, k->timers[i]);
        if (next == USEC_INFINITY)
                return -1;
        now = clock_now();
        return next > now ? (int) MIN((next - now) / USEC_PER_MSEC + 1, (uint64_t) INT32_MAX) : 0;
}

/* flush() - the events to wait for at @port. */
static short flush(Keeper *k, Port *port) {
        PortFlushed r = port_flush(port, k->table);

        if (r == PORT_RETRY)
                keeper_timer(k, TIMER_RETRY, RETRY_US);
        return (short) (POLLIN | (r == PORT_FULL ? POLLOUT : 0));
}

static void turn(Keeper *k) {
        bool rests = k->timers[TIMER_REST] != USEC_INFINITY && k->takeover.next == 0; /* FROZEN is waited for */
        bool refuse = keeper_is_daemon(k) && succession_is_absent(k) && k->timers[TIMER_ACCEPT] == USEC_INFINITY;
        struct pollfd fds[] = {
                { .fd = k->signal_fd, .events = POLLIN },
                { .fd = rests ? -1 : k->port.fd, .events = flush(k, &k->port) },
                { .fd = k->private_fd }, /* POLLHUP and POLLERR come unasked */
                { .fd = refuse ? k->listener : -1, .events = POLLIN },
                { .fd = k->takeover.port.fd, .events = flush(k, &k->takeover.port) },
                { .fd = k->takeover.former_port.fd, .events = POLLIN },
        };

        succession_check(k);
        if (poll(fds, ARRAY_SIZE(fds), poll_timeout(k)) < 0)
                return;
        if (fds[1].revents && keeper_read_port(k))
                keeper_timer(k, TIMER_REST, REST_US);
        if (fds[4].revents || fds[5].revents)
                takeover_read(k);
        if (fds[0].revents)
                read_signals(k);
        if (fds[2].revents) {
                k->private_fd = -1;
                begin_stop(k, "the client's lane ended");
        }
        if (fds[3].revents)
                send_away(k, k->listener);
        run_timers(k);
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
        (void) sigaddset(&signals, SIGUSR1);
        (void) sigprocmask(SIG_SETMASK, &signals, NULL);
        (void) signal(SIGCHLD, SIG_DFL); /* ignored, it would reap by itself */
        (void) signal(SIGPIPE, SIG_IGN); /* the log may go to a pipe that nobody reads any more */
        fd = fd_close_promptly();
        if (fd < 0)
                return fd;
        fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
        return fd < 0 ? -errno : fd;
}

/* close_inherited() - what is none of ours would be held open as long as the tree lives. */
static void close_inherited(int keep) {
        if (keep > 3)
                (void) close_range(3, (unsigned) keep - 1, 0);
        (void) close_range((unsigned) MAX(keep, 2) + 1, ~0u, 0);
}

/* open_place() - the listener is stored like everything that must survive a supervisor. */
static int open_place(Keeper *k) {
        int r = place_open(&k->place, &k->options->place, &k->listener);

        if (r < 0)
                return r;
        r = table_put(k->table, 0, KEEPER_FD_CONTROL, 0, false, k->listener);
        if (r < 0)
                log_error("cannot start: storing the control listener: %s", strerror(-r));
        return r;
}

/* prepare() - everything the keeper needs before it has a child. Says itself what failed. */
static int prepare(Keeper *k) {
        struct rlimit nofile;
        char path[4096];
        int r;

        k->program = launch_open_program(path, sizeof(path));
        if (k->program < 0) {
                log_error("cannot start the supervisor: open(%s): %s", path, strerror(-k->program));
                return k->program;
        }
        r = fd_raise_limit(&nofile);
        if (r == 0)
                r = table_new(&k->table, nofile.rlim_max);
        if (r == 0)
                r = k->signal_fd = open_signals();
        if (r >= 0)
                r = (k->pidfd = pidfd_open(getpid(), 0)) < 0 ? -errno : 0;
        if (r == 0)
                r = prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ? -errno : 0;
        if (r < 0) {
                log_error("cannot start: %s", strerror(-r));
                return r;
        }
        k->nofile = nofile.rlim_cur;
        if (!keeper_is_daemon(k))
                return 0;
        (void) launch_reserve(&k->stage);
        notify_open(&k->notify);
        return open_place(k);
}

static void init(Keeper *k, const KeeperOptions *options) {
        *k = (Keeper){
                .options = options,
                .status = 1,
                .port = PORT_NULL,
                .place = PLACE_NULL,
                .notify = NOTIFY_NULL,
                .signal_fd = -1,
                .private_fd = options->private_fd,
                .pidfd = -1,
                .listener = -1,
                .program = -1,
                .previous = -1,
                .stage = LAUNCH_STAGE_NULL,
                .replacement = { .program = -1, .answer = -1 },
                .takeover = { .program = -1, .port = PORT_NULL, .former_port = PORT_NULL },
        };
        for (size_t i = 0; i < _TIMER_N; i++)
                k->timers[i] = USEC_INFINITY;
}

static void loop(Keeper *k) {
        while (k->phase != PHASE_ENDED) {
                turn(k);
                replace_perform(k);
        }
}

static int deinit(Keeper *k) {
        place_close(&k->place);
        port_close(&k->port);
        k->table = table_free(k->table);
        notify_close(&k->notify);
        fd_close(k->signal_fd);
        fd_close(k->pidfd);
        fd_close(k->program);
        fd_close(k->previous);
        fd_close(k->takeover.program);
        launch_unreserve(&k->stage);
        return k->status;
}

int keeper_run(const KeeperOptions *options) {
        Keeper k;

        init(&k, options);
        close_inherited(options->private_fd);
        if (prepare(&k) == 0 && succession_start(&k) == 0)
                loop(&k);
        return deinit(&k);
}

/* ---------------------------------------------------------------------------------------------- in place of another one */

/* restore() - 0, or a negative errno with why. */
static int restore(Keeper *k, int memfd, char reason[STATE_REASON_SIZE]) {
        struct rlimit nofile;
        int r = fd_raise_limit(&nofile);

        if (r == 0)
                r = table_new(&k->table, nofile.rlim_max);
        if (r == 0)
                return state_restore(k, memfd, reason);
        (void) snprintf(reason, STATE_REASON_SIZE, "%s", strerror(-r));
        return r;
}

int keeper_continue(const KeeperOptions *options, int memfd_consume, int former_consume) {
        _cleanup_fd_ int memfd = memfd_consume, former = former_consume;
        char reason[STATE_REASON_SIZE];
        Keeper k;
        int r;

        init(&k, options);
        (void) launch_reserve(&k.stage);
        r = k.signal_fd = open_signals();
        if (r >= 0)
                r = (k.pidfd = pidfd_open(getpid(), 0)) < 0 ? -errno : 0;
        (void) snprintf(reason, sizeof(reason), "%s", strerror(-r));
        if (r == 0)
                r = restore(&k, memfd, reason);
        if (r < 0) {
                log_error("cannot go on as the keeper: %s", reason);
                replace_go_back(options, memfd, former);
                return EXIT_FAILURE;
        }
        state_inherit(&k, false);
        pages_forget();
        if (former >= 0)
                replace_done(&k, version_release());
        else
                replace_undone(&k);
        memfd = fd_close(memfd);
        former = fd_close(former);
        reap_all(&k);
        loop(&k);
        return deinit(&k);
}

int keeper_rehearse(const KeeperOptions *options, int memfd, int answer) {
        char reason[STATE_REASON_SIZE], text[STATE_REASON_SIZE + sizeof(REPLACE_READY)];
        Keeper k;
        int r;

        init(&k, options);
        r = restore(&k, memfd, reason);
        (void) snprintf(text, sizeof(text), "%s%s", r < 0 ? "" : REPLACE_READY, r < 0 ? reason : version_release());
        return write(answer, text, strlen(text)) == (ssize_t) strlen(text) && r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
