/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Keeper, replace: another program goes on in this very process: same pid, so that children stay children, the service
 * manager's MAINPID the same, and no runner's PR_SET_PDEATHSIG fires. There is no way back once it runs, so it is tried
 * first, by a copy of ours: a child that has every descriptor under the same number, executes the program on a copy of the
 * state, and says READY when all of it was understood and is there. It touches nothing; what it is told to try is over with
 * it.
 *
 * Then the state is written once more, between two turns of the loop, and the program is executed. What happens meanwhile
 * waits in the kernel: signals are blocked and stay pending, children stay zombies, messages stay in their sockets. The new
 * program looks at all of them before it waits for anything. An exec that fails has changed nothing. A program that finds the
 * second state not to its liking, against all expectation, executes ours again, by the descriptor that it is given for that.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/keeper/keeper-internal.h"
#include "supervisor/keeper/launch.h"
#include "supervisor/keeper/replace.h"
#include "supervisor/keeper/state.h"

#define REHEARSAL_US (10 * USEC_PER_SEC)

enum { ARGUMENTS_MAX = 32 + LAUNCH_CONFIGS_MAX };

/* execute() - @option in front of our own arguments. Returns a negative errno; nothing has changed. */
static int execute(char *const *argv, int program, char *option) {
        char *arguments[ARGUMENTS_MAX + 1] = { argv[0], option };
        size_t n = 2;

        for (char *const *argument = argv + 1; *argument && n < ARGUMENTS_MAX; argument++)
                arguments[n++] = *argument;
        (void) execveat(program, "", arguments, environ, AT_EMPTY_PATH);
        return -errno;
}

/* told() - what became of it, to the supervisor that asked; the text without what a terminal would not print. */
static void told(Keeper *k, int result, const char *text) {
        (void) snprintf(k->port.text, sizeof(k->port.text), "%s", text);
        for (char *c = k->port.text; *c; c++)
                if (*c < ' ' || *c > '~')
                        *c = '?';
        k->port.result = result;
        k->port.say |= PORT_SAY_REPLACED;
}

static void forget(Keeper *k) {
        Replacement *replacement = &k->replacement;
        siginfo_t info;
        int r;

        replacement->program = fd_close(replacement->program);
        replacement->answer = fd_close(replacement->answer);
        k->timers[TIMER_REHEARSAL] = USEC_INFINITY;
        if (replacement->pid == 0)
                return;
        (void) kill(replacement->pid, SIGKILL);
        do {
                r = waitid(P_PID, (id_t) replacement->pid, &info, WEXITED | __WALL);
        } while (r < 0 && errno == EINTR);
        replacement->pid = 0;
}

static void failed(Keeper *k, const char *why) {
        log_warning("the keeper is not replaced: %s; pid %d goes on", why, (int) getpid());
        told(k, -ECANCELED, why);
        forget(k);
}

/* ------------------------------------------------------------------------------------------------------------ rehearsal */

/* run_rehearsal() - in the child; its descriptors are a table of its own. */
static void __attribute__((__noreturn__)) run_rehearsal(Keeper *k, int memfd, int answer) {
        char option[64], why[STATE_REASON_SIZE];
        int r;

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void) snprintf(option, sizeof(option), "--rehearse=%d,%d", memfd, answer);
        state_inherit(k, true);
        (void) fcntl(memfd, F_SETFD, 0);
        (void) fcntl(answer, F_SETFD, 0);
        r = execute(k->options->argv, k->replacement.program, option);
        (void) snprintf(why, sizeof(why), "%s%s", strerror(-r),
                        r == -ENOENT ? " (a script, or a program without its loader)" : "");
        (void) !write(answer, why, strlen(why));
        _exit(127);
}

