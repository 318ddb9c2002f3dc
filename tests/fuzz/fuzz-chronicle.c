/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes what a supervisor believes of the memory in which one before it has written what became of runners: read, given to
 * its runners, and written on.
 */

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/memfd.h"
#include "supervisor/chronicle.h"
#include "tests/snapshot-fixture.h"

enum { HEADER = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* memory_of() - its head made to fit, since hardly anything else would be read. */
static int memory_of(const uint8_t *data, size_t size) {
        const uint64_t magic = UINT64_C(0x656c63696e6f7268), head = size;
        void *memory;
        int fd;

        if (memfd_shared("fuzz", HEADER + size, 0, &fd, &memory) < 0)
                abort();
        memcpy(memory, &magic, sizeof(magic));
        memcpy((uint8_t *) memory + 8, &(uint32_t){ 1 }, sizeof(uint32_t));
        memcpy((uint8_t *) memory + 16, &head, sizeof(head));
        memcpy((uint8_t *) memory + HEADER, data, size);
        (void) munmap(memory, HEADER + size);
        return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        SupervisorFixture fixture;
        Chronicle *chronicle;

        snapshot_fixture_open(&fixture);
        chronicle = fixture.supervisor->chronicle;
        fixture.supervisor->followed = true;
        chronicle_stored(chronicle, size > 0 ? memory_of(data, size) : -1);
        chronicle_read(chronicle);
        for (Runner *runner = runner_first(fixture.supervisor); runner; runner = runner_next(runner)) {
                chronicle_configure(runner, 0);
                chronicle_restore(runner);
                (void) chronicle_restore_why(runner);
        }
        chronicle_begin(chronicle);
        for (Runner *runner = runner_first(fixture.supervisor); runner; runner = runner_next(runner))
                chronicle_program(runner);
        supervisor_fixture_close(&fixture);
        return 0;
}
