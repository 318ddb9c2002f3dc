/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Random interleavings of two peers of the engine, thousands of them, against a model (tests/property-model.c). A round
 * makes a pair with random limits, lets applications and the event loops of both sides act in random order, with sockets
 * that take little and fail for a while, and then becomes quiet: what was promised must be there, all credit must be
 * back, and nothing may be left, neither memory nor descriptors nor calls. Some rounds end in the middle instead.
 *
 *         BATON_TEST_ROUNDS=100000 tests/test-property        # for hours
 *         tests/test-property --seed 1234                     # the one round of that seed, again
 *
 * A failure prints the seed of its round. Time is the seam's: nothing waits.
 */

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "proto/peer-internal.h"
#include "tests/property.h"
#include "tests/seam.h"
#include "tests/test.h"

#define ROUNDS     2000
#define TURNS_MAX  20000 /* to become quiet: above it, something wakes itself for ever */
#define NEVER      UINT64_C(1000000000000000)
#define CLOCK_BASE UINT64_C(1000000000)
#define RETRY_US   11000u /* longer than the engine waits where no event tells */

static unsigned long long first_seed, round_seed;
static unsigned n_rounds = ROUNDS;

static bool one_in(uint32_t n) {
        return property_random(n) == 0;
}

/* ---- a pair ---- */

static uint64_t pick(const uint64_t *values, size_t n) {
        return values[property_random((uint32_t) n)];
}

#define PICK(...) pick((const uint64_t[]){ __VA_ARGS__ }, sizeof((uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t))

static PeerLimits random_limits(void) {
        PeerLimits limits = {
                .max_frame = PICK(65536, 200000, 8u << 20),
                .max_calls = (uint32_t) PICK(1, 5, 20, 1024),
                .fd_credit = (uint32_t) PICK(1, 2, 5, 64),
                .stream_window = PICK(64, 300, 4300, 9000, 65536, 262144),
                .max_held_fds = (uint32_t) PICK(1, 4, 1024, 1024),
                .max_unsent = (size_t) PICK(1, 300, 5000, 70000, 1u << 20),
                .max_waiting = (size_t) PICK(1, 4, 4096, 4096, 4096),
                .max_memory = 256u << 20,
                .max_shared = PICK(131072, 1u << 20, 16u << 20),
                .arena_size = 131072,
                .max_object = PICK(5000, 150000, 1u << 20, 64u << 20),
                .hello_timeout_us = NEVER,
                .frame_timeout_us = NEVER,
                .renewal_timeout_us = NEVER,
        };

        if (one_in(4))
                limits.max_memory = limits.stream_window * (1 + property_random(4));
        world.tight |= world.huge || limits.max_object < 64u << 20 || limits.max_held_fds < 1024 ||
                       limits.max_waiting < 4096 || limits.max_memory < 256u << 20;
        return limits;
}

static void open_pair(void) {
        bool shares = one_in(2);
        int lane[2];

        world.n_channels = one_in(3) ? 3 : 1;
        world.n_usable = world.n_channels == 3 && one_in(2) ? 2 : world.n_channels;
        world.raw = -1;
        assert_int_equal(fd_socketpair(SOCK_STREAM, lane), 0);
        for (unsigned i = 0; i < 2; i++) {
                Side *side = &world.sides[i];
                PeerConfig config = {
                        .side = i,
                        .n_channels = world.n_channels,
                        .renewal = i == 0 ? LANE_RENEWAL_SELF : LANE_RENEWAL_PEER,
                        .limits = &side->limits,
                        .share = shares && !one_in(8),
                        .objects = one_in(3) ? PEER_OBJECTS_NONE : PEER_OBJECTS_MAP,
                };

                *side = (Side){ .index = i, .limits = random_limits(), .test.handler = &property_handler };
                test_peer_new(&side->test, &config, lane[i]);
                for (unsigned n = 1; n < world.n_usable && i == 1; n++)
                        assert_int_equal(peer_frame_channel(side->test.peer, n), 0);
        }
}

