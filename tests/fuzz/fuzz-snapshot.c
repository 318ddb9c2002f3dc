/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes what a successor believes of its predecessor: arbitrary bytes as a snapshot, taken up by a supervisor with a few
 * configured runners: runners, instances, configurations, groups, hooks, connections and relays. Then its loop turns for a
 * moment. Whatever comes is the nearest thing that can be, or left out, and nothing is left behind. No process is ever
 * made: clone() fails here, as it may.
 */

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>

#include "common/fd.h"
#include "common/keeper-message.h"
#include "supervisor/events.h"
#include "tests/snapshot-fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_clone(int (*function)(void *), void *stack, int flags, void *argument, ...);

int __wrap_clone(int (*function)(void *), void *stack, int flags, void *argument, ...) {
        (void) function;
        (void) stack;
        (void) flags;
        (void) argument;
        errno = EAGAIN;
        return -1;
}

/* fill_low_fds() - what spawn() puts there for its child is not to replace what is ours. Before anything is counted. */
__attribute__((constructor)) static void fill_low_fds(void) {
        int fd;

        do {
                fd = open("/dev/null", O_RDWR | O_CLOEXEC);
                if (fd < 0)
                        abort();
        } while (fd < KEEPER_RESERVED_FDS);
        fd_close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        Baton__Snapshot__Snapshot *snapshot = baton__snapshot__snapshot__unpack(NULL, size, data);
        SupervisorFixture fixture;

        if (!snapshot)
                return 0;
        snapshot_fixture_open(&fixture);
        (void) snapshot_fixture_restore(&fixture, snapshot);
        supervisor_fixture_turn(&fixture);
        supervisor_fixture_close(&fixture);
        baton__snapshot__snapshot__free_unpacked(snapshot, NULL);
        return 0;
}
