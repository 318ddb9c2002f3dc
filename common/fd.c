/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Descriptors: the few operations that every owner needs. close() is called nowhere else. On Linux the descriptor is
 * gone whatever close() returns, EINTR included, so that a retry could close somebody else's: there is none.
 *
 * Whoever closes a socket last waits for as long as SO_LINGER says, be it hours, O_NONBLOCK or not; and so does whoever closes
 * one in which such a socket waits to be received. A peer can give us either. That wait ends with a signal: where
 * fd_close_promptly() was called there is one, again and again, from just after the beginning of the close() to its end. What
 * lingers goes on in the kernel, as without SO_LINGER.
 */

#include "common/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/macro.h"

#define CLOSE_US 100 /* after which a close() is reminded, and how often */

/* The process's, as the disposition of a signal is. */
static bool promptly;
static timer_t reminder; /* made when it can be: it counts among the user's pending signals */
static bool has_reminder;

static void remind(int number) {
        (void) number; /* that it interrupts is what it is for */
}

/* make_reminder() - false: there are too many signals pending just now; who closes may wait. */
static bool make_reminder(void) {
        struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGURG };

        if (!has_reminder)
                has_reminder = timer_create(CLOCK_MONOTONIC, &event, &reminder) == 0;
        return has_reminder;
}

int fd_close_promptly(void) {
        struct sigaction action = { .sa_handler = remind };
        sigset_t signals;

        (void) sigemptyset(&signals);
        (void) sigaddset(&signals, SIGURG);
        if (sigaction(SIGURG, &action, NULL) < 0 || sigprocmask(SIG_UNBLOCK, &signals, NULL) < 0)
                return -errno;
        promptly = true;
        (void) make_reminder();
        return 0;
}

static void set_reminder(long us) {
        const struct itimerspec times = { { 0, us * 1000 }, { 0, us * 1000 } };

        (void) timer_settime(reminder, 0, &times, NULL);
}

int fd_close(int fd) {
        bool is_socket = false;
        int saved = errno;

        if (fd >= 0 && promptly)
                is_socket = getsockopt(fd, SOL_SOCKET, SO_TYPE, &(int){ 0 }, &(socklen_t){ sizeof(int) }) == 0 &&
                            make_reminder();
        if (is_socket)
                set_reminder(CLOSE_US);
        if (fd >= 0)
                (void) close(fd);
        if (is_socket)
                set_reminder(0);
        errno = saved;
        return -1;
}

int fd_dup(int fd) {
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

        return copy < 0 ? -errno : copy;
}

void fd_close_all(int *fds, size_t n) {
        for (size_t i = 0; i < n; i++)
                fds[i] = fd_close(fds[i]);
}

int fd_socketpair(int type, int ret_fds[2]) {
        int fds[2];

        if (socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
                return -errno;
        ret_fds[0] = fds[0];
        ret_fds[1] = fds[1];
        return 0;
}

static int socket_option(int fd, int option) {
        socklen_t length = sizeof(int);
        int value;

        return getsockopt(fd, SOL_SOCKET, option, &value, &length) < 0 ? -1 : value;
}

bool fd_is_unix_stream(int fd) {
        return socket_option(fd, SO_DOMAIN) == AF_UNIX && socket_option(fd, SO_TYPE) == SOCK_STREAM &&
               socket_option(fd, SO_ACCEPTCONN) == 0;
}

bool fd_is_seqpacket(int fd) {
        return socket_option(fd, SO_DOMAIN) == AF_UNIX && socket_option(fd, SO_TYPE) == SOCK_SEQPACKET &&
               socket_option(fd, SO_ACCEPTCONN) == 0;
}

bool fd_process_lives(int pidfd) {
        struct pollfd process = { .fd = pidfd, .events = POLLIN };

        return poll(&process, 1, 0) == 0;
}

int fd_raise_limit(struct rlimit *ret_before) {
        struct rlimit before, raised;

        if (getrlimit(RLIMIT_NOFILE, &before) < 0)
                return -errno;
        raised = (struct rlimit){ before.rlim_max, before.rlim_max };
        if (setrlimit(RLIMIT_NOFILE, &raised) < 0)
                return -errno;
        *ret_before = before;
        return 0;
}

/* Since Linux 6.2 their number is the size of the directory; before, it is always 0. Reading it takes 1 ms per 2,000. */
int fd_count(void) {
        struct dirent *entry;
        struct stat directory;
        int n = 0;
        DIR *dir;

        if (stat("/proc/self/fd", &directory) == 0 && directory.st_size > 0)
                return (int) directory.st_size;
        dir = opendir("/proc/self/fd");
        if (!dir)
                return -errno;
        while ((entry = readdir(dir)))
                n += entry->d_name[0] != '.';
        closedir(dir);
        return n - 1;
}

int fd_read_file(int fd, size_t max, char **ret_text, size_t *ret_size) {
        _cleanup_free_ char *text = NULL;
        struct stat st;
        size_t used = 0;
        ssize_t n = 1;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
        if ((uintmax_t) st.st_size > max)
                return -EFBIG;
        text = malloc((size_t) st.st_size + 1);
        if (!text)
                return -ENOMEM;
        while (used < (size_t) st.st_size && (n = read(fd, text + used, (size_t) st.st_size - used)) > 0)
                used += (size_t) n;
        if (n < 0)
                return -errno;
        text[used] = '\0';
        *ret_text = TAKE_PTR(text);
        *ret_size = used;
        return 0;
}