static void start_round(unsigned long long seed) {
        int files[PROPERTY_FDS];
        uint64_t inodes[PROPERTY_FDS], n_items = world.n_items, n_calls = world.n_calls, n_shared = world.n_shared;

        memcpy(files, world.files, sizeof(files));
        memcpy(inodes, world.inodes, sizeof(inodes));
        memset(&world, 0, offsetof(World, tracks));
        world.n_tracks = world.n_renewals = world.depth = 0;
        world.calm = world.finishing = world.tight = false;
        world.n_held = 0;
        world.n_shared = n_shared;
        memcpy(world.files, files, sizeof(files));
        memcpy(world.inodes, inodes, sizeof(inodes));
        world.n_items = n_items;
        world.n_calls = n_calls;
        world.random = seed;
        world.large = one_in(8);
        world.huge = one_in(2);
        world.fails = one_in(4);
        world.renews = one_in(3);
        world.ends = one_in(4);
        world.chaos = (unsigned) PICK(0, 2, 5, 20);
        seam_clock_set(CLOCK_BASE);
        open_pair();
}

/* ---- the hosts ---- */

static unsigned ready_events(const Side *side, unsigned slot) {
        struct pollfd p = { .fd = side->test.slots[slot].fd };
        unsigned watched = side->test.slots[slot].events;

        if (!watched)
                return 0;
        p.events = (short) ((watched & PEER_IN ? POLLIN : 0) | (watched & PEER_OUT ? POLLOUT : 0));
        if (poll(&p, 1, 0) <= 0)
                return 0;
        return (p.revents & (POLLIN | POLLHUP | POLLERR) ? PEER_IN : 0) | (p.revents & POLLOUT ? PEER_OUT : 0);
}

/* dispatch() - one ready slot from @first on; false: none is. */
static bool dispatch(Side *side, unsigned first) {
        for (unsigned i = 0; i < _PEER_SLOT_N && !side->freed; i++) {
                unsigned slot = (first + i) % _PEER_SLOT_N, events = ready_events(side, slot);

                if (events == (PEER_IN | PEER_OUT) && !world.calm && one_in(2))
                        events = one_in(2) ? PEER_IN : PEER_OUT;
                if (!events)
                        continue;
                peer_dispatch(side->test.peer, slot, events);
                return true;
        }
        return false;
}

static bool flush(Side *side) {
        if (side->freed || !side->test.awake)
                return false;
        side->test.awake = false;
        peer_flush(side->test.peer);
        return true;
}

static bool expire(Side *side) {
        if (side->freed || peer_deadline(side->test.peer) > clock_now())
                return false;
        peer_expire(side->test.peer);
        return true;
}

/* disturb() - the kernel takes less, or fails for a moment. */
static void disturb(void) {
        const Side *side = &world.sides[property_random(2)];
        int fd = side->freed ? -1 : side->test.slots[property_random(LANE_CHANNELS)].fd, size = 1;

        switch (property_random(4)) {
        case 0:
                if (fd >= 0)
                        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
                break;
        case 1:
                seam_limit_bytes(SEAM_SENDMSG, one_in(3) ? 0 : 8 + property_random(one_in(2) ? 30 : 5000));
                break;
        case 2:
                seam_limit_bytes(SEAM_RECVMSG, one_in(3) ? 0 : 8 + property_random(one_in(2) ? 30 : 5000));
                break;
        default:
                seam_fail(SEAM_SENDMSG, 1 + property_random(4), one_in(2) ? ENOBUFS : EAGAIN);
        }
}

/* starve() - an allocation fails soon. */
static void starve(void) {
        static const SeamCall calls[] = { SEAM_MALLOC, SEAM_CALLOC, SEAM_REALLOC, SEAM_MMAP, SEAM_MEMFD_CREATE };

        if (world.fails)
                seam_fail(calls[property_random(ARRAY_SIZE(calls))], 1 + property_random(8), ENOMEM);
}

static void step(void) {
        Side *side = &world.sides[property_random(2)];
        uint32_t what = property_random(100);

        if (what < 40)
                (void) dispatch(side, property_random(_PEER_SLOT_N));
        else if (what < 60)
                (void) flush(side);
        else if (what < 90)
                property_act(side);
        else if (what < 94)
                seam_clock_advance(property_random(3000));
        else if (what < 96)
                (void) expire(side);
        else if (what < 97)
                starve();
        else
                disturb();
}

static bool turn(void) {
        bool any = false;

        for (unsigned i = 0; i < 2; i++) {
                Side *side = &world.sides[i];

                any |= flush(side);
                any |= expire(side);
                any |= dispatch(side, 0);
                any |= flush(side);
        }
        return any;
}

static void settle(void) {
        unsigned turns = 0;

        for (unsigned i = 0; i < 3; i++) {
                while (turn())
                        CHECK(++turns < TURNS_MAX);
                seam_clock_advance(RETRY_US);
        }
}

/* ---- quiet ---- */

