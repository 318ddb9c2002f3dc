/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Private supervisor: how a program that is not baton gets a tree of its own. The lane is a socket pair; one end is
 * inherited as descriptor 3 by `baton supervise --private=3', which becomes the keeper without changing its pid. Whoever
 * holds our end owns the tree: when it closes, by private_stop() or because this process is gone, the keeper sees it and
 * stops everything. PDEATHSIG would not do: it follows the thread that forked, not the process.
 *
 * The child starts from a known state whatever the host program is: no ignored or blocked signal, a session of its own
 * (^C at the terminal is for the caller, who then decides), stdin and stdout /dev/null, stderr shared, nothing else
 * inherited. posix_spawn() is used because it is safe in a process with threads.
 *
 * The host's SIGCHLD stays its own: the end is seen on a pidfd, and a child that the host reaped (waitpid(-1), SIGCHLD
 * ignored) is simply gone when we look for it.
 */

#include "client/private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"

#define LANE_FD         3
#define LANE_OPTION     "--private=3"
#define DEFAULT_STOP_US (15 * USEC_PER_SEC) /* above what the keeper gives the supervisor */
#define KILL_TIMEOUT_US (5 * USEC_PER_SEC)
#define END_SEEN_US     USEC_PER_SEC /* from the end of the lane to that of the process */
#define INSTALLED_BATON BATON_BINDIR "/baton"

struct Private {
        Peer *peer;
        int pidfd; /* -1: ended and reaped */
};

const char *private_default_program(void) {
        const char *program = secure_getenv("BATON_PROGRAM");

        return program && *program ? program : INSTALLED_BATON;
}

/* The lane goes to its place first: it may be one of 0-2 in a program that runs without them. */
static int prepare_files(posix_spawn_file_actions_t *files, int lane) {
        int r = posix_spawn_file_actions_adddup2(files, lane, LANE_FD);

        if (r == 0)
                r = posix_spawn_file_actions_addopen(files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (r == 0)
                r = posix_spawn_file_actions_addopen(files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
        if (r == 0)
                r = posix_spawn_file_actions_addclosefrom_np(files, LANE_FD + 1);
        return -r;
}

static int prepare_attributes(posix_spawnattr_t *attributes) {
        sigset_t all, none;
        int r;

        (void) sigfillset(&all);
        (void) sigemptyset(&none);
        r = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
        if (r == 0)
                r = posix_spawnattr_setsigdefault(attributes, &all);
        if (r == 0)
                r = posix_spawnattr_setsigmask(attributes, &none);
        return -r;
}

static int spawn_prepared(const char *program, int lane, posix_spawn_file_actions_t *files,
                          posix_spawnattr_t *attributes, pid_t *ret_pid) {
        char name[] = "baton", command[] = "supervise", option[] = LANE_OPTION;
        char *arguments[] = { name, command, option, NULL };
        int r;

        r = prepare_files(files, lane);
        if (r == 0)
                r = prepare_attributes(attributes);
        if (r == 0)
                r = -posix_spawn(ret_pid, program, files, attributes, arguments, environ);
        return r;
}

static int spawn(const char *program, int lane, pid_t *ret_pid) {
        posix_spawn_file_actions_t files;
        posix_spawnattr_t attributes;
        int r;

        r = -posix_spawn_file_actions_init(&files);
        if (r < 0)
                return r;
        r = -posix_spawnattr_init(&attributes);
        if (r == 0) {
                r = spawn_prepared(program, lane, &files, &attributes, ret_pid);
                (void) posix_spawnattr_destroy(&attributes);
        }
        (void) posix_spawn_file_actions_destroy(&files);
        return r;
}

/* watch_child() - a pidfd for our child. Without one it could not be waited for in bounded time: it is ended again. */
static int watch_child(pid_t pid, int *ret_pidfd) {
        int error;

        *ret_pidfd = pidfd_open(pid, 0);
        if (*ret_pidfd >= 0)
                return 0;
        error = errno;
        if (error != ESRCH && kill(pid, SIGKILL) == 0)
                while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                        continue;
        return -error;
}

/* reap() - takes the exit status of the root of the tree, which has ended, unless somebody did so already. */
static void reap(Private *private) {
        siginfo_t info;

        while (waitid(P_PIDFD, (id_t) private->pidfd, &info, WEXITED) < 0 && errno == EINTR)
                continue;
        private->pidfd = fd_close(private->pidfd);
}

static bool wait_end(const Private *private, uint64_t timeout_us) {
        uint64_t end = clock_after(clock_now(), timeout_us);

        for (;;) {
                struct pollfd p = { .fd = private->pidfd, .events = POLLIN };
                uint64_t now = clock_now();
                uint64_t left_ms = now < end ? (end - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC : 0;

                if (poll(&p, 1, (int) MIN(left_ms, (uint64_t) 60000)) > 0)
                        return true;
                if (left_ms == 0)
                        return false;
        }
}

int private_start(Private **ret_private, Endpoint *endpoint, const PrivateConfig *config) {
        PeerConfig peer = { .side = 1,
                            .objects = PEER_OBJECTS_MAP,
                            .n_channels = 1,
                            .renewal = LANE_RENEWAL_NONE,
                            .limits = config->limits,
                            .software = config->software };
        _cleanup_(private_freep) Private *private = NULL;
        int pair[2], r;
        pid_t pid;

        private = calloc(1, sizeof(*private));
        if (!private)
                return -ENOMEM;
        private->pidfd = -1;

        r = fd_socketpair(SOCK_STREAM, pair);
        if (r < 0)
                return r;
        r = endpoint_add_peer(endpoint, &peer, pair[0], config->handler, config->userdata, &private->peer);
        if (r == 0)
                r = spawn(config->program ? config->program : private_default_program(), pair[1], &pid);
        (void) fd_close(pair[1]);
        if (r == 0)
                r = watch_child(pid, &private->pidfd);
        if (r < 0) {
                /* Without a word: the handler knows of no supervisor yet. */
                private->peer = peer_free(private->peer);
                return r;
        }
        *ret_private = TAKE_PTR(private);
        return 0;
}

Peer *private_peer(const Private *private) {
        return private->peer;
}

int private_fd(const Private *private) {
        return private->pidfd;
}

void private_close(Private *private) {
        if (!private->peer)
                return;
        peer_close(private->peer, STATUS_OK, "the owner of this private supervisor is done");
        private->peer = peer_free(private->peer);
}

void private_kill(Private *private) {
        if (private->pidfd >= 0)
                (void) pidfd_send_signal(private->pidfd, SIGKILL, NULL, 0);
}

bool private_has_failed(const Private *private) {
        siginfo_t info = { 0 };

        return private->pidfd >= 0 && wait_end(private, END_SEEN_US) &&
               waitid(P_PIDFD, (id_t) private->pidfd, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid > 0 &&
               info.si_code == CLD_EXITED && info.si_status != 0;
}

int private_stop(Private *private, uint64_t timeout_us) {
        int r = 0;

        private_close(private);
        if (private->pidfd < 0)
                return 0;
        if (!wait_end(private, timeout_us)) {
                r = -ETIMEDOUT;
                private_kill(private);
                if (!wait_end(private, KILL_TIMEOUT_US)) {
                        /* Stuck in the kernel: waiting for it would hang us, too. */
                        private->pidfd = fd_close(private->pidfd);
                        return r;
                }
        }
        reap(private);
        return r;
}

Private *private_free(Private *private) {
        if (private) {
                (void) private_stop(private, DEFAULT_STOP_US);
                free(private);
        }
        return NULL;
}
