/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Notify: the words by which a plain runner tells how it is. What is read is foreign: a datagram of at most
 * NOTIFY_MESSAGE_MAX bytes (notify-message.c understands them), with descriptors. A sender that is not of the runner's
 * session, and not below it, is refused, whatever it says. What is refused is logged, a few lines in ten seconds.
 * Descriptors that nobody takes are closed when all that the message says has been done: what waits for that (BARRIER=1)
 * knows then that everything it said before has taken effect.
 *
 * A pipe is read until its first newline; what is in front of it is read over.
 */

#include "supervisor/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/cmsg.h"
#include "common/fd.h"
#include "common/log.h"

#define SOCKET_NAME       "notify"
#define REFUSED_WINDOW_US (10 * USEC_PER_SEC)

enum {
        /* What one may cost in a turn of the loop, after the datagram that goes beyond. */
        COST_PER_TURN = 256,
        COST_DATAGRAM = 16,
        COST_FD = 2,         /* that comes with it */
        COST_GENERATION = 4, /* that is looked up from its sender */
        PIPE_READS_PER_TURN = 8,
        REFUSED_LOGGED = 3,   /* in a window */
        GENERATIONS_MAX = 64, /* that are looked up from a process */
};

/* Of the runner. */
typedef struct NotifyProcess {
        pid_t pid; /* 0: none */
        int pidfd; /* borrowed; -1: none */
} NotifyProcess;

struct Notify {
        Loop *loop;
        const char *label;
        char *path; /* NULL: a pipe */
        int fd;
        NotifyProcess process, main; /* main: another one that it has named; 0: none */
        unsigned n_refused;          /* since: */
        uint64_t refused_us;         /* when the window began */
        bool *closed;                /* told to whoever is inside a callback */
        LoopIo io;
        NotifyTold told;
        void *userdata;
};

/* --------------------------------------------------------------------------------------------------------- what is said */

static void refuse(Notify *notify, pid_t pid, const char *what) {
        uint64_t now = clock_now();

        if (now - notify->refused_us >= REFUSED_WINDOW_US) {
                if (notify->n_refused > REFUSED_LOGGED)
                        log_warning("runner %s: refused %u more messages on its notification socket", notify->label,
                                    notify->n_refused - REFUSED_LOGGED);
                notify->refused_us = now;
                notify->n_refused = 0;
        }
        if (++notify->n_refused <= REFUSED_LOGGED)
                log_warning("runner %s: refused from pid %d on its notification socket: %s", notify->label, pid, what);
}

/* tell() - false: it was closed by who was told. */
static bool tell(Notify *notify, const NotifyMessage *message, int *fds, size_t n_fds) {
        char why[NOTIFY_REASON_SIZE] = "";
        bool closed = false, good;

        notify->closed = &closed;
        good = notify->told(notify, message, fds, n_fds, notify->userdata, why);
        if (closed)
                return false;
        notify->closed = NULL;
        if (!good)
                refuse(notify, notify->process.pid, why);
        return true;
}

static bool tell_word(Notify *notify, unsigned word) {
        const NotifyMessage message = { .words = word };

        return tell(notify, &message, NULL, 0);
}

/* parent_of() - 0: there is none, or it cannot be known. */
static pid_t parent_of(pid_t pid) {
        char path[32], text[512], *end;
        _cleanup_fd_ int fd = -1;
        ssize_t n;
        int parent;

        (void) snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
        if (n <= 0)
                return 0;
        text[n] = '\0';
        end = strrchr(text, ')'); /* the name before it may have anything in it */
        return end && sscanf(end + 1, " %*c %d", &parent) == 1 ? (pid_t) parent : 0;
}

/* is_with() - of one session with @one. A session lends its number, so that it means the same without who led it. */
static bool is_with(const NotifyProcess *one, pid_t pid) {
        pid_t session = getsid(pid);

        if (one->pid <= 0 || session <= 0)
                return false;
        return session == one->pid || (session == getsid(one->pid) && session != getsid(0) && one->pidfd >= 0 &&
                                       fd_process_lives(one->pidfd));
}

/* knows() - @cost grows by what it takes. */
static bool knows(const Notify *notify, pid_t pid, unsigned *cost) {
        const NotifyProcess *processes[] = { &notify->process, &notify->main };

        if (pid <= 0)
                return false;
        for (size_t i = 0; i < ARRAY_SIZE(processes); i++)
                if (pid == processes[i]->pid || is_with(processes[i], pid))
                        return true;
        for (int i = 0; i < GENERATIONS_MAX && pid > 1; i++) {
                pid = parent_of(pid);
                *cost += COST_GENERATION;
                for (size_t j = 0; j < ARRAY_SIZE(processes); j++)
                        if (pid > 0 && pid == processes[j]->pid)
                                /* Asked last: if it lives, the number meant it before. */
                                return fd_process_lives(processes[j]->pidfd);
        }
        return false;
}

