/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes what a runner believes of its predecessor: a baton.handover.Service, whose clients are restored with descriptors
 * of the names that it may use, own their connections, are served for some turns, and go. An input of an even size is
 * refused afterwards instead, as by an application that does. Whatever comes, no descriptor is left over.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/fd.h"
#include "proto/message.h"
#include "runner/runner.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

enum { CLIENTS = 2, FDS = 4, TURNS = 8 };

static const struct baton_service service = { .size = sizeof(service) };

/* set_up() - a runner whose supervisor never says a word. */
static struct baton_runner *set_up(int *ret_listener) {
        struct baton_runner_options options = { .size = sizeof(options) };
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        const char *root = getenv("TMPDIR");
        struct baton_runner *runner;
        char directory[64];
        int listener;

        (void) snprintf(directory, sizeof(directory), "%.40s/fuzz-XXXXXX", root ? root : "/tmp");
        CHECK(mkdtemp(directory));
        (void) snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", directory);
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(bind(listener, (struct sockaddr *) &address, sizeof(address)) == 0 && listen(listener, 8) == 0);
        options.bootstrap = address.sun_path;
        CHECK(baton_runner_new(&runner, &options) == 0);
        CHECK(baton_runner_set_service(runner, &service, NULL) == 0);
        CHECK(unlink(address.sun_path) == 0 && rmdir(directory) == 0);
        *ret_listener = listener; /* its connection waits there to be accepted, for ever */
        return runner;
}

static void add(Manifest *manifest, const char *name, int fds[], size_t *n) {
        int pair[2];

        CHECK(fd_socketpair(SOCK_STREAM, pair) == 0);
        CHECK(manifest_add(manifest, name, pair[0]) == 0);
        fds[(*n)++] = pair[0];
        fds[(*n)++] = pair[1];
}

/* make_manifest() - as it arrives; the other ends are in @fds, too. */
static void make_manifest(Manifest *ret_received, int fds[], size_t *n) {
        static const char *const fixed[] = { "lane", "channel/0", "link/lane", "link/channel/0" };
        char reason[MANIFEST_REASON_SIZE], name[64];
        Manifest given = MANIFEST_NULL;
        int memfd = -1;

        for (unsigned i = 0; i < CLIENTS; i++) {
                for (size_t j = 0; j < ARRAY_SIZE(fixed); j++) {
                        (void) snprintf(name, sizeof(name), "client/%u/%s", i, fixed[j]);
                        add(&given, name, fds, n);
                }
                for (unsigned j = 0; j < FDS; j++) {
                        (void) snprintf(name, sizeof(name), "client/%u/fd/%u", i, j);
                        add(&given, name, fds, n);
                }
        }
        CHECK(manifest_pack(&given, &memfd) == 0);
        CHECK(manifest_unpack(ret_received, memfd, 0, 0, MANIFEST_FDS_MAX, reason) == 0);
        for (size_t i = 0; i < given.n; i++)
                CHECK(manifest_accept(ret_received, i, fd_dup(given.fds[i]), reason) == 0);
        manifest_deinit(&given);
        fd_close(memfd);
}

static void restore(struct baton_runner *runner, const Baton__Handover__Service *message, bool refused) {
        int fds[CLIENTS * (4 + FDS) * 2];
        char reason[RUNNER_REASON_SIZE] = "";
        Manifest manifest = MANIFEST_NULL;
        size_t n = 0;
        int r;

        make_manifest(&manifest, fds, &n);
        r = attach_restore(runner, &manifest, message, reason);
        CHECK(r == 0 || *reason);
        manifest_deinit(&manifest);
        if (r == 0 && !refused) {
                attach_go_on(runner);
                for (unsigned i = 0; i < TURNS; i++)
                        CHECK(baton_runner_dispatch(runner, 0) == 0);
                attach_free(runner);
        } else {
                attach_restore_undo(runner);
        }
        CHECK(baton_runner_dispatch(runner, 0) == 0);
        CHECK(runner->n_clients == 0);
        fd_close_all(fds, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_message_ Baton__Handover__Service *message = NULL;
        struct baton_runner *runner;
        int before = fd_count(), listener;

        message = message_unpack(&baton__handover__service__descriptor, data, size);
        if (!message)
                return 0;
        runner = set_up(&listener);
        restore(runner, message, size % 2 == 0);
        baton_runner_free(runner);
        fd_close(listener);
        CHECK(fd_count() == before);
        return 0;
}
