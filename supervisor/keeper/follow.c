/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Follow: a program may fork another process, which is the main one from then on (MAINPID of the sd_notify protocol). The
 * supervisor stores a pidfd of it with the instance, KEEPER_FD_MAIN, whose tag is its number. When the process that was
 * started exits while that one lives, the slot is that one's: signals go to it, and its exit is the instance's. Until then
 * the process that was started decides; one that is named and ends before it has no consequence.
 *
 * What a number means is certain only of a child that is not reaped, or with a pidfd of a process that lives: nothing else
 * is signalled here. An orphan comes to us, who are a subreaper, so mostly the main process is our child by the time that
 * it exits. Where its parent is another process of the runner, that one reaps it: the supervisor sees its end, by a pidfd,
 * drops what it has stored, and the instance has ended, and nobody saw how.
 */

#include <errno.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "supervisor/keeper/keeper-internal.h"

#ifndef PIDFD_SIGNAL_PROCESS_GROUP
#define PIDFD_SIGNAL_PROCESS_GROUP (1u << 2) /* Linux 6.9 */
#endif

/* is_ours() - a child that is not reaped, dead or alive. */
static bool is_ours(pid_t pid) {
        siginfo_t info = { 0 };

        return waitid(P_PID, (id_t) pid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0;
}

/* main_of() - the process that is named, its pidfd in @ret_pidfd; 0: none is. */
static pid_t main_of(const TableSlot *slot, int *ret_pidfd) {
        uint64_t tag;
        int pidfd = table_get_kind(slot, KEEPER_FD_MAIN, &tag);

        *ret_pidfd = pidfd;
        return pidfd >= 0 && tag > 1 && tag <= INT32_MAX ? (pid_t) tag : 0;
}

bool follow_is_followed(const TableSlot *slot) {
        int pidfd;

        return slot->state == TABLE_BORN && main_of(slot, &pidfd) == slot->pid;
}

bool follow_main(Keeper *k, TableSlot *slot) {
        int pidfd;
        pid_t pid = main_of(slot, &pidfd);

        if (pid == 0 || pid == slot->pid || slot->cancelled || !fd_process_lives(pidfd))
                return false;
        log_debug("runner %s: pid %d has ended, pid %d goes on as its main process", slot->name, slot->pid, pid);
        table_follow(k->table, slot, pid);
        return true;
}

int follow_kill(const TableSlot *slot, int signal) {
        int pidfd;
        pid_t pid = main_of(slot, &pidfd), group;

        if (pid == 0 || !(fd_process_lives(pidfd) || is_ours(pid)))
                return -ESRCH;
        group = getpgid(pid);
        if (group <= 1 || group == getpgrp())
                return pidfd_send_signal(pidfd, signal, NULL, 0) < 0 ? -errno : 0;
        if (group == slot->pid && pid != slot->pid)
                return 0; /* it is in the group that gets it anyway */
        if (group == pid && pidfd_send_signal(pidfd, signal, NULL, PIDFD_SIGNAL_PROCESS_GROUP) == 0)
                return 0;
        return kill(-group, signal) < 0 ? -errno : 0;
}

void follow_dropped(Keeper *k, TableSlot *slot) {
        if (slot->state == TABLE_BORN && !is_ours(slot->pid))
                table_exited(k->table, slot, 0, 0);
}
