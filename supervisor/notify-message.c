/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Notify message. What is understood is a table of lines: those that are a word are compared as a whole, those with a value
 * have a function that reads it. The last of a kind counts. Nothing is allocated.
 */

#include "supervisor/notify-message.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/macro.h"
#include "common/parse.h"
#include "common/text.h"

#define USEC_MAX (366 * 24 * 3600 * USEC_PER_SEC)

typedef bool ReadValue(NotifyMessage *message, char *value);

static bool read_status(NotifyMessage *message, char *value) {
        (void) text_mend(value);
        text_cut(value, NOTIFY_STATUS_MAX);
        for (char *c = value; *c; c++)
                if ((unsigned char) *c < ' ' || *c == 0x7f)
                        *c = '?';
        message->status = value;
        return true;
}

static bool read_errno(NotifyMessage *message, char *value) {
        uint64_t number;

        if (parse_u64(value, 4095, &number) < 0)
                return false;
        message->error = (int) number;
        return true;
}

static bool read_main_pid(NotifyMessage *message, char *value) {
        uint64_t number;

        if (parse_u64(value, INT32_MAX, &number) < 0 || number == 0)
                return false;
        message->main_pid = (pid_t) number;
        return true;
}

static bool read_watchdog(NotifyMessage *message, char *value) {
        return parse_u64(value, USEC_MAX, &message->watchdog_us) == 0;
}

static bool read_extend(NotifyMessage *message, char *value) {
        return parse_u64(value, USEC_MAX, &message->extend_us) == 0;
}

static bool read_monotonic(NotifyMessage *message, char *value) {
        return parse_u64(value, INT64_MAX, &message->monotonic_us) == 0;
}

static bool read_fd_name(NotifyMessage *message, char *value) {
        size_t length = strlen(value);

        for (size_t i = 0; i < length; i++)
                if (value[i] < ' ' || value[i] > '~' || value[i] == ':')
                        return false;
        if (length == 0 || length > NOTIFY_FD_NAME_MAX)
                return false;
        message->fd_name = value;
        return true;
}

static bool read_fd_poll(NotifyMessage *message, char *value) {
        if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
                return false;
        message->no_poll = *value == '0';
        return true;
}

static const struct {
        const char *line; /* the whole of it, or up to its value */
        unsigned word;    /* 0: it belongs to another */
        ReadValue *read;
} lines[] = {
        { "READY=1", NOTIFY_READY, NULL },
        { "RELOADING=1", NOTIFY_RELOADING, NULL },
        { "STOPPING=1", NOTIFY_STOPPING, NULL },
        { "WATCHDOG=1", NOTIFY_ALIVE, NULL },
        { "WATCHDOG=trigger", NOTIFY_TROUBLE, NULL },
        { "FDSTORE=1", NOTIFY_FDSTORE, NULL },
        { "FDSTOREREMOVE=1", NOTIFY_FDSTOREREMOVE, NULL },
        { "BARRIER=1", NOTIFY_BARRIER, NULL },
        { "STATUS=", NOTIFY_STATUS, read_status },
        { "ERRNO=", NOTIFY_ERRNO, read_errno },
        { "MAINPID=", NOTIFY_MAINPID, read_main_pid },
        { "WATCHDOG_USEC=", NOTIFY_WATCHDOG_USEC, read_watchdog },
        { "EXTEND_TIMEOUT_USEC=", NOTIFY_EXTEND_TIMEOUT, read_extend },
        { "MONOTONIC_USEC=", NOTIFY_MONOTONIC_USEC, read_monotonic },
        { "FDNAME=", 0, read_fd_name },
        { "FDPOLL=", 0, read_fd_poll },
};

static void tell_why(const char *line, char why[NOTIFY_WHY_SIZE]) {
        if (*why)
                return;
        (void) snprintf(why, NOTIFY_WHY_SIZE, "%s", line);
        (void) text_mend(why);
        for (char *c = why; *c; c++)
                if ((unsigned char) *c < ' ' || *c == 0x7f)
                        *c = '?';
}

static void read_line(NotifyMessage *message, char *line, char why[NOTIFY_WHY_SIZE]) {
        for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
                if (!lines[i].read && strcmp(line, lines[i].line) == 0) {
                        message->words |= lines[i].word;
                        return;
                }
                if (!lines[i].read || !text_begins(line, lines[i].line))
                        continue;
                if (lines[i].read(message, line + strlen(lines[i].line)))
                        message->words |= lines[i].word;
                else
                        tell_why(line, why);
                return;
        }
}

int notify_message_parse(char *text, size_t size, NotifyMessage *ret_message, char why[NOTIFY_WHY_SIZE]) {
        NotifyMessage message = { 0 };
        char *rest = text, *line;

        *why = '\0';
        if (memchr(text, '\0', size))
                return -EBADMSG;
        while ((line = strsep(&rest, "\n")))
                if (*line)
                        read_line(&message, line, why);
        *ret_message = message;
        return 0;
}
