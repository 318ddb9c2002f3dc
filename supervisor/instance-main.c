/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Instance, its main process: one that it has forked, and named by MAINPID=. The keeper has a pidfd of it, and goes on with
 * it when the process that was started ends (supervisor/keeper/follow.c); here the same is seen by two pidfds:
 * - the one that was started ends, and the named one lives: that one is the instance's process from then on.
 * - the named one ends: it is dropped in the keeper. If it was the instance's process by then, the exit is reported; else
 *   the one that was started is the main one again.
 */

#include "supervisor/instance-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/pidfd.h>

#include "common/fd.h"
#include "common/log.h"
#include "supervisor/notify.h"
#include "supervisor/recovery.h"

struct InstanceMain {
        Instance *instance;
        pid_t pid;
        int fd;
        LoopIo ended, first; /* of it, and of the process that was started */
};

void instance_forget_main(Instance *instance) {
        InstanceMain *main = instance->main;

        if (!main)
                return;
        loop_io_stop(&main->ended);
        loop_io_stop(&main->first);
        if (instance->notify)
                notify_set_main(instance->notify, 0, -1);
        fd_close(main->fd);
        free(main);
        instance->main = NULL;
}

static void drop(Instance *instance) {
        (void) keeper_link_drop(instance->supervisor->link, instance->id, KEEPER_FD_MAIN,
                                (uint64_t) instance->main->pid, NULL, NULL);
        instance_forget_main(instance);
}

static void ended(LoopIo *io, unsigned events) {
        InstanceMain *main = CONTAINER_OF(io, InstanceMain, ended);
        Instance *instance = main->instance;
        pid_t pid = main->pid;

        (void) events;
        drop(instance);
        if (instance->pid == pid)
                return; /* its exit is reported */
        log_info("runner %s: its main process, pid %d, has ended: pid %d is it again", instance->runner->name, pid,
                 instance->pid);
        instance->main_pid = 0;
        instance_note_said(instance);
}

/* step_up() - it is the instance's process. Without a descriptor for that its end is reported all the same. */
static void step_up(Instance *instance, InstanceMain *main) {
        int pidfd = fd_dup(main->fd);

        loop_io_stop(&main->first);
        fd_close(instance->pidfd);
        instance->pidfd = pidfd < 0 ? -1 : pidfd;
        instance->pid = instance->last_pid = main->pid;
        instance->main_pid = 0;
        if (instance->notify)
                notify_accept(instance->notify, instance->pid, instance->pidfd);
        instance_note_said(instance);
}

static void first_ended(LoopIo *io, unsigned events) {
        InstanceMain *main = CONTAINER_OF(io, InstanceMain, first);
        Instance *instance = main->instance;

        (void) events;
        loop_io_stop(io);
        if (!fd_process_lives(main->fd))
                return; /* whichever of the two it was, an exit is reported */
        log_info("runner %s: pid %d has ended, pid %d goes on as its main process", instance->runner->name,
                 instance->pid, main->pid);
        step_up(instance, main);
}

/* watch() - @pidfd_consume of @pid, which the keeper knows, or is to know. 0 or -ENOMEM. */
static int watch(Instance *instance, pid_t pid, int pidfd_consume) {
        InstanceMain *main = malloc(sizeof(*main));

        if (!main) {
                fd_close(pidfd_consume);
                return -ENOMEM;
        }
        *main = (InstanceMain){
                .instance = instance,
                .pid = pid,
                .fd = pidfd_consume,
                .ended = LOOP_IO_NULL(ended),
                .first = LOOP_IO_NULL(first_ended),
        };
        instance->main = main;
        loop_io_set(instance->supervisor->loop, &main->ended, main->fd, LOOP_IN);
        if (instance->notify)
                notify_set_main(instance->notify, pid, main->fd);
        if (pid != instance->pid && instance->pidfd >= 0)
                loop_io_set(instance->supervisor->loop, &main->first, instance->pidfd, LOOP_IN);
        return 0;
}

static void stored(KeeperLink *link, int result, void *userdata) {
        Instance *instance = userdata;

        (void) link;
        if (result < 0)
                log_warning(
                        "runner %s: if pid %d ends, its main process goes with it: the keeper cannot follow that: %s",
                        instance->runner->name, instance->pid, strerror(-result));
}

int instance_set_main(Instance *instance, pid_t pid) {
        _cleanup_fd_ int pidfd = -1;
        int r;

        if (instance->main && instance->main->pid == pid)
                return 0;
        if (instance->main)
                drop(instance);
        instance->main_pid = 0;
        if (pid == instance->pid)
                return 0;
        pidfd = pidfd_open(pid, 0);
        if (pidfd < 0)
                return -errno;
        if (!notify_knows(instance->notify, pid) || !fd_process_lives(pidfd))
                return -ESRCH; /* the number means another process by now, or none */
        r = keeper_link_put(instance->supervisor->link, instance->id, KEEPER_FD_MAIN, (uint64_t) pid, pidfd, stored,
                            instance);
        if (r < 0)
                return r;
        r = watch(instance, pid, fd_take(&pidfd));
        if (r < 0)
                (void) keeper_link_drop(instance->supervisor->link, instance->id, KEEPER_FD_MAIN, (uint64_t) pid, NULL,
                                        NULL);
        else
                instance->main_pid = pid;
        return r;
}

void instance_adopt_main(Instance *instance, Recovered *slot) {
        uint64_t tag;
        int fd = recovered_take_kind(slot, KEEPER_FD_MAIN, &tag);

        if (fd < 0)
                return;
        instance_forget_main(instance);
        if (watch(instance, (pid_t) tag, fd) < 0)
                return;
        instance->main_pid = instance->main->pid == instance->pid ? 0 : instance->main->pid;
}

void instance_settle_main(Instance *instance) {
        if (instance->main && instance->main_pid == 0 && instance->main->pid != instance->pid)
                instance_forget_main(instance);
}