/* leave_alone() - nothing happens by chance any more. */
static void leave_alone(void) {
        static const SeamCall calls[] = { SEAM_SENDMSG, SEAM_MALLOC, SEAM_CALLOC,
                                          SEAM_REALLOC, SEAM_MMAP,   SEAM_MEMFD_CREATE };

        world.calm = true;
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                seam_pass(calls[i]);
        seam_limit_bytes(SEAM_SENDMSG, 0);
        seam_limit_bytes(SEAM_RECVMSG, 0);
}

/* resume_all() - and everything that is on its way arrives. */
static void resume_all(void) {
        for (unsigned i = 0; i < world.n_tracks; i++) {
                property_resume(&world.tracks[i], UP);
                property_resume(&world.tracks[i], DOWN);
        }
        settle();
}

static void check_flow(const Track *track, unsigned dir) {
        const Flow *flow = &track->flows[dir];

        if ((dir == UP && (!track->up || track->deaf)) || (dir == DOWN && !track->down))
                return;
        if (flow->received != flow->sent || flow->end_received != flow->end_sent || flow->blocked)
                fail_msg("call %d, %s: %u sent, %u received, end %d and %d%s", (int) (track - world.tracks),
                         dir == UP ? "up" : "down", flow->sent, flow->received, flow->end_sent, flow->end_received,
                         flow->blocked ? ", its sender waits" : "");
}

/* check_streams() - of calls that are open nothing is on its way, and each stream takes its whole window. */
static void check_streams(void) {
        for (unsigned i = 0; i < world.n_tracks; i++) {
                Track *track = &world.tracks[i];

                if (!property_is_live(track))
                        continue;
                for (unsigned dir = UP; dir <= DOWN; dir++) {
                        check_flow(track, dir);
                        if (dir == UP ? track->up && !track->deaf : track->down)
                                property_full_item(track, dir);
                }
                settle();
                for (unsigned dir = UP; dir <= DOWN && property_is_live(track); dir++)
                        check_flow(track, dir);
        }
}

/* answer_all() - until nobody waits. */
static void answer_all(void) {
        bool any;

        do {
                any = false;
                for (unsigned i = 0; i < world.n_tracks; i++) {
                        any |= world.tracks[i].in != NULL;
                        property_answer(&world.tracks[i]);
                }
                settle();
        } while (any);
}

static void check_ended(void) {
        for (unsigned i = 0; i < world.n_tracks; i++) {
                const Track *track = &world.tracks[i];

                if (track->out || track->in || !(track->done || track->cancelled || track->forgotten))
                        fail_msg("call %u of side %u has not ended: %s%s%s%s%s%s", i, track->caller->index,
                                 track->out ? "out " : "", track->in ? "in " : "", track->arrived ? "arrived " : "",
                                 track->answered ? "answered " : "", track->up ? "up " : "",
                                 track->down ? "down" : "");
        }
}

static void check_idle(void) {
        for (unsigned i = 0; i < 2; i++) {
                size_t incoming;

                if (world.sides[i].freed)
                        continue;
                CHECK(peer_open_calls(world.sides[i].test.peer, &incoming) == 0);
                CHECK(incoming == 0);
                CHECK(peer_is_flushed(world.sides[i].test.peer));
                CHECK(share_blocks(world.sides[i].test.peer) == 0);
        }
}

/* probe() - what was spent is back: as many calls as may be open, each with as many descriptors as may be sent. */
static void probe(Side *side) {
        unsigned n = MIN(side[side->index ? -1 : 1].limits.max_calls + 1, 6u), n_tracks = world.n_tracks;

        for (unsigned i = 0; i < n; i++)
                property_start(side);
        settle();
        answer_all();
        check_ended();
        CHECK(world.n_tracks > n_tracks || n_tracks == PROPERTY_TRACKS);
}

/* ---- ends ---- */

/* leave_in_order() - one side answers all, sends it, and goes: every answer must be heard, which the model checks. */
static void leave_in_order(Side *side) {
        Side *other = &world.sides[1 - side->index];
        unsigned turns = 0;

        for (unsigned i = 0; i < world.n_tracks; i++)
                if (world.tracks[i].callee == side)
                        property_answer(&world.tracks[i]);
        /* Calls that come meanwhile are answered at once or, here, never. */
        while (!peer_is_flushed(side->test.peer)) {
                CHECK(++turns < TURNS_MAX);
                if (turns % 100 == 0)
                        seam_clock_advance(RETRY_US);
                (void) turn();
                if (world.fails && !property_alive(other))
                        break; /* for lack of memory, which it tells now */
                CHECK(property_alive(other));
        }
        if (one_in(2))
                property_close(side);
        side->left = true;
        property_free(side);
        settle();
}

