/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Recorded sessions, tests/recorded/<name>.session: what the runner's side of protocol 1 once sent, byte by byte, replayed
 * against an engine as its supervisor (side 0): a runner of this version must go on working with later ones. Each session
 * is replayed whole, in pieces of 1, 2, 3, 5 and 7 bytes, and with every write cut once at every byte: nothing may depend
 * on how a stream is cut.
 *
 * A session is lines of words; # begins a comment, payloads are hexadecimal, "-" is none.
 *         bytes CHANNEL HEX                the runner writes
 *         lane HEX                         the runner sends a lane message, with the end of a pipe
 *         call CHANNEL METHOD [N]          the supervisor calls, with N descriptors
 *         stream CHANNEL METHOD            the same with streams both ways
 *         send I HEX                       the supervisor sends an item with its Ith call
 *         end I                            and the half-close
 *         items I N BYTES                  with its Ith call came so many items so far, so many bytes together
 *         streamed N BYTES                 with calls of "up" so many items, bytes; each such call was half-closed
 *         answered I STATUS PAYLOAD N      its Ith call (from 0) has been answered so, with N descriptors
 *         heard METHOD PAYLOAD N           the runner's next call; it is echoed, but "keep" is kept
 *         cancelled N                      so many of those kept were cancelled
 *         hello INSTANCE STATE EVENT TEXT  the runner's Hello has been read; it said so, TEXT is its software
 *         renew EPOCH                      the supervisor renews
 *         ended STATUS REASON              the connection has ended so
 */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cmsg.h"
#include "tests/peer-host.h"
#include "tests/test.h"

#define MAX_CALLS 16

/* How a write is cut: into pieces of @piece bytes (0: not), and once after @once bytes (0: not). */
typedef struct Cut {
        size_t piece, once;
} Cut;

typedef struct Heard {
        char method[64];
        uint8_t payload[256];
        size_t size, n_fds;
} Heard;

typedef struct Replay {
        TestBench bench;
        Cut cut;
        unsigned line, n_hellos;
        size_t longest; /* write */
        TestAnswer answers[MAX_CALLS];
        Call *calls[MAX_CALLS];
        unsigned n_calls;
        struct Items {
                unsigned n;
                size_t size;
        } items[MAX_CALLS], up;
        unsigned n_up; /* not half-closed */
        Heard heard[MAX_CALLS];
        unsigned n_heard, n_checked;
} Replay;

static Replay *replay;

