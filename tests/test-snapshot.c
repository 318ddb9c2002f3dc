/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What crosses, without a predecessor: snapshots that were recorded, of this version and the one before, taken up by a
 * supervisor; what is restored is what is saved again; every key of a runner's configuration comes back; what cannot be is
 * left out. And what of it is foreign, cut at every byte and with every byte changed, breaks nothing.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/config-internal.h"
#include "supervisor/config-save.h"
#include "supervisor/fleet.h"
#include "supervisor/instance.h"
#include "supervisor/relay.h"
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
        assert_true(loop_timer_deadline(&runner->timer->timer) > 0 && runner->n_failures == 1);
        assert_int_equal(runner->window.n, 1);
        runner = find(&fixture, "often");
        assert_int_equal(runner->state, POLICY_SCHEDULED);
        assert_true(runner->begun_us > 0 && loop_timer_deadline(&runner->timer->timer) > 0);
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
        "    checkpoint: { every: 8s, timeout: 3s, max_state: 2M, max_fds: 5 }\n"
        "    pending: flush\n"
        "    backoff: { initial: 2s, max: 20s, factor: 3, jitter: 10%, reset: 7s }\n"
        "    intensity: { restarts: 3, within: 9s }\n"
        "    success_exit: [1, 70, TERM]\n"
        "    autostart: false\n"
        "    uds_path: true\n"
        "    channels: [data]\n"
        "    rpc: { max_frame: 1M, max_calls: 3, max_held_fds: 4, max_waiting: 5, max_unsent: 6K, max_object: 7M }\n"
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

/* ---- told before the end ---- */

static void tell(SupervisorFixture *fixture, Baton__Snapshot__Runner *message, const char *gone, bool is_final) {
        Baton__Snapshot__Runner *runners[] = { message };
        char *names[] = { (char *) gone };
        Snapshot snapshot = BATON__SNAPSHOT__SNAPSHOT__INIT;
        Manifest manifest = MANIFEST_NULL;

        snapshot.partial = !is_final;
        snapshot.runners = runners;
        snapshot.n_runners = message ? 1 : 0;
        snapshot.gone_runners = names;
        snapshot.n_gone_runners = gone ? 1 : 0;
        fleet_restore(fixture->supervisor, &snapshot);
        fleet_restore_crossed(fixture->supervisor, &manifest, is_final);
}

/* What was said last counts, whether it has an end or not, and however often it is said. */
static void test_told_again(void **state) {
        Baton__Snapshot__Runner first = BATON__SNAPSHOT__RUNNER__INIT, second = BATON__SNAPSHOT__RUNNER__INIT;
        Baton__Snapshot__Start start = BATON__SNAPSHOT__START__INIT;
        SupervisorFixture fixture;
        const Runner *runner;

        (void) state;
        snapshot_fixture_open(&fixture);
        first.name = second.name = (char *) "failed";
        first.state = POLICY_FAILED;
        first.starts = 7;
        first.why = (char *) "it was so";
        start.id = 5;
        start.over = start.ended = true;
        start.status = 3;
        first.start = &start;
        for (unsigned i = 0; i < 2; i++)
                tell(&fixture, &first, NULL, false);
        runner = find(&fixture, "failed");
        assert_int_equal(runner->state, POLICY_FAILED);
        assert_string_equal(runner->why, "it was so");
        assert_true(runner->instance && runner->instance->over && runner->instance->id == 5);
        assert_int_equal(runner->instance->exit.status, 3);
        assert_false(runner->queued);
        second.state = POLICY_DONE;
        second.starts = 8;
        tell(&fixture, &second, NULL, true);
        assert_int_equal(runner->state, POLICY_DONE);
        assert_int_equal(runner->n_starts, 8);
        assert_null(runner->why);
        assert_null(runner->instance);
        supervisor_fixture_close(&fixture);
}

/* One that is about an instance which is not there waits for it; at the end it counts as lost. */
static void test_told_too_early(void **state) {
        Baton__Snapshot__Runner message = BATON__SNAPSHOT__RUNNER__INIT;
        Baton__Snapshot__Start start = BATON__SNAPSHOT__START__INIT;
        SupervisorFixture fixture;
        const Runner *runner;

        (void) state;
        snapshot_fixture_open(&fixture);
        message.name = (char *) "native";
        message.state = POLICY_UP;
        message.starts = 9;
        message.start = &start;
        start.id = 77;
        start.state = PROCESS_UP;
        tell(&fixture, &message, NULL, false);
        runner = find(&fixture, "native");
        assert_ptr_equal(runner->crossed, &message);
        assert_int_equal(runner->n_starts, 0);
        assert_int_equal(fixture.supervisor->precopy.n_changed, 1);
        tell(&fixture, NULL, NULL, true);
        assert_int_equal(fixture.supervisor->precopy.n_changed, 0);
        assert_int_equal(runner->n_starts, 9);
        assert_true(runner->over);
        supervisor_fixture_close(&fixture);
}

/* A runner that is gone is forgotten; another one of its name comes after it. Of what nobody told of nothing is gone. */
static void test_gone(void **state) {
        Baton__Snapshot__Runner message = BATON__SNAPSHOT__RUNNER__INIT;
        SupervisorFixture fixture;
        const Runner *runner;

        (void) state;
        snapshot_fixture_open(&fixture);
        message.name = (char *) "web.3";
        message.number = 3;
        message.starts = 4;
        tell(&fixture, NULL, "web.3", false);
        tell(&fixture, NULL, "nobody", false);
        (void) find(&fixture, "web.3");
        tell(&fixture, &message, NULL, false);
        tell(&fixture, NULL, "web.3", false);
        assert_null(runner_find(fixture.supervisor, "web.3"));
        tell(&fixture, &message, NULL, false);
        tell(&fixture, &message, "web.3", false);
        runner = find(&fixture, "web.3");
        assert_int_equal(runner->n_starts, 4);
        assert_ptr_equal(runner->crossed, &message);
        supervisor_fixture_close(&fixture);
}

/* Calls that are not there, or a kind that nobody knows: the lane is taken on every path. */
static void test_relay_of_no_kind(void **state) {
        RelayCrossing crossing = { .kind = "Nonsense", .reason = "", .lane = -1 };
        SupervisorFixture fixture;
        Instance *instance;
        int pair[2];

        (void) state;
        snapshot_fixture_open(&fixture);
        assert_int_equal(instance_new(&instance, (Runner *) find(&fixture, "native"), 9), 0);
        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        crossing.lane = pair[0];
        assert_int_equal(relay_restore(instance, &crossing), -EPROTO);
        assert_int_equal(read(pair[1], &(char){ 0 }, 1), 0); /* its other end is closed */
        assert_int_equal(relay_count(fixture.supervisor), 0);
        fd_close(pair[1]);
        instance_free(instance);
        supervisor_fixture_close(&fixture);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_this_version),
                TEST(test_former_version),
                TEST(test_runners_are_what_they_were),
                TEST(test_configuration),
                TEST(test_unknown_fields),
                TEST(test_cut),
                TEST(test_changed),
                TEST(test_runners_that_cannot_be),
                TEST(test_told_again),
                TEST(test_told_too_early),
                TEST(test_gone),
                TEST(test_relay_of_no_kind),
        };

        return test_run(tests, ARRAY_SIZE(tests));
}