bool notify_knows(const Notify *notify, pid_t pid) {
        return knows(notify, pid, &(unsigned){ 0 });
}

/* handle_text() - false: it was closed meanwhile. */
static bool handle_text(Notify *notify, pid_t pid, char *text, size_t size, int *fds, size_t n_fds) {
        char why[NOTIFY_WHY_SIZE], line[NOTIFY_REASON_SIZE];
        NotifyMessage message;

        if (size > NOTIFY_MESSAGE_MAX)
                refuse(notify, pid, "a message of more than 4096 bytes");
        else if (notify_message_parse(text, size, &message, why) < 0)
                refuse(notify, pid, "a byte 0 in the message");
        else if (message.words & NOTIFY_BARRIER && n_fds != 1)
                refuse(notify, pid, "BARRIER=1 comes with one descriptor");
        else {
                if (*why) {
                        (void) snprintf(line, sizeof(line), "expected another value: %s", why);
                        refuse(notify, pid, line);
                }
                return message.words & NOTIFY_BARRIER || tell(notify, &message, fds, n_fds);
        }
        return true;
}

/* read_datagram() - false: nothing is left to be read, or it was closed. */
static bool read_datagram(Notify *notify, unsigned *cost, bool *ret_open) {
        char text[NOTIFY_MESSAGE_MAX + 2];
        int fds[CMSG_FDS_MAX];
        CmsgInfo info;
        ssize_t n = cmsg_receive(notify->fd, text, NOTIFY_MESSAGE_MAX + 1, fds, CMSG_FDS_MAX, &info);

        if (n < 0)
                return false;
        text[n] = '\0';
        *cost += COST_DATAGRAM + COST_FD * (unsigned) info.n_fds;
        if (!info.has_pid || !knows(notify, info.pid, cost))
                refuse(notify, info.has_pid ? info.pid : 0, "it is not of the runner's session");
        else if (info.truncated)
                refuse(notify, info.pid, "no room for its descriptors");
        else
                *ret_open = handle_text(notify, info.pid, text, (size_t) n, fds, info.n_fds);
        fd_close_all(fds, info.n_fds);
        return *ret_open;
}

/* read_pipe() - false: it was closed. Who writes as fast as we read keeps nobody else waiting. */
static bool read_pipe(Notify *notify) {
        char text[512];
        ssize_t n = 1;

        for (unsigned i = 0; i < PIPE_READS_PER_TURN && n > 0; i++) {
                n = read(notify->fd, text, sizeof(text));
                if (n > 0 && memchr(text, '\n', (size_t) n))
                        return tell_word(notify, NOTIFY_READY);
        }
        if (n == 0) {
                loop_io_stop(&notify->io);
                return tell_word(notify, NOTIFY_CLOSED);
        }
        return true;
}

bool notify_read(Notify *notify) {
        bool open = true;

        if (!notify->path)
                return read_pipe(notify);
        for (unsigned cost = 0; cost < COST_PER_TURN && read_datagram(notify, &cost, &open);)
                ;
        return open;
}

static void ready(LoopIo *io, unsigned events) {
        (void) events;
        (void) notify_read(CONTAINER_OF(io, Notify, io));
}

/* ------------------------------------------------------------------------------------------------------- making, ending */

static int make(Notify **ret_notify, Loop *loop, const char *label, NotifyTold told, void *userdata) {
        Notify *notify = calloc(1, sizeof(*notify));

        if (!notify)
                return -ENOMEM;
        *notify = (Notify){
                .loop = loop,
                .label = label,
                .fd = -1,
                .process.pidfd = -1,
                .main.pidfd = -1,
                .io = LOOP_IO_NULL(ready),
                .told = told,
                .userdata = userdata,
        };
        *ret_notify = notify;
        return 0;
}

/* bind_socket() - by the directory's descriptor, since a path may be longer than an address. */
static int bind_socket(Notify *notify, int directory, const char **ret_step) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        *ret_step = "socket";
        notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (notify->fd < 0 || setsockopt(notify->fd, SOL_SOCKET, SO_PASSCRED, &(int){ 1 }, sizeof(int)) < 0)
                return -errno;
        *ret_step = "bind";
        (void) snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" SOCKET_NAME, directory);
        return bind(notify->fd, (struct sockaddr *) &address, sizeof(address)) < 0 ? -errno : 0;
}

