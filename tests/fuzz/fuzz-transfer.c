/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes what the supervisor takes from a runner that gives a checkpoint: messages over a socket, with descriptors, in any
 * order. The input is a row of steps: a byte that says which, one that is its argument, one that says how many bytes follow,
 * and those. Whatever comes, no more is taken than was allowed, and no descriptor is left over.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cmsg.h"
#include "common/fd.h"
#include "common/memfd.h"
#include "proto/service-snapshot.h"
#include "proto/transfer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

enum { POOL = 4, MOST = 6, STEPS = 64, HEADER_SIZE = 24 + 512 };

enum { RAW, MANIFEST, LISTED, BATCH, WORD, END, _STEP_N };

typedef struct Fuzz {
        int giver, pool[POOL];
        Transfer transfer;
} Fuzz;

static void send_message(Fuzz *fuzz, uint32_t type, uint64_t first, uint64_t n, const int *fds, size_t n_fds) {
        struct {
                uint32_t magic, type;
                uint64_t first, n;
                char text[512];
        } message = { .magic = 0x426e7402u, .type = type, .first = first, .n = n };

        _Static_assert(sizeof(message) == HEADER_SIZE, "as proto/transfer.c has it");
        memset(message.text, 'w', sizeof(message.text));
        (void) cmsg_send(fuzz->giver, &message, sizeof(message), fds, n_fds);
}

static void send_manifest(Fuzz *fuzz, uint64_t n, const uint8_t *bytes, size_t size) {
        int memfd = -1;

        CHECK(memfd_sealed("fuzz", bytes, size, &memfd) == 0);
        send_message(fuzz, 1, 0, n, &memfd, 1);
        fd_close(memfd);
}

/* send_listed() - a good one of @n descriptors, whose names are as long as @bytes says. */
static void send_listed(Fuzz *fuzz, size_t n, const uint8_t *bytes, size_t size) {
        Manifest manifest = { .version = SERVICE_SNAPSHOT_VERSION };
        char name[MANIFEST_NAME_MAX + 1];
        int memfd = -1;

        for (size_t i = 0; i < n; i++) {
                (void) snprintf(name, sizeof(name), "%zu/%0*d", i, i < size ? bytes[i] % 200 : 0, 7);
                CHECK(manifest_add(&manifest, name, fuzz->pool[i % POOL]) == 0);
        }
        CHECK(manifest_pack(&manifest, &memfd) == 0);
        send_message(fuzz, 1, 0, n, &memfd, 1);
        fd_close(memfd);
        manifest_deinit(&manifest);
}

static void send_batch(Fuzz *fuzz, uint8_t first, const uint8_t *bytes, size_t size) {
        int fds[16];
        size_t n = MIN(size, ARRAY_SIZE(fds));

        for (size_t i = 0; i < n; i++)
                fds[i] = fuzz->pool[bytes[i] % POOL];
        send_message(fuzz, 2, first, n, fds, n);
}

static void step(Fuzz *fuzz, uint8_t which, uint8_t argument, const uint8_t *bytes, size_t size) {
        switch (which % _STEP_N) {
        case RAW:
                if (size > 0)
                        (void) cmsg_send(fuzz->giver, bytes, size, fuzz->pool, argument % POOL);
                break;
        case MANIFEST:
                send_manifest(fuzz, argument, bytes, size);
                break;
        case LISTED:
                send_listed(fuzz, argument % (2 * MOST), bytes, size);
                break;
        case BATCH:
                send_batch(fuzz, argument, bytes, size);
                break;
        case WORD:
                send_message(fuzz, 3u + argument % 4, argument, argument, fuzz->pool, size % POOL);
                break;
        default:
                (void) shutdown(fuzz->giver, SHUT_RDWR);
        }
}

/* take() - as far as it goes; false: it is over. */
static bool take(Fuzz *fuzz) {
        Transfer *transfer = &fuzz->transfer;
        TransferState state = transfer_step(transfer);

        CHECK(transfer->taken.n <= MOST && transfer->n_done <= transfer->taken.n);
        CHECK(state != TRANSFER_FAILED || *transfer->reason);
        if (state == TRANSFER_DONE)
                for (size_t i = 0; i < transfer->taken.n; i++)
                        CHECK(transfer->taken.fds[i] >= 0);
        return state == TRANSFER_WAITS;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        int before = fd_count(), ends[2];
        Fuzz fuzz;

        for (size_t i = 0; i < POOL; i += 2)
                CHECK(fd_socketpair(SOCK_STREAM, fuzz.pool + i) == 0);
        CHECK(fd_socketpair(SOCK_SEQPACKET, ends) == 0);
        fuzz.giver = ends[0];
        transfer_take(&fuzz.transfer, ends[1], 1, SERVICE_SNAPSHOT_VERSION);
        fuzz.transfer.most = MOST;
        for (unsigned i = 0; i < STEPS && size >= 3; i++) {
                size_t n = MIN((size_t) data[2], size - 3);

                step(&fuzz, data[0], data[1], data + 3, n);
                data += 3 + n;
                size -= 3 + n;
                if (!take(&fuzz))
                        break;
        }
        transfer_deinit(&fuzz.transfer);
        fd_close_all(ends, 2);
        fd_close_all(fuzz.pool, POOL);
        CHECK(fd_count() == before);
        return 0;
}