static void check_quiet(void) {
        check_streams();
        answer_all();
        check_ended();
        check_idle();
        probe(&world.sides[0]);
        probe(&world.sides[1]);
        check_ended();
        check_idle();
}

static void end_round(void) {
        bool alive = property_alive(&world.sides[0]) && property_alive(&world.sides[1]);

        leave_alone();
        if (alive && one_in(3)) {
                leave_in_order(&world.sides[property_random(2)]);
                alive = false;
        }
        resume_all();
        while (alive && property_release())
                ;
        settle();
        alive = alive && property_alive(&world.sides[0]) && property_alive(&world.sides[1]);
        if (alive)
                check_quiet();
        answer_all();
        check_ended();
        property_free(&world.sides[property_random(2)]);
        settle();
        property_free(&world.sides[0]);
        property_free(&world.sides[1]);
        answer_all();
        check_ended();
        while (property_release()) /* what outlived everybody */
                ;
        world.raw = fd_close(world.raw);
        for (unsigned i = 0; i < 2; i++)
                CHECK(world.sides[i].test.released);
}

/* ---- rounds ---- */

static size_t memory_used(void) {
        struct mallinfo2 info = mallinfo2();

        return info.uordblks + info.hblkhd;
}

static void run_round(unsigned long long seed) {
        size_t memory = memory_used();
        int n_fds = fd_count();
        unsigned n_steps;

        round_seed = seed;
        start_round(seed);
        n_steps = 100 + property_random(one_in(5) ? 3000 : 600);
        for (unsigned i = 0; i < n_steps; i++)
                step();
        end_round();
        if (fd_count() != n_fds)
                fail_msg("%d descriptors before, %d after", n_fds, fd_count());
        if (memory_used() != memory)
                fail_msg("%zu bytes before, %zu after", memory, memory_used());
}

static void make_files(void) {
        for (unsigned i = 0; i < PROPERTY_FDS; i++) {
                struct stat file;

                world.files[i] = memfd_create("property", MFD_CLOEXEC);
                assert_true(world.files[i] >= 0);
                assert_int_equal(fstat(world.files[i], &file), 0);
                world.inodes[i] = file.st_ino;
        }
}

static void test_interleavings(void **state) {
        (void) state;
        make_files();
        printf("# %u rounds from seed %llu\n", n_rounds, first_seed);
        for (unsigned i = 0; i < n_rounds; i++)
                run_round(first_seed + i);
        printf("# %llu calls arrived, %llu items; %llu of both in shared memory\n", (unsigned long long) world.n_calls,
               (unsigned long long) world.n_items, (unsigned long long) world.n_shared);
        fd_close_all(world.files, PROPERTY_FDS);
        round_seed = 0;
}

/* ---- start ---- */

/* say_seed() - on whatever end of the process. */
static void say_seed(void) {
        char line[100];
        int n = snprintf(line, sizeof(line), "# the round that failed: --seed %llu\n", round_seed);

        if (round_seed && write(STDOUT_FILENO, line, (size_t) n) < 0)
                return;
}

static void on_abort(int number) {
        say_seed();
        (void) signal(number, SIG_DFL);
        (void) raise(number);
}

/* ASan calls it before it reports. */
__attribute__((visibility("default"))) void __asan_on_error(void);
void __asan_on_error(void) {
        say_seed();
}

/* without_tcache() - glibc counts what a thread keeps for itself as used: memory could not be compared. */
static void without_tcache(char **argv) {
        if (getenv("GLIBC_TUNABLES"))
                return;
        (void) setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0", 1);
        (void) execv("/proc/self/exe", argv);
}

static const struct CMUnitTest tests[] = { TEST_SLOW(test_interleavings, 100000) };

int main(int argc, char **argv) {
        const char *seed = getenv("BATON_TEST_SEED"), *rounds = getenv("BATON_TEST_ROUNDS");
        int r;

        without_tcache(argv);
        for (int i = 1; i + 1 < argc; i++)
                if (strcmp(argv[i], "--seed") == 0)
                        seed = argv[i + 1];
        first_seed = seed ? strtoull(seed, NULL, 0) : (unsigned long long) clock_wall() % 1000000000;
        n_rounds = rounds ? (unsigned) strtoul(rounds, NULL, 0) : seed ? 1 : ROUNDS;
        (void) signal(SIGABRT, on_abort);
        r = test_run(tests, ARRAY_SIZE(tests));
        say_seed();
        return r;
}