static int make_socket(Notify *notify, int directory, uid_t uid, const char **ret_step) {
        int r = bind_socket(notify, directory, ret_step);

        if (r < 0)
                return r;
        *ret_step = "chmod";
        if (fchmodat(directory, SOCKET_NAME, 0600, 0) < 0)
                return -errno;
        *ret_step = "chown";
        if (uid != geteuid() && fchownat(directory, SOCKET_NAME, uid, (gid_t) -1, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        return 0;
}

/* open_directory() - the socket's path is known from here on, and the directory goes with it. */
static int open_directory(Notify *notify, const char *template, const char **ret_step) {
        _cleanup_free_ char *directory = strdup(template);
        int fd, r;

        *ret_step = "mkdtemp";
        if (!directory || asprintf(&notify->path, "%s/" SOCKET_NAME, template) < 0) {
                notify->path = NULL;
                return -ENOMEM;
        }
        if (!mkdtemp(directory)) {
                r = -errno;
                free(notify->path);
                notify->path = NULL;
                return r;
        }
        (void) memcpy(notify->path, directory, strlen(directory));
        fd = open(directory, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        *ret_step = "chmod";
        if (chmod(directory, 0711) < 0) {
                r = -errno;
                fd_close(fd);
                return r;
        }
        return fd;
}

int notify_open_socket(Notify **ret_notify, Loop *loop, const char *label, const char *template, uid_t uid,
                       NotifyTold told, void *userdata, const char **ret_step) {
        _cleanup_fd_ int directory = -1;
        Notify *notify;
        int r;

        *ret_step = "malloc";
        r = make(&notify, loop, label, told, userdata);
        if (r < 0)
                return r;
        r = directory = open_directory(notify, template, ret_step);
        if (r >= 0)
                r = make_socket(notify, directory, uid, ret_step);
        if (r < 0) {
                fd_close(notify_close(notify));
                return r;
        }
        *ret_notify = notify;
        return 0;
}

int notify_open_pipe(Notify **ret_notify, Loop *loop, const char *label, NotifyTold told, void *userdata,
                     int *ret_fd) {
        Notify *notify;
        int fds[2], r = make(&notify, loop, label, told, userdata);

        if (r < 0)
                return r;
        /* Only our end does not block: the flag belongs to the end, and the runner expects an ordinary one. */
        r = pipe2(fds, O_CLOEXEC) < 0 ? -errno : 0;
        if (r == 0 && fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0) {
                r = -errno;
                fd_close_all(fds, 2);
        }
        if (r < 0) {
                fd_close(notify_close(notify));
                return r;
        }
        notify->fd = fds[0];
        *ret_fd = fds[1];
        *ret_notify = notify;
        return 0;
}

int notify_adopt(Notify **ret_notify, Loop *loop, const char *label, const char *path, int fd_consume, NotifyTold told,
                 void *userdata) {
        _cleanup_fd_ int fd = fd_consume;
        Notify *notify;
        int r = make(&notify, loop, label, told, userdata);

        if (r < 0)
                return r;
        notify->path = path ? strdup(path) : NULL;
        if (path && !notify->path) {
                fd_close(notify_close(notify));
                return -ENOMEM;
        }
        notify->fd = fd_take(&fd);
        *ret_notify = notify;
        return 0;
}

void notify_accept(Notify *notify, pid_t pid, int pidfd) {
        notify->process = (NotifyProcess){ pid, pidfd };
        loop_io_set(notify->loop, &notify->io, notify->fd, LOOP_IN);
}

void notify_set_main(Notify *notify, pid_t pid, int pidfd) {
        notify->main = (NotifyProcess){ pid, pidfd };
}

const char *notify_path(const Notify *notify) {
        return notify->path;
}

int notify_fd(const Notify *notify) {
        return notify->fd;
}

int notify_close(Notify *notify) {
        int fd = notify->fd;

        if (notify->closed)
                *notify->closed = true;
        loop_io_stop(&notify->io);
        if (notify->path) {
                char *slash = strrchr(notify->path, '/');

                (void) unlink(notify->path);
                *slash = '\0';
                if (rmdir(notify->path) < 0 && errno != ENOENT)
                        log_warning("runner %s: cannot remove %s: %s", notify->label, notify->path, strerror(errno));
        }
        free(notify->path);
        free(notify);
        return fd;
}