#define CHECK(_condition)                                                                                   \
        do {                                                                                                \
                if (!(_condition))                                                                          \
                        fail_msg("line %u, pieces of %zu, cut at %zu: %s", replay->line, replay->cut.piece, \
                                 replay->cut.once, #_condition);                                            \
        } while (0)

static bool on_item(Call *call, const Item *item, void *userdata) {
        struct Items *items = userdata;

        items->n += !item->bare;
        items->size += item->size;
        if (item->end) {
                replay->n_up--;
                (void) call_answer(call, &(AnswerParameters){ .status = STATUS_OK });
        }
        return true;
}

static void on_call(Peer *peer, Call *call) {
        Heard *heard = &replay->heard[replay->n_heard++];
        AnswerParameters answer = { .type = call_envelope(call)->type };

        CHECK(replay->n_heard <= MAX_CALLS);
        (void) snprintf(heard->method, sizeof(heard->method), "%s", call_envelope(call)->method);
        answer.payload = call_payload(call, &answer.size);
        CHECK(answer.size <= sizeof(heard->payload));
        memcpy(heard->payload, answer.payload, answer.size);
        heard->size = answer.size;
        answer.fds_consume = call_fds(call, &heard->n_fds);
        if (strcmp(heard->method, "up") == 0) {
                replay->n_up++;
                call_on_stream(call, on_item, NULL, &replay->up);
                return;
        }
        if (strcmp(heard->method, "keep") == 0) {
                test_keep(peer, call);
                return;
        }
        if (heard->n_fds > 0) {
                int fds[8];

                for (size_t i = 0; i < heard->n_fds; i++)
                        fds[i] = fd_take(&call_fds(call, &answer.n_fds)[i]);
                answer.fds_consume = fds;
                (void) call_answer(call, &answer);
                return;
        }
        (void) call_answer(call, &answer);
}

/* from_hex() - the bytes of @text into @bytes; how many. */
static size_t from_hex(const char *text, uint8_t *bytes, size_t room) {
        size_t n = 0;

        if (strcmp(text, "-") == 0)
                return 0;
        for (; text[0] && text[1]; text += 2) {
                char digits[] = { text[0], text[1], '\0' };

                CHECK(n < room);
                bytes[n++] = (uint8_t) strtoul(digits, NULL, 16);
        }
        return n;
}

/* ---- the words ---- */

static void do_bytes(char *const *words) {
        unsigned channel = (unsigned) atoi(words[1]);
        uint8_t bytes[1024];
        size_t size = from_hex(words[2], bytes, sizeof(bytes)), at = 0;

        replay->longest = MAX(replay->longest, size);
        while (at < size) {
                size_t end = replay->cut.piece ? MIN(at + replay->cut.piece, size) : size;

                if (at < replay->cut.once && replay->cut.once < end)
                        end = replay->cut.once;
                test_raw_bytes(&replay->bench.raw, channel, bytes + at, end - at);
                test_bench_settle(&replay->bench);
                at = end;
        }
}

static void do_lane(char *const *words) {
        uint8_t id[16];
        int fds[2];

        CHECK(from_hex(words[1], id, sizeof(id)) == 8);
        assert_int_equal(pipe(fds), 0);
        assert_int_equal(cmsg_send(replay->bench.raw.lane, id, 8, &fds[1], 1), 8);
        fd_close_all(fds, 2);
        test_bench_settle(&replay->bench);
}

static bool on_answer_item(Call *call, const Item *item, void *userdata) {
        struct Items *items = &replay->items[(TestAnswer *) userdata - replay->answers];

        (void) call;
        items->n++;
        items->size += item->size;
        return true;
}

static void on_stream_done(Call *call, const Answer *answer, void *userdata) {
        replay->calls[(TestAnswer *) userdata - replay->answers] = NULL;
        test_done(call, answer, userdata);
}

static void do_call(char *const *words) {
        CallParameters parameters = { .channel = (unsigned) atoi(words[1]), .method = words[2] };
        int fds[2];

        assert_int_equal(pipe(fds), 0);
        fd_close(fds[0]);
        if (words[3] && atoi(words[3]) == 1) {
                parameters.n_fds = 1;
                parameters.fds_consume = &fds[1];
        } else {
                fd_close(fds[1]);
        }
        CHECK(replay->n_calls < MAX_CALLS);
        CHECK(call_start(replay->bench.test.peer, &parameters, test_done, &replay->answers[replay->n_calls++], NULL) ==
              0);
        test_bench_settle(&replay->bench);
}

static void do_stream(char *const *words) {
        unsigned n = replay->n_calls++;
        CallParameters parameters = {
                .channel = (unsigned) atoi(words[1]), .method = words[2], .stream = true, .item = on_answer_item
        };

        CHECK(n < MAX_CALLS);
        CHECK(call_start(replay->bench.test.peer, &parameters, on_stream_done, &replay->answers[n],
                         &replay->calls[n]) == 0);
        test_bench_settle(&replay->bench);
}

static void do_send(char *const *words) {
        ItemParameters item = { .payload = NULL };
        uint8_t payload[256];

        item.payload = payload;
        item.size = from_hex(words[2], payload, sizeof(payload));
        CHECK(call_send(replay->calls[atoi(words[1])], &item) == 0);
        test_bench_settle(&replay->bench);
}

static void do_end(char *const *words) {
        CHECK(call_end(replay->calls[atoi(words[1])]) == 0);
        test_bench_settle(&replay->bench);
}

static void check_items(const struct Items *items, const char *n, const char *size) {
        CHECK(items->n == (unsigned) atoi(n));
        CHECK(items->size == (size_t) atoi(size));
}

static void do_items(char *const *words) {
        check_items(&replay->items[atoi(words[1])], words[2], words[3]);
}

static void do_streamed(char *const *words) {
        check_items(&replay->up, words[1], words[2]);
        CHECK(replay->n_up == 0);
}

static void do_answered(char *const *words) {
        TestAnswer *answer = &replay->answers[atoi(words[1])];
        uint8_t payload[256];
        size_t size = from_hex(words[3], payload, sizeof(payload));

        CHECK(answer->n == 1);
        CHECK(answer->status == (Status) atoi(words[2]));
        CHECK(answer->size == size && memcmp(answer->payload, payload, size) == 0);
        CHECK(answer->n_fds == (size_t) atoi(words[4]));
        fd_close_all(answer->fds, answer->n_fds);
        answer->n_fds = 0;
}

static void do_heard(char *const *words) {
        const Heard *heard = &replay->heard[replay->n_checked++];
        uint8_t payload[256];
        size_t size = from_hex(words[2], payload, sizeof(payload));

        CHECK(replay->n_checked <= replay->n_heard);
        CHECK(strcmp(heard->method, words[1]) == 0);
        CHECK(heard->size == size && memcmp(heard->payload, payload, size) == 0);
        CHECK(heard->n_fds == (size_t) atoi(words[3]));
}

static void do_cancelled(char *const *words) {
        CHECK(test_n_cancelled == (unsigned) atoi(words[1]));
        test_end_kept(-ECANCELED);
}

static void do_hello(char *const *words) {
        const PeerRemote *remote = peer_remote(replay->bench.test.peer);

        CHECK(replay->bench.test.n_ready == ++replay->n_hellos);
        CHECK(remote->protocol == 1);
        CHECK(remote->instance == strtoull(words[1], NULL, 10));
        CHECK(remote->service_state == strtoul(words[2], NULL, 10));
        CHECK(remote->last_event == strtoull(words[3], NULL, 10));
        CHECK(strcmp(remote->software, words[4]) == 0);
}

static void do_renew(char *const *words) {
        uint32_t epoch = (uint32_t) atoi(words[1]);
        TestRaw *raw = &replay->bench.raw;

        CHECK(peer_renew(replay->bench.test.peer, epoch) == 0);
        test_bench_settle(&replay->bench);
        /* What the engine sent before on the lane was for calls that are over. */
        for (unsigned n = 0; n < LANE_CHANNELS;) {
                CmsgInfo info = { 0 };
                uint8_t id[8];
                int fd = -1;

                CHECK(cmsg_receive(raw->lane, id, sizeof(id), &fd, 1, &info) == 8 && info.n_fds == 1);
                if (id[4] != epoch || id[0] != n) {
                        fd_close(fd);
                        continue;
                }
                fd_close(raw->channels[n]);
                raw->channels[n++] = fd;
        }
}

static void do_ended(char *const *words) {
        const TestPeer *test = &replay->bench.test;

        CHECK(test->n_ended == 1 && test->status == (Status) atoi(words[1]));
        CHECK(strcmp(test->reason, words[2]) == 0);
}

static const struct {
        const char *name;
        unsigned n_min, n_max; /* words after it; the last takes the rest of the line */
        void (*function)(char *const *words);
} table[] = {
        { "bytes", 2, 2, do_bytes },       { "lane", 1, 1, do_lane },         { "call", 2, 3, do_call },
        { "answered", 4, 4, do_answered }, { "heard", 3, 3, do_heard },       { "cancelled", 1, 1, do_cancelled },
        { "stream", 2, 2, do_stream },     { "send", 2, 2, do_send },         { "end", 1, 1, do_end },
        { "items", 3, 3, do_items },       { "streamed", 2, 2, do_streamed }, { "hello", 4, 4, do_hello },
        { "renew", 1, 1, do_renew },       { "ended", 2, 2, do_ended },
};

static void do_line(char *line) {
        char *words[6] = { 0 }, *rest = line;
        size_t row, n = 0;

        line[strcspn(line, "#\n")] = '\0';
        words[0] = strsep(&rest, " ");
        if (!*words[0])
                return;
        for (row = 0; row < ARRAY_SIZE(table) && strcmp(table[row].name, words[0]); row++)
                ;
        CHECK(row < ARRAY_SIZE(table));
        while (rest && ++n < table[row].n_max)
                words[n] = strsep(&rest, " ");
        words[n] = rest ? rest : words[n];
        CHECK(n >= table[row].n_min && n <= table[row].n_max);
        table[row].function(words);
}

/* ---- sessions ---- */

/* replay_file() - the longest write of the session. */
static size_t replay_file(const char *path, Cut cut) {
        static const PeerConfig config = {
                .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .software = "supervisor", .instance = 7
        };
        Replay now = { .cut = cut, .bench.test.on_call = on_call };
        char line[4096];
        FILE *file = fopen(path, "re");

        assert_non_null(file);
        replay = &now;
        test_bench_open(&now.bench, &config);
        for (now.line = 1; fgets(line, sizeof(line), file); now.line++)
                do_line(line);
        (void) fclose(file);
        CHECK(now.n_checked == now.n_heard);
        CHECK(now.n_hellos > 0 && now.bench.test.n_ended == 1);
        for (unsigned i = 0; i < now.n_calls; i++)
                CHECK(now.answers[i].n == 1);
        test_bench_close(&now.bench);
        replay = NULL;
        return now.longest;
}

/* for_each_session() - @function for each file; there is at least one. */
static void for_each_session(void (*function)(const char *path)) {
        const char *root = getenv("abs_top_srcdir");
        char folder[4096], path[8192];
        struct dirent *entry;
        unsigned n = 0;
        DIR *dir;

        (void) snprintf(folder, sizeof(folder), "%s/tests/recorded", root ? root : ".");
        dir = opendir(folder);
        assert_non_null(dir);
        while ((entry = readdir(dir))) {
                if (!strstr(entry->d_name, ".session"))
                        continue;
                (void) snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
                function(path);
                n++;
        }
        (void) closedir(dir);
        assert_true(n > 0);
}

static void replay_whole(const char *path) {
        (void) replay_file(path, (Cut){ 0 });
}

static void test_whole(void **state) {
        (void) state;
        for_each_session(replay_whole);
}

static void replay_in_pieces(const char *path) {
        static const size_t pieces[] = { 1, 2, 3, 5, 7 };

        for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
                (void) replay_file(path, (Cut){ .piece = pieces[i] });
}

static void test_in_pieces(void **state) {
        (void) state;
        for_each_session(replay_in_pieces);
}

static void replay_cut_everywhere(const char *path) {
        size_t longest = 2;

        for (size_t at = 1; at < longest; at++)
                longest = replay_file(path, (Cut){ .once = at });
        assert_true(longest > 32);
}

static void test_cut_at_every_byte(void **state) {
        (void) state;
        for_each_session(replay_cut_everywhere);
}

static const struct CMUnitTest tests[] = {
        TEST(test_whole),
        TEST(test_in_pieces),
        TEST(test_cut_at_every_byte),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
