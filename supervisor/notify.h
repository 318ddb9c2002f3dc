#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * How a runner that speaks no RPC says that it is ready: by datagrams to a private socket (NOTIFY_SOCKET, the sd_notify
 * protocol), or by a newline on a pipe. One per instance.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "common/loop.h"
#include "supervisor/notify-message.h"

typedef struct Notify Notify;

/*
 * From the loop, once for each message. @fds came along with it: those that are taken are left -1, the others closed
 * afterwards. The callback may close the structure. False, with one line in @why: something of it was refused.
 */
enum { NOTIFY_REASON_SIZE = 160 };
typedef bool (*NotifyTold)(Notify *notify, const NotifyMessage *message, int *fds, size_t n_fds, void *userdata,
                           char why[NOTIFY_REASON_SIZE]);

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
 * still is. Datagrams of processes that are neither of its session nor below it are refused, and logged, not too often.
 */
void notify_accept(Notify *notify, pid_t pid, int pidfd);

/* notify_set_main() - besides, @pid (0: none any more) is of the runner, and what is of its session or below it; as above. */
void notify_set_main(Notify *notify, pid_t pid, int pidfd);

/* notify_knows() - whether @pid is the runner, of its session, or below it. */
bool notify_knows(const Notify *notify, pid_t pid);

/* notify_path() - of the socket; NULL: it is a pipe. notify_fd() - what is read from; ours. */
const char *notify_path(const Notify *notify);
int notify_fd(const Notify *notify);

/* notify_read() - what is there already, before the loop would: at the runner's end. False: @notify was closed by it. */
bool notify_read(Notify *notify);

/* notify_close() - frees it; its descriptor is returned and is the caller's to close. */
int notify_close(Notify *notify);
