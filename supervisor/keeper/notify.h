#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The service manager that started us: the words of sd_notify(3), sent by the keeper alone. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/keeper-message.h"

typedef struct Notify {
        int fd; /* -1: there is nobody to tell */
        struct sockaddr_un address;
        socklen_t size;
        uint64_t watchdog_us; /* wants to hear of us so often; 0: no */
        bool failed;          /* and it was said */
} Notify;
#define NOTIFY_NULL ((Notify){ .fd = -1 })

/*
 * notify_open() - from $NOTIFY_SOCKET (a path, or @name for an abstract socket), $WATCHDOG_USEC and $WATCHDOG_PID, all of
 * which are removed from the environment: nobody else is to speak for us. Says itself what it cannot use.
 */
void notify_open(Notify *notify);
void notify_close(Notify *notify);

/* notify_say() - @what, with @text (NULL or "": none) as the status. Waits a moment for room. */
void notify_say(Notify *notify, KeeperNotify what, const char *text);

/* notify_alive() - for the watchdog, where there is one. */
void notify_alive(Notify *notify);
