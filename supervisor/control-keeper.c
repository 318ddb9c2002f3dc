/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The keeper's replacement, asked for by a client. All that is done here is to open the program and to wait for the keeper's
 * word; whether it comes from the process before or after its exec makes no difference on the socket.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "supervisor/control-internal.h"
#include "supervisor/control-keeper.h"

struct KeeperReplacement {
        Supervisor *supervisor;
        Call *call; /* NULL: whoever asked is gone */
        uint64_t begun_us;
};

KeeperReplacement *control_keeper_free(KeeperReplacement *replacement) {
        if (!replacement)
                return NULL;
        keeper_link_forget(replacement->supervisor->link, replacement);
        if (replacement->call)
                call_on_cancel(replacement->call, NULL, NULL);
        free(replacement);
        return NULL;
}

static void fail(KeeperReplacement *replacement, const char *why) {
        Supervisor *supervisor = replacement->supervisor;
        Call *call = TAKE_PTR(replacement->call);

        if (call)
                call_on_cancel(call, NULL, NULL);
        supervisor->replacement = control_keeper_free(replacement);
        if (call)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "the keeper is not replaced: %s", why);
}

/* asked() - 0: it is being tried, and a word of it follows. */
static void asked(KeeperLink *link, int result, void *userdata) {
        (void) link;
        if (result < 0)
                fail(userdata, result == -EBUSY ? "a takeover is under way" : strerror(-result));
}

void control_keeper_replaced(Supervisor *supervisor, int result, const char *text) {
        Baton__Control__ReplaceKeeperResponse response = BATON__CONTROL__REPLACE_KEEPER_RESPONSE__INIT;
        KeeperReplacement *replacement = supervisor->replacement;
        Call *call;

        if (!replacement)
                return;
        if (result < 0) {
                fail(replacement, text);
                return;
        }
        call = TAKE_PTR(replacement->call);
        response.pid = getppid();
        response.release = (char *) (uintptr_t) text;
        response.total_us = clock_now() - replacement->begun_us;
        if (call)
                call_on_cancel(call, NULL, NULL);
        supervisor->replacement = control_keeper_free(replacement);
        if (call)
                (void) call_answer_message(call, &response.base);
}

static void cancelled(Call *call, void *userdata) {
        KeeperReplacement *replacement = userdata;

        replacement->call = NULL;
        (void) call_fail(call, STATUS_CANCELLED, "cancelled");
}

/* own_program() - the keeper's, as it is there now: where it was replaced by another file the kernel says so. */
static int own_program(char *path, size_t size) {
        static const char deleted[] = " (deleted)";
        char link[64];
        ssize_t n;

        (void) snprintf(link, sizeof(link), "/proc/%d/exe", (int) getppid());
        n = readlink(link, path, size - 1);
        if (n < 0)
                return -errno;
        path[n] = '\0';
        if ((size_t) n > sizeof(deleted) && strcmp(path + n - (sizeof(deleted) - 1), deleted) == 0)
                path[n - (ssize_t) (sizeof(deleted) - 1)] = '\0';
        return 0;
}

static int open_program(const char *wanted, char *path, size_t size) {
        int fd, r = 0;

        if (*wanted)
                (void) snprintf(path, size, "%s", wanted);
        else
                r = own_program(path, size);
        if (r < 0 || *path != '/')
                return r < 0 ? r : -EINVAL;
        fd = open(path, O_PATH | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

void control_replace_keeper(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__ReplaceKeeperRequest *request = (const Baton__Control__ReplaceKeeperRequest *) message;
        Supervisor *supervisor = control->supervisor;
        _cleanup_fd_ int program = -1;
        char path[4096] = "";
        int r;

        if (!supervisor->followed || supervisor->takeover || supervisor->replacement || supervisor->stopping) {
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "the keeper is not replaced: %s",
                                 !supervisor->followed  ? "it is that of a private tree"
                                 : supervisor->stopping ? "the supervisor is stopping"
                                                        : "a takeover is under way");
                return;
        }
        program = open_program(request->program, path, sizeof(path));
        if (program < 0) {
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "cannot open %.512s: %s", path,
                                 program == -EINVAL ? "the path must be absolute" : strerror(-program));
                return;
        }
        supervisor->replacement = calloc(1, sizeof(*supervisor->replacement));
        if (!supervisor->replacement) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory, or descriptors");
                return;
        }
        *supervisor->replacement = (KeeperReplacement){ supervisor, call, clock_now() };
        call_on_cancel(call, cancelled, supervisor->replacement);
        r = keeper_link_replace_keeper(supervisor->link, program, request->check, asked, supervisor->replacement);
        if (r < 0)
                fail(supervisor->replacement, strerror(-r));
}
