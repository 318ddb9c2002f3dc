#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* One message of the sd_notify protocol, as text from a runner: what of it is understood. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
        NOTIFY_MESSAGE_MAX = 4096, /* bytes; systemd takes no more */
        NOTIFY_STATUS_MAX = 200,   /* bytes of a status; the rest is cut off */
        NOTIFY_FD_NAME_MAX = 255,
        NOTIFY_WHY_SIZE = 96,
};

/* What it says; bits. */
enum {
        NOTIFY_READY = 1 << 0,           /* READY=1 */
        NOTIFY_RELOADING = 1 << 1,       /* RELOADING=1 */
        NOTIFY_STOPPING = 1 << 2,        /* STOPPING=1 */
        NOTIFY_ALIVE = 1 << 3,           /* WATCHDOG=1 */
        NOTIFY_TROUBLE = 1 << 4,         /* WATCHDOG=trigger: it asks to be taken for dead */
        NOTIFY_STATUS = 1 << 5,          /* STATUS=text */
        NOTIFY_ERRNO = 1 << 6,           /* ERRNO=number */
        NOTIFY_MAINPID = 1 << 7,         /* MAINPID=number */
        NOTIFY_WATCHDOG_USEC = 1 << 8,   /* WATCHDOG_USEC=number; 0: no more */
        NOTIFY_EXTEND_TIMEOUT = 1 << 9,  /* EXTEND_TIMEOUT_USEC=number */
        NOTIFY_MONOTONIC_USEC = 1 << 10, /* MONOTONIC_USEC=number, of RELOADING */
        NOTIFY_FDSTORE = 1 << 11,        /* FDSTORE=1 */
        NOTIFY_FDSTOREREMOVE = 1 << 12,  /* FDSTOREREMOVE=1 */
        NOTIFY_BARRIER = 1 << 13,        /* BARRIER=1 */
        NOTIFY_CLOSED = 1 << 14,         /* of a pipe alone: it was closed without a newline */
};

typedef struct NotifyMessage {
        unsigned words;
        bool no_poll;        /* FDPOLL=0 */
        const char *status;  /* made fit for output */
        const char *fd_name; /* FDNAME; NULL: none */
        int error;
        pid_t main_pid;
        uint64_t watchdog_us, extend_us, monotonic_us;
} NotifyMessage;

/*
 * notify_message_parse() - @text is one message, @size bytes and a byte 0 behind them; it is changed, and what the message
 * has points into it. Lines that are not known are read over. What is known and has no such value is left out, and the first
 * of these is in @why ("ERRNO=x"; "": none). -EBADMSG: a byte 0 is in it, and nothing was read.
 */
int notify_message_parse(char *text, size_t size, NotifyMessage *ret_message, char why[NOTIFY_WHY_SIZE]);
