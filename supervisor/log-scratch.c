/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Scratch: how bytes get from a pipe into memory without a moment at which a SIGKILL loses them. read() has such a moment:
 * the bytes are out of the pipe and in memory, but how many they are is known to a register only. So they are moved into
 * a pipe of our own first, which nobody else writes, and whose content the kernel can tell (FIONREAD). Per batch:
 *
 *     1. page->current = ring and stream     whose bytes scratch is going to hold
 *     2. splice(pipe, scratch)               n of them
 *     3. target = head + n
 *     4. read(scratch, stage behind head)    until all n are there
 *     5. head = target                       the commit
 *
 * After a kill, a stream whose target is not its head was in step 4: what scratch does not hold any more is in the stage.
 * Where there is none, all that scratch holds is of `current', which then does steps 3 to 5. Empty scratch, no target:
 * nothing was on its way. There is one scratch pipe, so at most one stream is on its way.
 *
 * The pages are moved, not copied, by splice(); the copy is that of read().
 */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/memfd.h"
#include "supervisor/log-ring-internal.h"

#define PAGE_MAGIC UINT64_C(0x31656761506e7442)

typedef struct Page {
        uint64_t magic;
        uint64_t current; /* id of the ring, and the number of the stream in the lowest byte */
} Page;

struct LogScratch {
        int fds[LOG_SCRATCH_FDS];
        Page *page;
};

static LogScratch *make(void) {
        LogScratch *scratch = calloc(1, sizeof(*scratch));

        for (unsigned i = 0; scratch && i < LOG_SCRATCH_FDS; i++)
                scratch->fds[i] = -1;
        return scratch;
}

int log_scratch_new(LogScratch **ret_scratch) {
        _cleanup_(log_scratch_freep) LogScratch *scratch = make();
        void *memory;
        int r;

        if (!scratch)
                return -ENOMEM;
        if (pipe2(scratch->fds, O_CLOEXEC) < 0)
                return -errno;
        r = memfd_shared("baton-log-page", sizeof(Page), 0, &scratch->fds[LOG_SCRATCH_PAGE], &memory);
        if (r < 0)
                return r;
        scratch->page = memory;
        scratch->page->magic = PAGE_MAGIC;
        *ret_scratch = TAKE_PTR(scratch);
        return 0;
}

int log_scratch_open(LogScratch **ret_scratch, int fds_consume[LOG_SCRATCH_FDS]) {
        _cleanup_(log_scratch_freep) LogScratch *scratch = make();
        void *memory;

        if (!scratch) {
                fd_close_all(fds_consume, LOG_SCRATCH_FDS);
                return -ENOMEM;
        }
        for (unsigned i = 0; i < LOG_SCRATCH_FDS; i++)
                scratch->fds[i] = fd_take(&fds_consume[i]);
        if (fcntl(scratch->fds[LOG_SCRATCH_READ], F_GETPIPE_SZ) < 0 ||
            fcntl(scratch->fds[LOG_SCRATCH_WRITE], F_GETPIPE_SZ) < 0 ||
            memfd_check(scratch->fds[LOG_SCRATCH_PAGE], sizeof(Page), F_SEAL_SHRINK | F_SEAL_GROW) < 0)
                return -EINVAL;
        memory = mmap(NULL, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, scratch->fds[LOG_SCRATCH_PAGE], 0);
        if (memory == MAP_FAILED)
                return -errno;
        scratch->page = memory;
        if (scratch->page->magic != PAGE_MAGIC)
                return -EINVAL;
        *ret_scratch = TAKE_PTR(scratch);
        return 0;
}

LogScratch *log_scratch_free(LogScratch *scratch) {
        if (!scratch)
                return NULL;
        if (scratch->page)
                (void) munmap(scratch->page, sizeof(Page));
        fd_close_all(scratch->fds, LOG_SCRATCH_FDS);
        free(scratch);
        return NULL;
}

int log_scratch_fd(const LogScratch *scratch, unsigned which) {
        return scratch->fds[which];
}

/* held() - bytes in scratch. */
static size_t held(const LogScratch *scratch) {
        int n = 0;

        (void) ioctl(scratch->fds[LOG_SCRATCH_READ], FIONREAD, &n);
        return (size_t) n;
}

/* finish() - steps 4 and 5, from wherever step 4 had come to; @left bytes are in scratch. */
static void finish(LogScratch *scratch, LogRing *ring, int stream, size_t left) {
        uint64_t target = ring->header->streams[stream].target;
        const LogRingStream *in = &log_ring_state(ring)->streams[stream];
        uint8_t *to = log_ring_stage(ring, stream) + in->begin + (target - in->taken) - left;

        while (left > 0) {
                ssize_t n = read(scratch->fds[LOG_SCRATCH_READ], to, left);

                if (n < 0 && errno == EINTR)
                        continue;
                assert(n > 0); /* they were counted in */
                to += n;
                left -= (size_t) n;
        }
        __atomic_store_n(&ring->header->streams[stream].head, target, __ATOMIC_RELEASE);
}

/* begin() - step 3. */
static void begin(LogRing *ring, int stream, size_t size) {
        __atomic_store_n(&ring->header->streams[stream].target, ring->header->streams[stream].head + size,
                         __ATOMIC_RELEASE);
}

ssize_t log_scratch_take(LogScratch *scratch, LogRing *ring, int stream, int pipe, size_t max) {
        size_t used = log_ring_state(ring)->streams[stream].begin + log_ring_waiting(ring, stream);
        ssize_t n;

        max = MIN(max, LOG_RING_STAGE_SIZE - used);
        if (max == 0)
                return -EAGAIN;
        __atomic_store_n(&scratch->page->current, ring->header->id << 8 | (uint64_t) stream, __ATOMIC_RELEASE);
        n = splice(pipe, NULL, scratch->fds[LOG_SCRATCH_WRITE], NULL, max, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        if (n <= 0)
                return n < 0 ? -errno : 0;
        begin(ring, stream, (size_t) n);
        finish(scratch, ring, stream, (size_t) n);
        return n;
}

void log_scratch_recover(LogScratch *scratch, LogRing *const *rings, size_t n_rings) {
        uint64_t current = scratch->page->current;
        size_t left = held(scratch);

        for (size_t i = 0; i < n_rings; i++)
                for (int j = 0; j < LOG_RING_STREAMS; j++)
                        if (rings[i]->header->streams[j].target != rings[i]->header->streams[j].head) {
                                finish(scratch, rings[i], j, left);
                                return;
                        }
        for (size_t i = 0; left > 0 && i < n_rings; i++)
                if (rings[i]->header->id == current >> 8) {
                        begin(rings[i], (int) (current & 0xff), left);
                        finish(scratch, rings[i], (int) (current & 0xff), left);
                        return;
                }
        /* Bytes of a log that is no more: they must not come into another. */
        while (left > 0) {
                char rest[4096];
                ssize_t n = read(scratch->fds[LOG_SCRATCH_READ], rest, MIN(left, sizeof(rest)));

                if (n <= 0)
                        return;
                left -= (size_t) n;
        }
}