static int start_rehearsal(Keeper *k) {
        _cleanup_fd_ int memfd = -1;
        int answer[2], r;
        pid_t pid;

        r = state_save(k, &memfd);
        if (r < 0)
                return r;
        if (pipe2(answer, O_CLOEXEC | O_NONBLOCK) < 0)
                return -errno;
        pid = fork();
        if (pid == 0)
                run_rehearsal(k, memfd, answer[1]);
        fd_close(answer[1]);
        if (pid < 0) {
                r = -errno;
                fd_close(answer[0]);
                return r;
        }
        k->replacement.pid = pid;
        k->replacement.answer = answer[0];
        keeper_timer(k, TIMER_REHEARSAL, MIN(REHEARSAL_US, k->options->hang_timeout_us));
        return 0;
}

int replace_begin(Keeper *k, int program_consume, bool check) {
        _cleanup_fd_ int program = program_consume;
        int r = takeover_may_begin(k);

        if (r < 0)
                return r;
        if (!k->options->argv)
                return -EOPNOTSUPP;
        k->replacement.program = fd_take(&program);
        k->replacement.check = check;
        r = start_rehearsal(k);
        if (r < 0) {
                log_warning("the keeper is not replaced: cannot try it: %s", strerror(-r));
                forget(k);
        }
        return r;
}

/* judge() - it has ended: what it had said. */
static void judge(Keeper *k, const char *how) {
        char text[STATE_REASON_SIZE] = "", why[STATE_REASON_SIZE + 64];
        ssize_t n = read(k->replacement.answer, text, sizeof(text) - 1);
        size_t prefix = strlen(REPLACE_READY);

        text[MAX(n, (ssize_t) 0)] = '\0';
        if (strncmp(text, REPLACE_READY, prefix) != 0) {
                (void) snprintf(why, sizeof(why), "it %s in the rehearsal%s%s", how, *text ? ": " : ", without a word",
                                text);
                failed(k, why);
        } else if (k->replacement.check) {
                told(k, 0, text + prefix);
                forget(k);
        } else {
                k->replacement.answer = fd_close(k->replacement.answer);
                k->timers[TIMER_REHEARSAL] = USEC_INFINITY;
        }
}

void replace_died(Keeper *k, const char *how) {
        k->replacement.pid = 0; /* who called us reaps it */
        judge(k, how);
}

void replace_cancel(Keeper *k, const char *why) {
        if (k->replacement.program >= 0)
                failed(k, why);
}

void replace_late(Keeper *k) {
        replace_cancel(k, "it did not get ready in the rehearsal in time");
}

/* -------------------------------------------------------------------------------------------------------------- the exec */

/* perform() - returns a negative errno. */
static int perform(Keeper *k) {
        _cleanup_fd_ int memfd = -1, own = open("/proc/self/exe", O_PATH | O_CLOEXEC);
        char option[64];
        int r;

        if (own < 0)
                return -errno; /* there would be no way back */
        r = state_save(k, &memfd);
        if (r < 0)
                return r;
        (void) snprintf(option, sizeof(option), "--continue=%d,%d", memfd, own);
        state_inherit(k, true);
        (void) fcntl(memfd, F_SETFD, 0);
        (void) fcntl(own, F_SETFD, 0);
        r = execute(k->options->argv, k->replacement.program, option);
        state_inherit(k, false);
        return r;
}

/* A word that waits for room is written down; one that is half way through the table is not. */
void replace_perform(Keeper *k) {
        char why[STATE_REASON_SIZE];
        int r;

        if (k->replacement.program < 0 || k->replacement.pid > 0)
                return;
        takeover_forget(k);
        r = perform(k);
        (void) snprintf(why, sizeof(why), "exec: %s", strerror(-r));
        failed(k, why);
}

/* ---------------------------------------------------------------------------------------------------- on the other side */

void replace_done(Keeper *k, const char *release) {
        log_info("keeper %s goes on, pid %d", release, (int) getpid());
        told(k, 0, release);
}

void replace_undone(Keeper *k) {
        log_error("the keeper is not replaced: the new program could not go on, pid %d does", (int) getpid());
        told(k, -EPROTO, "the new program could not go on with it");
}

void replace_go_back(const KeeperOptions *options, int memfd, int former) {
        char option[64];

        (void) snprintf(option, sizeof(option), "--continue=%d", memfd);
        (void) execute(options->argv, former, option);
}
