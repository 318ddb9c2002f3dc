/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Notify: one datagram per message, to an address that is looked up each time, since a service manager may replace its
 * socket. It is the only thing on which the keeper ever waits, for a quarter of a second at most: a message that is lost
 * could cost the whole service. A service manager that cannot be told is said once; it does not stop anything.
 */

#include "supervisor/keeper/notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/parse.h"

enum { WAIT_US = 250000 };

/* make_address() - false: no such kind of address. */
static bool make_address(Notify *notify, const char *path) {
        size_t length = strlen(path);

        if ((path[0] != '/' && path[0] != '@') || length < 2 || length >= sizeof(notify->address.sun_path))
                return false;
        notify->address = (struct sockaddr_un){ .sun_family = AF_UNIX };
        memcpy(notify->address.sun_path, path, length);
        if (path[0] == '@')
                notify->address.sun_path[0] = '\0';
        notify->size = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + length + (path[0] == '/'));
        return true;
}

static void open_watchdog(Notify *notify) {
        const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
        uint64_t us, whose;

        if (!usec || (pid && (parse_u64(pid, INT32_MAX, &whose) < 0 || (pid_t) whose != getpid())))
                return;
        if (parse_u64(usec, USEC_INFINITY - 1, &us) == 0 && us > 0)
                notify->watchdog_us = us;
        else
                log_warning("WATCHDOG_USEC=%s is no time in microseconds: not kept", usec);
}

void notify_open(Notify *notify) {
        const struct timeval wait = { .tv_usec = WAIT_US };
        const char *path = getenv("NOTIFY_SOCKET");

        *notify = NOTIFY_NULL;
        if (path && !make_address(notify, path)) {
                log_warning("NOTIFY_SOCKET=%s is neither a path nor an abstract socket: the service manager is not "
                            "told anything",
                            path);
        } else if (path) {
                notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
                if (notify->fd >= 0)
                        (void) setsockopt(notify->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
        }
        if (notify->fd >= 0)
                open_watchdog(notify);
        (void) unsetenv("NOTIFY_SOCKET");
        (void) unsetenv("WATCHDOG_USEC");
        (void) unsetenv("WATCHDOG_PID");
}

void notify_close(Notify *notify) {
        notify->fd = fd_close(notify->fd);
}

static void send_text(Notify *notify, const char *text) {
        ssize_t n;

        do
                n = sendto(notify->fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *) &notify->address,
                           notify->size);
        while (n < 0 && errno == EINTR);
        if (n < 0 && !notify->failed)
                log_warning("cannot tell the service manager anything by its NOTIFY_SOCKET: %s", strerror(errno));
        notify->failed = n < 0;
}

void notify_say(Notify *notify, KeeperNotify what, const char *text) {
        static const char *const words[_KEEPER_NOTIFY_N] = {
                [KEEPER_NOTIFY_STATUS] = "",
                [KEEPER_NOTIFY_READY] = "READY=1\n",
                [KEEPER_NOTIFY_RELOADING] = "RELOADING=1\n",
                [KEEPER_NOTIFY_STOPPING] = "STOPPING=1\n",
        };
        char message[KEEPER_RECORD_SIZE + 128], moment[64] = "";

        if (notify->fd < 0)
                return;
        if (what == KEEPER_NOTIFY_RELOADING)
                (void) snprintf(moment, sizeof(moment), "MONOTONIC_USEC=%" PRIu64 "\n", clock_now());
        (void) snprintf(message, sizeof(message), "%s%s%s%s", words[what], moment, text && *text ? "STATUS=" : "",
                        text ? text : "");
        if (*message)
                send_text(notify, message);
}

void notify_alive(Notify *notify) {
        if (notify->fd >= 0 && notify->watchdog_us > 0)
                send_text(notify, "WATCHDOG=1");
}
