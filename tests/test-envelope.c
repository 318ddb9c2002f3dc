/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Envelope: the short way and protobuf-c agree, both ways, on every field alone and on many mixes; what protobuf-c would
 * let through (bad UTF-8, NUL) is refused on both.
 */

#include <string.h>

#include "proto/envelope.h"
#include "tests/test.h"

static bool same(const Baton__Envelope *a, const Baton__Envelope *b) {
        size_t n = baton__envelope__get_packed_size(a);
        uint8_t *x = malloc(n + 1), *y = malloc(n + 1);
        bool equal;

        assert_true(x && y);
        equal = baton__envelope__get_packed_size(b) == n;
        if (equal) {
                baton__envelope__pack(a, x);
                baton__envelope__pack(b, y);
                equal = memcmp(x, y, n) == 0;
        }
        free(x);
        free(y);
        return equal;
}

static void check_round(const Baton__Envelope *envelope, bool is_short) {
        uint8_t bytes[ENVELOPE_SHORT], *packed;
        size_t n = envelope_pack_short(envelope, bytes), size = baton__envelope__get_packed_size(envelope);
        Baton__Envelope *read, *plain;
        MessageScratch scratch;

        packed = malloc(size + 1);
        assert_non_null(packed);
        baton__envelope__pack(envelope, packed);
        if (is_short) {
                assert_int_equal(n, size);
                assert_memory_equal(bytes, packed, n);
        } else {
                assert_int_equal(n, 0);
        }
        message_scratch_init(&scratch, 65536);
        read = envelope_unpack(&scratch, packed, size);
        plain = baton__envelope__unpack(NULL, size, packed);
        assert_true(read && plain);
        assert_true(same(read, plain));
        assert_true(same(read, envelope));
        baton__envelope__free_unpacked(plain, NULL);
        message_scratch_reset(&scratch);
        free(packed);
}

static void test_fields(void **state) {
        static const uint64_t numbers[] = { 0, 1, 127, 128, 300, UINT32_MAX, UINT64_C(1) << 62, UINT64_MAX };
        static char long_text[600];

        (void) state;
        memset(long_text, 'x', sizeof(long_text) - 1);
        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
                for (unsigned mask = 0; mask < 1u << 10; mask++) {
                        Baton__Envelope e = BATON__ENVELOPE__INIT;

                        e.kind = mask & 1 ? BATON__KIND__CALL : 0;
                        e.id = mask & 2 ? numbers[i] : 0;
                        e.method = (char *) (mask & 4 ? "echo.Echo/Unary" : "");
                        e.timeout_us = mask & 8 ? numbers[i] : 0;
                        e.status = mask & 16 ? (uint32_t) numbers[i] : 0;
                        e.message = (char *) (mask & 32 ? "grüße" : "");
                        e.fd_credit = mask & 64 ? (uint32_t) numbers[i] : 0;
                        e.credit = mask & 128 ? numbers[i] : 0;
                        e.end = !!(mask & 256);
                        e.type = (char *) (mask & 512 ? "a.B" : "");
                        check_round(&e, mask != 0);
                }
        {
                Baton__Envelope e = BATON__ENVELOPE__INIT;

                e.message = long_text;
                check_round(&e, false);
        }
}

static void test_long_way(void **state) {
        Baton__Envelope e = BATON__ENVELOPE__INIT;
        Baton__Hello hello = BATON__HELLO__INIT;
        Baton__Pair pair = BATON__PAIR__INIT, *pairs = &pair;
        Baton__Detail detail = BATON__DETAIL__INIT, *details = &detail;
        Baton__Block block = BATON__BLOCK__INIT, *blocks = &block;
        uint64_t fds[] = { 6, 8, UINT64_MAX };

        (void) state;
        e.kind = BATON__KIND__HELLO;
        e.hello = &hello;
        hello.software = (char *) "x";
        check_round(&e, false);
        e.hello = NULL;
        e.fds = fds;
        e.n_fds = ARRAY_SIZE(fds);
        check_round(&e, false);
        e.n_fds = 0;
        pair.key = (char *) "k";
        e.metadata = &pairs;
        e.n_metadata = 1;
        check_round(&e, false);
        e.n_metadata = 0;
        detail.type = (char *) "t";
        e.details = &details;
        e.n_details = 1;
        check_round(&e, false);
        e.n_details = 0;
        e.blocks = &blocks;
        e.n_blocks = 1;
        check_round(&e, false);
}

/* What neither way may accept, and odd bytes that both must read alike. */
static void test_bytes(void **state) {
        static const struct {
                const char *bytes;
                size_t size;
                bool good;
        } rows[] = {
                { "", 0, true },
                { "\x08\x02\x10\x02", 4, true },
                { "\x08\x02\x08\x04", 4, true },                                   /* the last of two counts */
                { "\x08\x82\x00", 3, true },                                       /* a longer varint than need be */
                { "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, true },      /* 2^64 - 1 */
                { "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, false }, /* 11 bytes */
                { "\x28\x80\x80\x80\x80\x10", 6, true },                           /* more than 32 bits */
                { "\x68\x80\x80\x00", 4, true },                                   /* false, at length */
                { "\x1a\x03"
                  "a\0b",
                  5, false },                     /* NUL */
                { "\x32\x02\xc3\x28", 4, false }, /* no UTF-8 */
                { "\x7a\x05"
                  "ab",
                  4, false }, /* cut */
                { "\x08", 1, false },
                { "\xa0\x06\x01", 3, true },                     /* field 100: unknown */
                { "\x0b", 1, false },                            /* a group */
                { "\x00\x00", 2, false },                        /* field 0 */
                { "\x48\x06\x48\x08", 4, true },                 /* fds, not packed */
                { "\x5a\x02\x08\x01\x5a\x02\x10\x01", 8, true }, /* hello twice: merged */
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                const uint8_t *data = (const uint8_t *) rows[i].bytes;
                Baton__Envelope *read, *plain = baton__envelope__unpack(NULL, rows[i].size, data);
                MessageScratch scratch;

                message_scratch_init(&scratch, 65536);
                read = envelope_unpack(&scratch, data, rows[i].size);
                if (!!read != rows[i].good)
                        fail_msg("row %zu: %s", i, read ? "accepted" : "refused");
                if (read)
                        assert_true(plain && same(read, plain));
                if (plain)
                        baton__envelope__free_unpacked(plain, NULL);
                message_scratch_reset(&scratch);
        }
}

static void test_bounds(void **state) {
        static uint8_t empties[4000];
        MessageScratch scratch;

        (void) state;
        /* Empty details: 2 bytes each on the wire, a structure and a pointer each in memory. */
        for (size_t i = 0; i < sizeof(empties); i += 2)
                empties[i] = 7 << 3 | 2;
        message_scratch_init(&scratch, 32768);
        assert_null(envelope_unpack(&scratch, empties, sizeof(empties)));
        message_scratch_reset(&scratch);
        assert_non_null(envelope_unpack(&scratch, empties, 100));
        message_scratch_reset(&scratch);
        assert_null(message_unpack(&baton__envelope__descriptor, "\x0b", 1));
        assert_null(message_free(message_unpack(&baton__envelope__descriptor, empties, 100)));
}

static const struct CMUnitTest tests[] = { TEST(test_fields), TEST(test_long_way), TEST(test_bytes),
                                           TEST(test_bounds) };

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
