/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Notify: the words by which a plain runner tells how it is. What is read is foreign: a datagram of at most DATAGRAM_MAX
 * bytes with lines NAME=value, of which those in the table are heard and all others read over; a sender that is not of
 * the runner's session is refused, whatever it says, and logged a few times. Descriptors that come along are closed at
 * once: what waits for that (BARRIER=1) goes on, and nothing is stored.
 *
 * The main process is the one that was started, for as long as it lives: MAINPID of another one is refused, since nobody
 * but the keeper, which is not that one's parent, could tell how it ended. Such programs have to be run in the foreground.
 *
 * A pipe is read until its first newline; what is in front of it is read over.
 */

#include "supervisor/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cmsg.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/parse.h"
#include "common/text.h"

#define SOCKET_NAME "notify"

enum {
        DATAGRAM_MAX = 4096,
        DATAGRAMS_PER_TURN = 16,
        REFUSED_LOGGED = 3,
};

struct Notify {
        Loop *loop;
        const char *label;
        char *path; /* NULL: a pipe */
        int fd;
        pid_t pid;
        int pidfd;
        unsigned n_refused;
        bool *closed; /* told to whoever is inside a callback */
        LoopIo io;
        NotifyTold told;
        void *userdata;
};

/* --------------------------------------------------------------------------------------------------------- what is said */

/* tell() - false: it was closed by who was told. */
static bool tell(Notify *notify, NotifyWord word, const char *value) {
        bool closed = false;

        notify->closed = &closed;
        notify->told(notify, word, value, notify->userdata);
        if (!closed)
                notify->closed = NULL;
        return !closed;
}

static const struct {
        const char *line;
        NotifyWord word;
} lines[] = {
        { "READY=1", NOTIFY_READY },
        { "STOPPING=1", NOTIFY_STOPPING },
        { "WATCHDOG=1", NOTIFY_ALIVE },
        { "WATCHDOG=trigger", NOTIFY_TROUBLE },
};

static void refuse(Notify *notify, pid_t pid, const char *what) {
        if (++notify->n_refused <= REFUSED_LOGGED)
                log_warning("runner %s: refused from pid %d on its notification socket: %s%s", notify->label, pid,
                            what, notify->n_refused == REFUSED_LOGGED ? "; more will not be logged" : "");
}

static bool handle_line(Notify *notify, char *line) {
        uint64_t pid;

        for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
                if (strcmp(line, lines[i].line) == 0)
                        return tell(notify, lines[i].word, "");
        if (text_begins(line, "STATUS=")) {
                char *value = line + strlen("STATUS=");

                (void) text_mend(value);
                text_cut(value, NOTIFY_STATUS_MAX);
                return tell(notify, NOTIFY_STATUS, value);
        }
        if (text_begins(line, "MAINPID=") &&
            (parse_u64(line + strlen("MAINPID="), INT32_MAX, &pid) < 0 || (pid_t) pid != notify->pid))
                refuse(notify, notify->pid,
                       "MAINPID of a process that baton has not started; run it in the foreground");
        return true;
}

/* handle_text() - false: it was closed meanwhile. */
static bool handle_text(Notify *notify, char *text) {
        char *rest = text, *line;

        while ((line = strsep(&rest, "\n")))
                if (*line && !handle_line(notify, line))
                        return false;
        return true;
}

/* is_runner() - the pidfd is asked last: only if the runner lives then did its pid mean it before. */
static bool is_runner(const Notify *notify, const CmsgInfo *info) {
        struct pollfd process = { .fd = notify->pidfd, .events = POLLIN };

        return info->has_pid && info->pid > 0 &&
               (info->pid == notify->pid || (getsid(info->pid) == getsid(notify->pid) && poll(&process, 1, 0) == 0));
}

/* read_datagram() - false: nothing is left to be read, or it was closed. */
static bool read_datagram(Notify *notify, bool *ret_open) {
        char text[DATAGRAM_MAX + 1];
        int fds[CMSG_FDS_MAX];
        CmsgInfo info;
        ssize_t n = cmsg_receive(notify->fd, text, DATAGRAM_MAX, fds, CMSG_FDS_MAX, &info);

        if (n < 0)
                return false;
        fd_close_all(fds, info.n_fds);
        text[n] = '\0';
        if (!is_runner(notify, &info))
                refuse(notify, info.has_pid ? info.pid : 0, "it is not of the runner's session");
        else if (memchr(text, '\0', (size_t) n))
                refuse(notify, info.pid, "a byte 0 in the message");
        else
                *ret_open = handle_text(notify, text);
        return *ret_open;
}

/* read_pipe() - false: it was closed. */
static bool read_pipe(Notify *notify) {
        char text[512];
        ssize_t n;

        while ((n = read(notify->fd, text, sizeof(text))) > 0)
                if (memchr(text, '\n', (size_t) n))
                        return tell(notify, NOTIFY_READY, "");
        if (n == 0) {
                loop_io_stop(&notify->io);
                return tell(notify, NOTIFY_CLOSED, "");
        }
        return true;
}

bool notify_read(Notify *notify) {
        bool open = true;

        if (!notify->path)
                return read_pipe(notify);
        for (unsigned i = 0; i < DATAGRAMS_PER_TURN && read_datagram(notify, &open);)
                i++;
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
                .pidfd = -1,
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
        notify->pid = pid;
        notify->pidfd = pidfd;
        loop_io_set(notify->loop, &notify->io, notify->fd, LOOP_IN);
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
