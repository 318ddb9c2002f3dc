/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What crosses, without a predecessor: snapshots that were recorded, of this version and the one before, taken up by a
 * supervisor; what is restored is what is saved again; every key of a runner's configuration comes back; what cannot be is
 * left out. And what of it is foreign, cut at every byte and with every byte changed, breaks nothing.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/config-internal.h"
#include "supervisor/config-save.h"
#include "supervisor/runner-save.h"
#include "supervisor/save.h"
#include "supervisor/unknown.h"
#include "tests/snapshot-fixture.h"
#include "tests/test.h"

typedef Baton__Snapshot__Snapshot Snapshot;

/* read_recorded() - the caller's to free. */
static uint8_t *read_recorded(const char *name, size_t *ret_size) {
        const char *folder = getenv("abs_top_srcdir");
        char path[4096];
        uint8_t *data = malloc(65536);
        ssize_t n;
        int fd;

        (void) snprintf(path, sizeof(path), "%s/tests/recorded/%s", folder ? folder : ".", name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_non_null(data);
        n = read(fd, data, 65536);
        assert_true(n > 0 && n < 65536);
        fd_close(fd);
        *ret_size = (size_t) n;
        return data;
}

static Snapshot *unpack_recorded(const char *name) {
        size_t size;
        uint8_t *data = read_recorded(name, &size);
        Snapshot *snapshot = baton__snapshot__snapshot__unpack(NULL, size, data);

        assert_non_null(snapshot);
        free(data);
        return snapshot;
}

static const Runner *find(const SupervisorFixture *fixture, const char *name) {
        const Runner *runner = runner_find(fixture->supervisor, name);

        assert_non_null(runner);
        return runner;
}

/* ---- recorded ---- */

static void test_this_version(void **state) {
        Snapshot *snapshot = unpack_recorded("snapshot-2");
        SupervisorFixture fixture;
        const Runner *runner;

        (void) state;
        snapshot_fixture_open(&fixture);
        (void) snapshot_fixture_restore(&fixture, snapshot);
        assert_true(snapshot->events_next > 1);
        assert_int_equal(events_next_seq(fixture.supervisor->events), snapshot->events_next);
        runner = find(&fixture, "failed");
        assert_int_equal(runner->state, POLICY_FAILED);
        assert_string_equal(runner->why, "exited with status 1");
        assert_int_equal(runner->n_exits, 1);
        assert_true(runner_exit(runner, 0)->pid > 0 && runner_exit(runner, 0)->exit.status == 1);
        assert_true(runner->instance->over && runner->instance->exit.status == 1);
        runner = find(&fixture, "backs");
        assert_int_equal(runner->state, POLICY_BACKOFF);
        assert_true(runner->timer->timer.armed && runner->n_failures == 1);
        assert_int_equal(runner->window.n, 1);
        runner = find(&fixture, "often");
        assert_int_equal(runner->state, POLICY_SCHEDULED);
        assert_true(runner->begun_us > 0 && runner->timer->timer.armed);
        /* Those that have a process are lost, where the keeper does not tell of one. */
        assert_true(find(&fixture, "web.1")->over && find(&fixture, "late")->over);
        assert_int_equal(find(&fixture, "slow")->state, POLICY_STOPPING);
        assert_int_equal(find(&fixture, "slow")->desired, DESIRED_DOWN);
        supervisor_fixture_close(&fixture);
        baton__snapshot__snapshot__free_unpacked(snapshot, NULL);
}

static void test_former_version(void **state) {
        Snapshot *snapshot = unpack_recorded("snapshot-1");
        SupervisorFixture fixture;

        (void) state;
        assert_int_equal(snapshot->n_runners, 0);
        assert_true(snapshot->n_instances == 1 && snapshot->n_connections > 0);
        snapshot_fixture_open(&fixture);
        (void) snapshot_fixture_restore(&fixture, snapshot);
        /* As the configuration has made them: the keeper's table will say the rest. */
        assert_int_equal(find(&fixture, "web.3")->state, POLICY_DOWN);
        assert_true(find(&fixture, "web.3")->events & 1u << POLICY_EVENT_START);
        supervisor_fixture_close(&fixture);
        baton__snapshot__snapshot__free_unpacked(snapshot, NULL);
}

/* ---- there and back ---- */

static void assert_same(const ProtobufCMessage *a, const ProtobufCMessage *b) {
        size_t size = protobuf_c_message_get_packed_size(a);
        uint8_t *one = malloc(size + 1), *other = malloc(size + 1);

        assert_int_equal(size, protobuf_c_message_get_packed_size(b));
        (void) protobuf_c_message_pack(a, one);
        (void) protobuf_c_message_pack(b, other);
        assert_memory_equal(one, other, size);
        free(one);
        free(other);
}

static void test_runners_are_what_they_were(void **state) {
        static const char *const names[] = { "failed", "backs", "often" };
        Snapshot *snapshot = unpack_recorded("snapshot-2");
        SupervisorFixture fixture;
        unsigned n = 0;

        (void) state;
        snapshot_fixture_open(&fixture);
        (void) snapshot_fixture_restore(&fixture, snapshot);
        for (size_t i = 0; i < snapshot->n_runners; i++)
                for (size_t j = 0; j < ARRAY_SIZE(names); j++) {
                        Manifest manifest = MANIFEST_NULL;
                        Baton__Snapshot__Runner *saved;

                        if (strcmp(snapshot->runners[i]->name, names[j]) != 0)
                                continue;
                        assert_int_equal(runner_save(find(&fixture, names[j]), &manifest, &saved), 0);
                        assert_same(&saved->base, &snapshot->runners[i]->base);
                        baton__snapshot__runner__free_unpacked(saved, NULL);
                        manifest_deinit(&manifest);
                        n++;
                }
        assert_int_equal(n, ARRAY_SIZE(names));
        supervisor_fixture_close(&fixture);
        baton__snapshot__snapshot__free_unpacked(snapshot, NULL);
}

/* All that a runner may have, each with another value than it has by itself. */
static const char everything[] =
        "runners:\n"
        "  other: { command: [/x] }\n"
        "  all:\n"
        "    command: [/x, a, \"%i%%\"]\n"
        "    description: what it is\n"
        "    instances: 2\n"
        "    env: [A=b, C=d]\n"
        "    env_file: [\"-/e\"]\n"
        "    inherit_env: false\n"
        "    cwd: /c\n"
        "    user: root\n"
        "    umask: \"027\"\n"
        "    nice: 3\n"
        "    oom_score_adj: 100\n"
        "    limits: { nofile: 100, core: 0 }\n"
        "    cgroup: { memory_max: 100M, pids_max: 10 }\n"
        "    ready: hello\n"
        "    requires: other\n"
        "    after: other\n"
        "    start_timeout: 3s\n"
        "    stop_timeout: 4s\n"
        "    stop_signal: INT\n"
        "    watchdog: 5s\n"
        "    restart: always\n"
        "    recover: failover\n"
        "    checkpoint: { every: 8s }\n"
        "    pending: flush\n"
        "    backoff: { initial: 2s, max: 20s, factor: 3, jitter: 10%, reset: 7s }\n"
        "    intensity: { restarts: 3, within: 9s }\n"
        "    success_exit: [1, 70, TERM]\n"
        "    autostart: false\n"
        "    uds_path: true\n"
        "    channels: [data]\n"
        "    rpc: { max_frame: 1M, max_calls: 3 }\n"
        "    log: { directory: /l, format: json, max_size: 1M, max_age: 24h, keep: 2, mode: \"0600\", ring_size: 128K "
        "}\n"
        "    hooks: [ { on: [exit, failed], command: [/h, x], timeout: 3s }, { on: [up], command: [/i], timeout: 1s } "
        "]\n"
        "    sockets: [ { tcp: \"127.0.0.1:1%i\", name: web, backlog: 7 }, { unix: \"/s/%i\", mode: \"0600\" } ]\n"
        "    socket_variable: { name: NGINX, format: \"%f;\" }\n"
        "    service: manual\n"
        "    upgrade: { timeout: 2s, drain: 3s, health: 4s }\n"
        "  timed: { command: [/x], at: [\"5 4 * * 1-5\", \"0 0 1 1 *\"] }\n"
        "  often: { command: [/x], every: 5min }\n"
        "  stores: { command: [/x], ready: notify, fd_store: { max: 3, timeout: 9s } }\n";

static Config *load(const char *text) {
        ConfigSource *source = calloc(1, sizeof(*source));
        ConfigErrors errors = { 0 };
        Config *config = NULL;
        int r;

        assert_non_null(source);
        source->files[0] = (ConfigFile){ .name = strdup("x"), .text = strdup(text), .size = strlen(text) };
        source->n = 1;
        r = config_load(&config, source, 0, &errors);
        if (r < 0) {
                char *lines = config_errors_text(&errors);

                print_error("%s\n", lines);
                free(lines);
        }
        assert_int_equal(r, 0);
        config_source_free(source);
        config_errors_deinit(&errors);
        return config;
}

static void test_configuration(void **state) {
        Config *before = load(everything), *after = load(everything);
        ConfigDifference difference;

        (void) state;
        for (size_t i = 0; i < after->n_runners; i++) {
                Baton__Snapshot__RunnerConfig *message;
                RunnerConfig *restored;

                assert_int_equal(runner_config_save(before->runners[i], &message), 0);
                assert_int_equal(runner_config_restore(message, &restored), 0);
                for (size_t j = 0; j < after->n_runners; j++)
                        if (after->sorted[j] == after->runners[i])
                                after->sorted[j] = restored;
                runner_config_unref(after->runners[i]);
                after->runners[i] = restored;
                baton__snapshot__runner_config__free_unpacked(message, NULL);
        }
        assert_int_equal(config_compare(before, after, &difference), 0);
        for (size_t i = 0; i < difference.n_changes; i++)
                for (unsigned key = 0; config_key_name(key); key++)
                        if (difference.changes[i].keys & UINT64_C(1) << key)
                                fail_msg("%s: %s did not come back", difference.changes[i].after->name,
                                         config_key_name(key));
        assert_int_equal(difference.n_changes, 0);
        assert_int_equal(difference.n_same, 5);
        config_difference_deinit(&difference);
        config_unref(before);
        config_unref(after);
}

static void test_unknown_fields(void **state) {
        static const uint8_t later[] = { 0xba, 0x3e, 5, 'l', 'a', 't', 'e', 'r' }; /* field 999 */
        Baton__Snapshot__Runner *message = baton__snapshot__runner__unpack(NULL, sizeof(later), later), *back;
        Save save = { 0 };
        Unknown *unknown;
        uint8_t packed[64];

        (void) state;
        assert_non_null(message);
        unknown = unknown_keep(&message->base);
        assert_non_null(unknown);
        back = save_message(&save, &baton__snapshot__runner__descriptor);
        assert_int_equal(unknown_add(unknown, &back->base), 0);
        assert_int_equal(baton__snapshot__runner__pack(back, packed), sizeof(later));
        assert_memory_equal(packed, later, sizeof(later));
        unknown_free(unknown);
        baton__snapshot__runner__free_unpacked(message, NULL);
        baton__snapshot__runner__free_unpacked(back, NULL);
}

/* ---- what cannot be ---- */

static void try(const uint8_t *data, size_t size) {
        Snapshot *snapshot = baton__snapshot__snapshot__unpack(NULL, size, data);
        SupervisorFixture fixture;

        if (!snapshot)
                return;
        snapshot_fixture_open(&fixture);
        (void) snapshot_fixture_restore(&fixture, snapshot);
        supervisor_fixture_close(&fixture);
        baton__snapshot__snapshot__free_unpacked(snapshot, NULL);
}

static void test_cut(void **state) {
        size_t size;
        uint8_t *data = read_recorded("snapshot-2", &size);

        (void) state;
        for (size_t n = 0; n < size; n += 7)
                try(data, n);
        free(data);
}

static void test_changed(void **state) {
        size_t size;
        uint8_t *data = read_recorded("snapshot-2", &size);

        (void) state;
        for (size_t i = 0; i < size; i += 3) {
                uint8_t before = data[i];

                data[i] = (uint8_t) (before ^ (i % 2 ? 0x7f : 0x01));
                try(data, size);
                data[i] = before;
        }
        free(data);
}

static void test_runners_that_cannot_be(void **state) {
        Baton__Snapshot__Runner none = BATON__SNAPSHOT__RUNNER__INIT, unknown = BATON__SNAPSHOT__RUNNER__INIT,
                                number = BATON__SNAPSHOT__RUNNER__INIT, numbers = BATON__SNAPSHOT__RUNNER__INIT;
        Baton__Snapshot__Runner *runners[] = { &none, &unknown, &number, &numbers };
        Snapshot snapshot = BATON__SNAPSHOT__SNAPSHOT__INIT;
        SupervisorFixture fixture;

        (void) state;
        unknown.name = (char *) "nobody";
        number.name = (char *) "web.01";
        number.number = 1;
        numbers.name = (char *) "failed";
        numbers.state = numbers.desired = numbers.unmet = UINT32_MAX;
        snapshot.runners = runners;
        snapshot.n_runners = ARRAY_SIZE(runners);
        snapshot_fixture_open(&fixture);
        (void) snapshot_fixture_restore(&fixture, &snapshot);
        assert_null(runner_find(fixture.supervisor, "nobody"));
        assert_null(runner_find(fixture.supervisor, "web.01"));
        assert_int_equal(find(&fixture, "failed")->state, POLICY_DOWN);
        supervisor_fixture_close(&fixture);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_this_version),  TEST(test_former_version),         TEST(test_runners_are_what_they_were),
                TEST(test_configuration), TEST(test_unknown_fields),         TEST(test_cut),
                TEST(test_changed),       TEST(test_runners_that_cannot_be),
        };

        return test_run(tests, ARRAY_SIZE(tests));
}
