#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The socket by which one native runner comes in: a private directory with a listener that accepts that runner alone. */

#include <stdbool.h>
#include <sys/types.h>

#include "common/loop.h"

typedef struct Bootstrap Bootstrap;

/* Who may come in. */
typedef struct BootstrapRunner {
        uid_t uid;
        pid_t pid; /* of the runner, the leader of its session; 0: not started yet, and nobody may come in */
        int pidfd; /* of the same process, borrowed: tells whether pid still means it */
} BootstrapRunner;

struct Bootstrap {
        Loop *loop;
        const char *label; /* the runner's name, for the log; borrowed */
        char *path;        /* of the socket, absolute: $BATON_BOOTSTRAP */
        int directory_fd;  /* -1: no directory */
        int listener;      /* ours; -1: none */
        bool bound;        /* the socket is in the directory */
        BootstrapRunner instance;
        unsigned n_refused;
        LoopIo io;
        LoopTimer retry; /* accepting goes on, after a shortage */
        void (*connected)(Bootstrap *bootstrap, int lane_fd_consume);
        void *userdata; /* the owner's */
};

/*
 * bootstrap_init() - none yet. @connected is called once, from the loop, with the connection of the runner; the
 * listener is not watched any more then, and may be closed, and the structure freed, from within.
 */
void bootstrap_init(Bootstrap *bootstrap, Loop *loop, const char *label,
                    void (*connected)(Bootstrap *bootstrap, int lane_fd_consume));

/*
 * bootstrap_open() - makes the directory, from @template (absolute, ending in XXXXXX), mode 0711, and in it the socket,
 * mode 0600, owned by @uid. Connections wait until bootstrap_accept(). 0, or a negative errno with the step that failed
 * in @ret_step ("mkdtemp", "bind", ...), and then nothing is left.
 */
int bootstrap_open(Bootstrap *bootstrap, const char *template, uid_t uid, const char **ret_step);

/*
 * bootstrap_adopt() - of a runner that a predecessor has started: @path of the socket, whose listener is
 * @listener_fd_consume, taken on every path. 0 or a negative errno, and then nothing is left, the names excepted.
 */
int bootstrap_adopt(Bootstrap *bootstrap, const char *path, uid_t uid, int listener_fd_consume);

/* bootstrap_accept() - the runner is @pid, @pidfd (borrowed until bootstrap_close()): it may come in from now on. */
void bootstrap_accept(Bootstrap *bootstrap, pid_t pid, int pidfd);

/*
 * bootstrap_close() - socket and directory go, the listener is not watched any more; its descriptor is returned and is
 * the caller's to close, once no duplicate lives, or -1. Whoever still waits in it is closed and logged. May be called
 * again.
 */
int bootstrap_close(Bootstrap *bootstrap);

/*
 * bootstrap_template() - "RUNTIME/boot/XXXXXX"; without a runtime directory "$TMPDIR/baton-XXXXXX", resolved, else in /tmp.
 * To be freed. NULL: no memory.
 */
char *bootstrap_template(const char *runtime_dir);
