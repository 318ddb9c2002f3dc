#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * How a runner that speaks no RPC says that it is ready: by datagrams to a private socket (NOTIFY_SOCKET, the sd_notify
 * protocol), or by a newline on a pipe. One per instance.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "common/loop.h"

typedef struct Notify Notify;

/* What it says. RELOADING, descriptors to be stored and longer time-outs are not among it: they are read over. */
typedef enum NotifyWord {
        NOTIFY_READY,    /* READY=1, or the newline */
        NOTIFY_STOPPING, /* STOPPING=1 */
        NOTIFY_ALIVE,    /* WATCHDOG=1 */
        NOTIFY_TROUBLE,  /* WATCHDOG=trigger: it asks to be taken for dead */
        NOTIFY_STATUS,   /* STATUS=text, made fit for output */
        NOTIFY_CLOSED,   /* the pipe was closed without a newline: it will never come */
        _NOTIFY_WORD_N,
} NotifyWord;

enum { NOTIFY_STATUS_MAX = 200 /* bytes of a status; the rest is cut off */ };

/* From the loop. @value: the status, else "". The callback may close the structure. */
typedef void (*NotifyTold)(Notify *notify, NotifyWord word, const char *value, void *userdata);

/*
 * notify_open_socket() - in a directory of its own, made from @template (absolute, ending in XXXXXX), owned by @uid. Nothing
 * is read before notify_accept(). 0, or a negative errno with the step that failed in @ret_step, and then nothing is left.
 * notify_open_pipe() - the write end, for the runner, in @ret_fd, the caller's. 0 or a negative errno.
 * @label is the runner's name, for the log; borrowed.
 */
int notify_open_socket(Notify **ret_notify, Loop *loop, const char *label, const char *template, uid_t uid,
                       NotifyTold told, void *userdata, const char **ret_step);
int notify_open_pipe(Notify **ret_notify, Loop *loop, const char *label, NotifyTold told, void *userdata, int *ret_fd);

/* notify_adopt() - of a runner found after a crash; @path of the socket @fd_consume, NULL: it is a pipe. 0 or -ENOMEM. */
int notify_adopt(Notify **ret_notify, Loop *loop, const char *label, const char *path, int fd_consume, NotifyTold told,
                 void *userdata);

/*
 * notify_accept() - the runner is @pid, the leader of its session; @pidfd (borrowed until notify_close()) tells whether it
 * still is. Datagrams of other processes than those of its session are refused, and logged.
 */
void notify_accept(Notify *notify, pid_t pid, int pidfd);

/* notify_path() - of the socket; NULL: it is a pipe. notify_fd() - what is read from; ours. */
const char *notify_path(const Notify *notify);
int notify_fd(const Notify *notify);

/* notify_read() - what is there already, before the loop would: at the runner's end. False: @notify was closed by it. */
bool notify_read(Notify *notify);

/* notify_close() - frees it; its descriptor is returned and is the caller's to close. */
int notify_close(Notify *notify);
