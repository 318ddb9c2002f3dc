/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuse-holder SOURCE MOUNT_POINT [PENDING]: holds a mount's state and descriptors as a supervisor and its keeper do, and
 * lets one child after the other serve it. Words on standard input: "upgrade" (the child stops, another takes over),
 * "kill" (SIGKILL, another takes over), "quit" (unmount). Each is answered by a line when it is done: "ok WORD".
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/fd.h"
#include "runner/fuse/mount.h"
#include "runner/fuse/state.h"

typedef struct Holder {
        int fds[_STATE_FD_N];
        uint8_t *state;
        size_t state_size;
        Pending pending;
        pid_t child;
        int child_socket;
} Holder;

static _Noreturn void die(const char *what, int error) {
        (void) fprintf(stderr, "fuse-holder: %s: %s\n", what, strerror(error < 0 ? -error : error));
        exit(1);
}

static _Noreturn void die_of(const char *reason) {
        (void) fprintf(stderr, "fuse-holder: %s\n", reason);
        exit(1);
}

/* first() - mounts, and gives what crosses. */
static void first(Holder *holder, const char *source, const char *point) {
        MountOptions options = { .source = source, .point = point };
        State state = { .source = (char *) source, .mount_point = (char *) point, .timeout_ns = 1000000000 };
        char reason[MOUNT_REASON_SIZE];
        Table table = TABLE_NULL;
        Vault vault = VAULT_NULL;
        Session *session;
        Mirror *mirror;
        int fds[_STATE_FD_N], device, root, r;

        root = open(source, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root < 0)
                die(source, errno);
        if ((r = table_create(&table, TABLE_INODES_DEFAULT)) < 0 || (r = vault_open(&vault)) < 0 ||
            (r = mirror_new(&mirror, root, &table, &vault, state.timeout_ns)) < 0)
                die("mirror", r);
        if (mount_open(&options, &device, reason) < 0)
                die_of(reason);
        if ((r = session_new(&session, device, mirror)) < 0 || (r = session_negotiate(session, &state.terms)) < 0)
                die("INIT", r);
        if ((r = state_pack(&state, &holder->state, &holder->state_size)) < 0)
                die("state", r);
        state_fds(session, fds);
        for (unsigned i = 0; i < _STATE_FD_N; i++)
                holder->fds[i] = fd_dup(fds[i]);
        session_free(session);
}

/* serve() - in the child. A byte from the socket: stop. */
static void serve(Holder *holder, int socket) {
        char reason[STATE_REASON_SIZE], byte = 'r';
        struct pollfd polled[2];
        Session *session;
        State state;
        int r;

        if (state_unpack(holder->state, holder->state_size, &state, reason) < 0 ||
            state_session(&state, holder->fds, mount_is_device, &session, reason) < 0)
                die_of(reason);
        r = session_load(session, state.terms.can_resend || holder->pending != PENDING_RESEND ? holder->pending
                                                                                              : PENDING_FLUSH);
        if (r == 0)
                r = session_run(session);
        if (r < 0)
                die("start", r);
        (void) write(socket, &byte, 1);
        polled[0] = (struct pollfd){ .fd = socket, .events = POLLIN };
        polled[1] = (struct pollfd){ .fd = session_event_fd(session), .events = POLLIN };
        while (poll(polled, 2, -1) < 0)
                ;
        if (polled[1].revents && session_ended(session, &r) && r < 0)
                die("loop", r);
        if (polled[0].revents && read(socket, &byte, 1) == 1 && byte == 'u')
                r = mount_close(state.mount_point);
        session_free(session);
        state_deinit(&state);
        free(holder->state);
        exit(r < 0 ? 1 : 0);
}

static void start(Holder *holder) {
        int pair[2];
        struct pollfd polled = { .events = POLLIN };
        char byte;

        if (fd_socketpair(SOCK_STREAM, pair) < 0)
                die("socketpair", errno);
        holder->child = fork();
        if (holder->child < 0)
                die("fork", errno);
        if (holder->child == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                fd_close(pair[0]);
                serve(holder, pair[1]);
        }
        fd_close(pair[1]);
        holder->child_socket = polled.fd = pair[0];
        while (poll(&polled, 1, -1) < 0)
                ;
        if (read(pair[0], &byte, 1) != 1)
                die_of("the child did not start");
}

static int end(Holder *holder) {
        int status;

        while (waitpid(holder->child, &status, 0) < 0)
                ;
        holder->child_socket = fd_close(holder->child_socket);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int obey(Holder *holder, const char *word) {
        if (strcmp(word, "kill") == 0) {
                (void) kill(holder->child, SIGKILL);
                (void) end(holder);
                start(holder);
        } else if (strcmp(word, "upgrade") == 0) {
                (void) write(holder->child_socket, "s", 1);
                if (end(holder) != 0)
                        die_of("the child ended badly");
                start(holder);
        } else {
                (void) write(holder->child_socket, "u", 1);
                return end(holder);
        }
        return -1;
}

int main(int argc, char **argv) {
        Holder holder = { .pending = PENDING_RESEND };
        char line[64];
        int result = -1;

        if (argc < 3 || (argc > 3 && pending_parse(argv[3], &holder.pending) < 0))
                return 2;
        first(&holder, argv[1], argv[2]);
        start(&holder);
        (void) printf("ok start\n");
        (void) fflush(stdout);
        while (result < 0 && fgets(line, sizeof(line), stdin)) {
                line[strcspn(line, "\n")] = '\0';
                result = obey(&holder, line);
                (void) printf("%s %s\n", result <= 0 ? "ok" : "failed", line);
                (void) fflush(stdout);
        }
        if (result < 0)
                result = obey(&holder, "quit");
        free(holder.state);
        fd_close_all(holder.fds, _STATE_FD_N);
        return result;
}
