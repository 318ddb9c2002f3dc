/* SPDX-License-Identifier: Apache-2.0 */

/* Configuration: from files to structures, and every error that a person can meet, to the letter. */

#include "supervisor/config.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/memfd.h"
#include "common/rlimit.h"
#include "supervisor/config-internal.h"
#include "tests/seam.h"
#include "tests/test.h"

static void write_bytes(const char *path, const char *text, size_t size) {
        FILE *file = fopen(path, "we");

        assert_non_null(file);
        assert_int_equal(fwrite(text, 1, size, file), size);
        assert_int_equal(fclose(file), 0);
}

static void write_text(const char *path, const char *text) {
        write_bytes(path, text, strlen(text));
}

/* load() - the result of reading and loading @path; the errors as text, to be freed, in @ret_text. */
static int load(const char *path, ConfigLoadFlags flags, Config **ret_config, char **ret_text) {
        char *paths[] = { (char *) (uintptr_t) path, NULL };
        _cleanup_(config_source_freep) ConfigSource *source = NULL;
        ConfigErrors errors = { 0 };
        int r = config_source_read(&source, paths, &errors);

        if (r == 0)
                r = config_load(ret_config, source, flags, &errors);
        *ret_text = config_errors_text(&errors);
        config_errors_deinit(&errors);
        return r;
}

static void assert_errors(const char *path, ConfigLoadFlags flags, const char *expected) {
        _cleanup_free_ char *text = NULL;
        Config *config = NULL;
        int r = load(path, flags, &config, &text);

        if (strcmp(text, expected) != 0)
                print_message("found:\n%sexpected:\n%s", text, expected);
        assert_string_equal(text, expected);
        assert_int_equal(r, -EINVAL);
        assert_null(config);
}

static Config *load_good(const char *path, ConfigLoadFlags flags) {
        _cleanup_free_ char *text = NULL;
        Config *config = NULL;
        int r = load(path, flags, &config, &text);

        if (r < 0)
                print_message("%s", text);
        assert_int_equal(r, 0);
        assert_string_equal(text, "");
        return config;
}

static Config *load_text(const char *text) {
        write_text("c.yaml", text);
        return load_good("c.yaml", 0);
}

/* ------------------------------------------------------------------------------------------------------------- values */

static const char everything[] =
        "supervisor: { operators: '7', others: read, metrics: 127.0.0.1:9100, stop_timeout: 1min }\n"
        "defaults:\n"
        "  env: { A: 1, B: two }\n"
        "  limits: { core: unlimited, nofile: 10 }\n"
        "  backoff: { initial: 1s }\n"
        "  log: { keep: 3 }\n"
        "runners:\n"
        "  all:\n"
        "    description: has all of it\n"
        "    command: [/bin/program, '', --option, '%i']\n"
        "    env: [B=2, C=x=y]\n"
        "    env_file: [/etc/one, -/etc/two]\n"
        "    inherit_env: false\n"
        "    cwd: /srv/%n\n"
        "    user: 12\n"
        "    group: 34\n"
        "    groups: ['5', '6']\n"
        "    umask: 027\n"
        "    limits: { nofile: '1K:2K', cpu: 3 }\n"
        "    nice: -5\n"
        "    ioprio: best-effort:3\n"
        "    oom_score_adj: -17\n"
        "    cgroup: { memory_max: 64M, memory_high: max, swap_max: 0, cpu_max: 150%, cpu_weight: 20, pids_max: 9 }\n"
        "    ready: notify\n"
        "    start_timeout: 1.5s\n"
        "    stop_timeout: 2min\n"
        "    stop_signal: INT\n"
        "    watchdog: 3s\n"
        "    restart: always\n"
        "    autostart: no\n"
        "    success_exit: [3, 255, TERM]\n"
        "    backoff: { max: 10s, factor: 1.5, jitter: 5%, reset: 20s }\n"
        "    intensity: { restarts: 4, within: 30s }\n"
        "    after: other\n"
        "    requires: [third, both]\n"
        "    instances: 3\n"
        "    hooks:\n"
        "      - { on: [up, exit], command: [/bin/a, b], timeout: 2s }\n"
        "      - { on: failed, command: /bin/c }\n"
        "    log: { directory: /var/log/x, format: json, max_size: 1M, max_age: 24h, mode: 0600, ring_size: 128K, "
        "full: park }\n"
        "    rpc: { max_frame: 1M, max_calls: 5, max_memory: 2M, fd_credit: 6, stream_window: 3M, max_attached: 7,\n"
        "           max_object: 8M, max_held_fds: 9, max_waiting: 10, max_waiting_bytes: 11M, max_unsent: 12K }\n"
        "  other: { command: x }\n"
        "  third: { command: x, every: 90s }\n"
        "  fourth: { command: x, at: [0 3 * * *, 0 4 * * *], oneshot: true, restart: on-failure }\n"
        "  fifth: { command: x, oneshot: true }\n"
        "groups:\n"
        "  both: { members: [other, fourth], strategy: rest_for_one, intensity: { restarts: 1, within: 2s } }\n"
        "  top: { members: [both, all] }\n";

static void assert_list(const char *const *list, const char *expected) {
        char text[256] = "";

        for (; list && *list; list++)
                (void) snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s|", *list);
        assert_string_equal(text, expected);
}

static void assert_process(const RunnerConfig *all) {
        SpawnParameters parameters = SPAWN_PARAMETERS_NULL;

        assert_string_equal(all->description, "has all of it");
        assert_list(all->command, "/bin/program||--option|%i|");
        assert_list(all->env, "A=1|B=2|C=x=y|");
        assert_list(all->env_file, "/etc/one|-/etc/two|");
        assert_false(all->inherit_env);
        assert_string_equal(all->cwd, "/srv/%n");
        assert_int_equal(all->user->spawn.uid, 12);
        assert_int_equal(all->user->spawn.gid, 34);
        assert_int_equal(all->user->spawn.n_groups, 2);
        assert_int_equal(all->user->spawn.groups[1], 6);
        assert_int_equal(all->n_limits, 3);
        assert_int_equal(all->limits[0].resource, RLIMIT_CORE);
        assert_true(all->limits[0].limit.rlim_cur == RLIM_INFINITY);
        assert_int_equal(all->limits[1].resource, RLIMIT_NOFILE);
        assert_int_equal(all->limits[1].limit.rlim_cur, 1024);
        assert_int_equal(all->limits[1].limit.rlim_max, 2048);
        assert_int_equal(all->limits[2].resource, RLIMIT_CPU);
        runner_config_spawn(all, &parameters);
        assert_int_equal(parameters.umask, 027);
        assert_int_equal(parameters.nice, -5);
        assert_int_equal(parameters.ioprio, 2 << 13 | 3);
        assert_int_equal(parameters.oom_score_adj, -17);
        assert_ptr_equal(parameters.user, &all->user->spawn);
        assert_int_equal(parameters.n_limits, 3);
        assert_string_equal(all->cgroup->values[CONFIG_CGROUP_MEMORY_MAX], "67108864");
        assert_string_equal(all->cgroup->values[CONFIG_CGROUP_MEMORY_HIGH], "max");
        assert_null(all->cgroup->values[CONFIG_CGROUP_MEMORY_LOW]);
        assert_string_equal(all->cgroup->values[CONFIG_CGROUP_SWAP_MAX], "0");
        assert_string_equal(all->cgroup->values[CONFIG_CGROUP_CPU_MAX], "150000 100000");
        assert_string_equal(all->cgroup->values[CONFIG_CGROUP_CPU_WEIGHT], "20");
        assert_string_equal(all->cgroup->values[CONFIG_CGROUP_PIDS_MAX], "9");
}

static void assert_policy(const RunnerConfig *all) {
        assert_int_equal(all->ready, CONFIG_READY_NOTIFY);
        assert_int_equal(all->start_timeout_us, 1500000);
        assert_int_equal(all->stop_timeout_us, 120000000);
        assert_int_equal(all->stop_signal, SIGINT);
        assert_int_equal(all->watchdog_us, 3000000);
        assert_int_equal(all->restart, RESTART_ALWAYS);
        assert_false(all->autostart);
        assert_true(runner_config_is_success(all, CLD_EXITED, 3) && runner_config_is_success(all, CLD_EXITED, 255));
        assert_true(runner_config_is_success(all, CLD_KILLED, SIGTERM));
        assert_false(runner_config_is_success(all, CLD_EXITED, 4));
        assert_int_equal(all->backoff.initial_us, 1000000);
        assert_int_equal(all->backoff.max_us, 10000000);
        assert_int_equal(all->backoff.factor_percent, 150);
        assert_int_equal(all->backoff.jitter_percent, 5);
        assert_int_equal(all->backoff_reset_us, 20000000);
        assert_int_equal(all->intensity.restarts, 4);
        assert_int_equal(all->intensity.window_us, 30000000);
        assert_list(all->after, "other|");
        assert_list(all->requires, "third|other|fourth|");
        assert_true(all->is_template);
        assert_int_equal(all->instances, 3);
        assert_int_equal(all->n_hooks, 2);
        assert_int_equal(all->hooks[0].events, 1 << POLICY_UP | 1 << CONFIG_HOOK_EXIT);
        assert_list(all->hooks[0].command, "/bin/a|b|");
        assert_int_equal(all->hooks[0].timeout_us, 2000000);
        assert_int_equal(all->hooks[1].events, 1 << POLICY_FAILED);
        assert_int_equal(all->hooks[1].timeout_us, CONFIG_HOOK_TIMEOUT_US);
        assert_string_equal(all->log.directory, "/var/log/x");
        assert_int_equal(all->log.format, LOG_FORMAT_JSON);
        assert_int_equal(all->log.max_size, 1024 * 1024);
        assert_int_equal(all->log.max_age_us, 24 * 3600 * USEC_PER_SEC);
        assert_int_equal(all->log.keep, 3);
        assert_int_equal(all->log.mode, 0600);
        assert_int_equal(all->log.ring_size, 128 * 1024);
        assert_true(all->log.park);
        assert_int_equal(all->rpc->max_frame, 1024 * 1024);
        assert_int_equal(all->rpc->max_calls, 5);
        assert_int_equal(all->rpc->max_memory, 2 * 1024 * 1024);
        assert_int_equal(all->rpc->fd_credit, 6);
        assert_int_equal(all->rpc->stream_window, 3 * 1024 * 1024);
        assert_int_equal(all->rpc->max_object, 8 * 1024 * 1024);
        assert_int_equal(all->rpc->max_held_fds, 9);
        assert_int_equal(all->rpc->max_waiting, 10);
        assert_int_equal(all->rpc->max_waiting_bytes, 11 * 1024 * 1024);
        assert_int_equal(all->rpc->max_unsent, 12 * 1024);
        assert_int_equal(all->max_attached, 7);
}

static void test_everything(void **state) {
        _cleanup_(config_unrefp) Config *config = load_text(everything);
        const RunnerConfig *fourth, *fifth, *third;
        const GroupConfig *both;

        (void) state;
        assert_int_equal(config->n_runners, 5);
        assert_string_equal(config->runners[0]->name, "all");
        assert_string_equal(config->runners[4]->name, "fifth");
        assert_process(config_find(config, "all"));
        assert_policy(config_find(config, "all"));
        assert_null(config_find(config, "all.1"));
        assert_null(config_find(config, "both"));
        third = config_find(config, "third");
        assert_int_equal(third->schedule->every_us, 90000000);
        assert_int_equal(third->restart, RESTART_NEVER);
        assert_list(third->env, "A=1|B=two|");
        assert_int_equal(third->backoff.max_us, 30000000);
        fourth = config_find(config, "fourth");
        assert_int_equal(fourth->schedule->n_at, 2);
        assert_int_equal(fourth->restart, RESTART_ON_FAILURE);
        fifth = config_find(config, "fifth");
        assert_true(fifth->oneshot);
        assert_int_equal(fifth->restart, RESTART_NEVER);
        assert_null(fifth->schedule);
        both = config_find_group(config, "both");
        assert_int_equal(both->strategy, CONFIG_REST_FOR_ONE);
        assert_int_equal(both->intensity.restarts, 1);
        assert_int_equal(both->intensity.window_us, 2000000);
        assert_list(both->members, "other|fourth|");
        assert_string_equal(both->parent->name, "top");
        assert_list(both->parent->members, "both|all|");
        assert_int_equal(config->supervisor.operators_gid, 7);
        assert_true(config->supervisor.has_operators && config->supervisor.others_read);
        assert_string_equal(config->supervisor.metrics, "127.0.0.1:9100");
        assert_int_equal(config->supervisor.stop_timeout_us, 60000000);
}

static void test_defaults(void **state) {
        _cleanup_(config_unrefp) Config *config = load_text("runners: { a: { command: [x] } }\n");
        const RunnerConfig *a = config_find(config, "a"), null = RUNNER_CONFIG_NULL;

        (void) state;
        assert_int_equal(a->restart, RESTART_ON_FAILURE);
        assert_int_equal(a->start_timeout_us, null.start_timeout_us);
        assert_true(a->autostart && a->inherit_env);
        assert_int_equal(a->instances, 1);
        assert_false(a->is_template);
        assert_null(a->user);
        assert_null(a->limits);
        assert_null(a->exits);
        assert_int_equal(config->n_groups, 0);
        assert_false(config->supervisor.has_operators || config->supervisor.others_read);
}

/* Names of resource limits are in two tables: see config-schema.c. */
static void test_limit_names(void **state) {
        (void) state;
        for (unsigned i = 0; i < CONFIG_LIMITS_N; i++) {
                char text[128];
                _cleanup_(config_unrefp) Config *config = NULL;

                (void) snprintf(text, sizeof(text), "runners: { a: { command: x, limits: { %s: 7 } } }",
                                rlimit_by_index(i));
                config = load_text(text);
                assert_int_equal(config->runners[0]->limits[0].resource, rlimit_by_name(rlimit_by_index(i)));
                assert_string_equal(rlimit_name(rlimit_by_name(rlimit_by_index(i))), rlimit_by_index(i));
        }
        assert_null(rlimit_by_index(CONFIG_LIMITS_N));
        assert_int_equal(rlimit_by_name("x"), -1);
}

/* ------------------------------------------------------------------------------------------------------------- errors */

#define A           "runners: { a: { command: x } }\n"
#define WITH(_keys) "runners:\n  a:\n    command: x\n    " _keys "\n"
#define AT          "c.yaml:4: runners.a."

static void test_errors(void **state) {
        static const struct {
                const char *text, *errors;
        } cases[] = {
                { "", "c.yaml: nothing is in it: expected runners\n" },
                { "# only words\n", "c.yaml: nothing is in it: expected runners\n" },
                { "~\n", "c.yaml: nothing is in it: expected runners\n" },
                { "- a\n", "c.yaml:1: expected a mapping with supervisor, defaults, runners or groups, not a list\n" },
                { "a\n", "c.yaml:1: expected a mapping with supervisor, defaults, runners or groups, not a text\n" },
                { "runners: [a: b\n",
                  "c.yaml:2: not YAML: column 1: while parsing a flow sequence: did not find expected "
                  "',' or ']'\n" },
                { "a: b: c\n", "c.yaml:1: not YAML: column 5: mapping values are not allowed in this context\n" },
                { "\x80\n", "c.yaml: not YAML: byte 0: invalid leading UTF-8 octet\n" },
                { A "---\n" A, "c.yaml:3: expected one document in a file, not a second one\n" },
                { "runner: {}\n" A, "c.yaml:1: runner: there is no such key; did you mean runners?\n" },
                { "x: {}\n" A, "c.yaml:1: x: there is no such key\n" },
                { "[a]: {}\n" A, "c.yaml:1: expected a key, not a list\n" },
                { A A, "c.yaml:2: runners: this key is there twice, first on line 1\n" },
                { "runners: [a]\n",
                  "c.yaml:1: runners: expected a mapping from names to what each runner is, not a list\n" },
                { "runners: { a: x }\n", "c.yaml:1: runners.a: expected a mapping of a runner's keys, not a text\n" },
                { "runners: { a: }\n", "c.yaml:1: runners.a: 'command' is missing: expected a list of words as "
                                       "[/usr/bin/program, --option, value]\n" },
                { "runners: { a: { command: } }\n", "c.yaml:1: runners.a.command: expected a list of words as "
                                                    "[/usr/bin/program, --option, value], not nothing\n" },
                { "runners: { a: { command: [] } }\n", "c.yaml:1: runners.a.command: expected a list of words as "
                                                       "[/usr/bin/program, --option, value], not an empty list\n" },
                { "runners: { a: { command: [[x]] } }\n", "c.yaml:1: runners.a.command: expected a list of words as "
                                                          "[/usr/bin/program, --option, value], not a list\n" },
                { "runners: { a: { command: '' } }\n",
                  "c.yaml:1: runners.a.command: expected a program as its first word, "
                  "not ''\n" },
                { "runners: { a: { command: \"a\\0b\" } }\n",
                  "c.yaml:1: runners.a.command: expected a text without a byte 0\n" },
                { "runners:\n  a: { command: x }\n  a: { command: y }\n",
                  "c.yaml:3: runners.a: this key is there twice, first on line 2\n" },
                { "runners: { a: &x { command: x }, b: *x }\n",
                  "c.yaml:1: runners.b: aliases (*name) cannot be used: what "
                  "runners have in common goes into 'defaults'\n" },
                { "runners: { a: { <<: { nice: 1 }, command: x } }\n",
                  "c.yaml:1: runners.a.<<: merges cannot be used: what runners have in common goes into "
                  "'defaults'\n" },
                { "runners: { \"a\\nb\": { command: x } }\n", "c.yaml:1: runners.a?b: expected a name of 1 to 63 "
                                                              "letters, digits and . _ - @, not beginning with -\n" },
                { "runners: { '': { command: x } }\n", "c.yaml:1: runners.: expected a name of 1 to 63 letters, "
                                                       "digits and . _ - @, not beginning with -\n" },
                { "runners: { -a: { command: x } }\n", "c.yaml:1: runners.-a: expected a name of 1 to 63 letters, "
                                                       "digits and . _ - @, not beginning with -\n" },
                { "runners: { a.1: { command: x } }\n",
                  "c.yaml:1: runners.a.1: expected a name that does not end in a dot "
                  "and a number, as the instances of a template do\n" },
                { "runners: { a23456789a23456789a23456789a23456789a23456789a23456789a234567x: { command: x, "
                  "instances: 2 } }",
                  "c.yaml:1: runners.a23456789a23456789a23456789a23456789a23456789a23456789a234567x: expected a name "
                  "of 1 to "
                  "57 letters, digits and . _ - @, not beginning with -\n" },
                { WITH("comand: y"), AT "comand: there is no such key; did you mean command?\n" },
                { WITH("ExecStart: y"), AT "ExecStart: there is no such key; did you mean command?\n" },
                { WITH("depends_on: y"), AT "depends_on: there is no such key; did you mean requires?\n" },
                { WITH("name: y"), AT "name: there is no such key\n" },
                { "defaults: { command: x }\n" A, "c.yaml:1: defaults.command: there is no such key\n" },
                { WITH("nice: 20"), AT "nice: expected a number from -20 to 19, not '20'\n" },
                { WITH("nice: [1]"), AT "nice: expected a number from -20 to 19, not a list\n" },
                { WITH("nice: x"), AT "nice: expected a number from -20 to 19, not 'x'\n" },
                { WITH("nice: ''"), AT "nice: expected a number from -20 to 19, not ''\n" },
                { WITH("cwd: ''"), AT "cwd: expected a directory, not ''\n" },
                { WITH("umask: 8"), AT "umask: expected an octal number from 0 to 0777, not '8'\n" },
                { WITH("umask: 01000"), AT "umask: expected an octal number from 0 to 0777, not '01000'\n" },
                { WITH("ioprio: idle:1"),
                  AT "ioprio: expected idle, best-effort:LEVEL or realtime:LEVEL, with a LEVEL from "
                     "0 to 7, not 'idle:1'\n" },
                { WITH("ioprio: realtime:8"),
                  AT "ioprio: expected idle, best-effort:LEVEL or realtime:LEVEL, with a LEVEL "
                     "from 0 to 7, not 'realtime:8'\n" },
                { WITH("oom_score_adj: -1001"),
                  AT "oom_score_adj: expected a number from -1000 to 1000, not '-1001'\n" },
                { WITH("limits: { nofiles: 3 }"), AT "limits.nofiles: there is no such key; did you mean nofile?\n" },
                { WITH("limits: { nofile: 5:3 }"),
                  AT "limits.nofile: expected a number, unlimited, or two of them as SOFT:HARD, not '5:3'\n" },
                { WITH("limits: 3"),
                  AT "limits: expected a mapping from limits to a number, unlimited, or two of them as "
                     "SOFT:HARD, not a text\n" },
                { WITH("cgroup: { memory_max: 1X }"),
                  AT "cgroup.memory_max: expected a size in bytes such as 65536, 64K, "
                     "10M or 1G, or max, not '1X'\n" },
                { WITH("cgroup: { cpu_max: 50 }"),
                  AT "cgroup.cpu_max: expected a share of one processor such as 50% or "
                     "200%, or max, not '50'\n" },
                { WITH("cgroup: { cpu_weight: max }"),
                  AT "cgroup.cpu_weight: expected a number from 1 to 10000, not 'max'\n" },
                { WITH("cgroup: { io_weight: 0 }"),
                  AT "cgroup.io_weight: expected a number from 1 to 10000, not '0'\n" },
                { WITH("cgroup: { pids_max: 0 }"), AT "cgroup.pids_max: expected a number from 1, or max, not '0'\n" },
                { WITH("inherit_env: maybe"), AT "inherit_env: expected true or false, not 'maybe'\n" },
                { WITH("env: [A]"),
                  AT "env: expected a mapping from names to values, or a list of NAME=value, not 'A'\n" },
                { WITH("env: ['=x']"),
                  AT "env: expected a mapping from names to values, or a list of NAME=value, not '=x'\n" },
                { WITH("env: { A: [x] }"),
                  AT "env: expected a mapping from names to values, or a list of NAME=value, not a list\n" },
                { WITH("ready: soon"), AT "ready: expected none, hello, notify or fd, not 'soon'\n" },
                { WITH("start_timeout: 0"),
                  AT "start_timeout: expected a duration such as 500ms, 10s, 5min or 1h, not '0'\n" },
                { WITH("stop_timeout: 10x"),
                  AT "stop_timeout: expected a duration such as 500ms, 10s, 5min or 1h, not '10x'\n" },
                { WITH("stop_timeout: 9000h"),
                  AT "stop_timeout: expected a duration such as 500ms, 10s, 5min or 1h, not '9000h'\n" },
                { WITH("stop_signal: FOO"), AT "stop_signal: expected a signal such as TERM, INT or 15, not 'FOO'\n" },
                { WITH("uds_path: yes"), AT "uds_path: goes only with 'ready: hello'\n" },
                { WITH("channels: data"), AT "channels: goes only with 'ready: hello'\n" },
                { WITH("channels: [rpc, link]"),
                  AT "channels: expected rpc, filesystem, data, or a list of them, not 'link'\n" },
                { WITH("recover: failover"), AT "recover: 'failover' goes only with 'ready: hello'\n" },
                { WITH("recover: maybe"), AT "recover: expected fresh or failover, not 'maybe'\n" },
                { WITH("checkpoint: { every: 3s }"), AT "checkpoint.every: goes only with 'recover: failover'\n" },
                { WITH("checkpoint: { max_fds: 65537 }"),
                  AT "checkpoint.max_fds: expected a number from 0 to 65536, not '65537'\n" },
                { WITH("pending: flush"), AT "pending: goes only with 'ready: hello'\n" },
                { WITH("watchdog: 3s"), AT "watchdog: goes only with 'ready: hello' or 'ready: notify'\n" },
                { WITH("restart: on_failure"),
                  AT "restart: expected always, on-failure or never, not 'on_failure'\n" },
                { WITH("oneshot: 1"), AT "oneshot: expected true or false, not '1'\n" },
                { WITH("{ oneshot: true, ready: fd }: 1"), "c.yaml:4: runners.a: expected a key, not a mapping\n" },
                { WITH("oneshot: true\n    ready: fd"),
                  AT "oneshot: goes only with 'ready: none': it is ready when it has ended\n" },
                { WITH("restart: always\n    oneshot: true"),
                  AT "restart: 'always' goes with neither oneshot nor a schedule\n" },
                { WITH("restart: always\n    every: 1h"),
                  AT "restart: 'always' goes with neither oneshot nor a schedule\n" },
                { WITH("every: 1h\n    at: 0 0 * * *"), AT "every: goes with no 'at': one of them\n" },
                { WITH("every: 0"), AT "every: expected a duration such as 500ms, 10s, 5min or 1h, not '0'\n" },
                { WITH("at: 0 25 * * *"),
                  AT "at: expected five fields as in crontab(5): minute, hour, day, month, weekday; "
                     "or a list of such times, not '0 25 * * *'\n" },
                { WITH("at: 0 0 30 2 *"), AT "at: such a time never comes\n" },
                { WITH("success_exit: [256]"),
                  AT "success_exit: expected exit codes from 0 to 255 and signals such as TERM, "
                     "or a list of them, not '256'\n" },
                { WITH("instances: 10001"), AT "instances: expected a number from 0 to 10000, not '10001'\n" },
                { WITH("backoff: { initial: 3s, max: 2s }"),
                  AT "backoff.max: expected a duration not below initial, which is 3s\n" },
                { WITH("backoff: { factor: 0.5 }"),
                  AT "backoff.factor: expected a number from 1 to 100 such as 2 or 1.5, "
                     "not '0.5'\n" },
                { WITH("backoff: { jitter: 101% }"), AT "backoff.jitter: expected a share such as 20%, not '101%'\n" },
                { WITH("backoff: { x: 1 }"), AT "backoff.x: there is no such key\n" },
                { WITH("intensity: { restarts: -1 }"),
                  AT "intensity.restarts: expected a number from 0 to 1000, not '-1'\n" },
                { WITH("intensity: { within: 0 }"),
                  AT "intensity.within: expected a duration such as 500ms, 10s, 5min or 1h, not '0'\n" },
                { WITH("hooks: { on: up }"), AT "hooks: expected a list of mappings of on, command and timeout, not a "
                                                "mapping\n" },
                { WITH("hooks: [ 3 ]"), AT "hooks.1: expected a mapping of on, command and timeout, not a text\n" },
                { WITH("hooks: [ { on: up } ]"), AT "hooks.1: 'command' is missing: expected a list of words as "
                                                    "[/usr/bin/program, --option, value]\n" },
                { WITH("hooks: [ { command: x } ]"),
                  AT "hooks.1: 'on' is missing: expected exit or states of a runner, or "
                     "a list of them\n" },
                { WITH("hooks: [ { on: [upp], command: x } ]"),
                  AT "hooks.1.on: expected exit or states of a runner, or a list of them, not 'upp'\n" },
                { WITH("hooks: [ { on: up, command: x, timeout: -1 } ]"),
                  AT "hooks.1.timeout: expected a duration such as 500ms, 10s, 5min or 1h, not '-1'\n" },
                { WITH("sockets: { tcp: 1 }"), AT "sockets: expected a list of mappings such as "
                                                  "{ tcp: 127.0.0.1:80 }, not a mapping\n" },
                { WITH("sockets: [ 3 ]"), AT "sockets.1: expected a mapping with tcp, udp or unix, not a text\n" },
                { WITH("sockets: [ { tpc: 1 } ]"), AT "sockets.1.tpc: there is no such key; did you mean tcp?\n" AT
                                                      "sockets.1: expected one of tcp, udp and unix\n" },
                { WITH("sockets: [ { tcp: 1, udp: 2 } ]"), AT "sockets.1.udp: goes with no 'tcp': one of them\n" },
                { WITH("sockets: [ { tcp: 1 }, { tcp: '::1:2' } ]"),
                  AT "sockets.2.tcp: expected a port, or a numeric address and a port, such as 80, 127.0.0.1:80 or "
                     "[::1]:80, not '::1:2'\n" },
                { WITH("sockets: [ { udp: 65536 } ]"),
                  AT "sockets.1.udp: expected a port, or a numeric address and a port, such as 80, 127.0.0.1:80 or "
                     "[::1]:80, not '65536'\n" },
                { WITH("sockets: [ { unix: web.sock } ]"), AT "sockets.1.unix: expected a path such as /run/web.sock, "
                                                              "or @NAME for an abstract one, not 'web.sock'\n" },
                { WITH("sockets: [ { unix: /x, type: tcp } ]"),
                  AT "sockets.1.type: expected stream, dgram or seqpacket, not 'tcp'\n" },
                { WITH("sockets: [ { tcp: 1, type: dgram } ]"), AT "sockets.1.type: goes only with 'unix'\n" },
                { WITH("sockets: [ { unix: /x, reuse_port: yes } ]"),
                  AT "sockets.1.reuse_port: goes only with 'tcp' and 'udp'\n" },
                { WITH("sockets: [ { unix: '@x', mode: 0600 } ]"), AT "sockets.1.mode: goes only with a path\n" },
                { WITH("sockets: [ { unix: /x, type: dgram, backlog: 1 } ]"),
                  AT "sockets.1.backlog: goes only with what is listened on\n" },
                { WITH("sockets: [ { tcp: 1, backlog: 0 } ]"),
                  AT "sockets.1.backlog: expected a number from 1 to 65535, not '0'\n" },
                { WITH("sockets: [ { unix: /x, mode: 999 } ]"),
                  AT "sockets.1.mode: expected an octal number from 0 to 0777, not '999'\n" },
                { WITH("sockets: [ { unix: /x, user: no-such-user } ]"),
                  AT "sockets.1.user: there is no user no-such-user\n" },
                { WITH("sockets: [ { unix: /x, group: no-such-group } ]"),
                  AT "sockets.1.group: there is no group no-such-group\n" },
                { WITH("sockets: [ { tcp: 1, name: 'a:b' } ]"),
                  AT "sockets.1.name: expected up to 255 printable characters without colons, not 'a:b'\n" },
                { WITH("sockets: [ { tcp: 1, reuse_port: maybe } ]"),
                  AT "sockets.1.reuse_port: expected true or false, not 'maybe'\n" },
                { WITH("sockets: [ { tcp: 80 } ]\n    instances: 2"),
                  AT "sockets.1.tcp: it would be the same for all instances: put %i into it, or say reuse_port\n" },
                { WITH("sockets: [ { tcp: '6553%i' } ]\n    instances: 6"),
                  AT "sockets.1.tcp: expected a port, or a numeric address and a port, such as 80, 127.0.0.1:80 or "
                     "[::1]:80, not '65536'\n" },
                { WITH("sockets: [ { tcp: 1 } ]\n    ready: fd"),
                  AT "sockets: go with no 'ready: fd': both begin at descriptor 3\n" },
                { WITH("sockets: [ { tcp: 1 } ]\n    oneshot: true"),
                  AT "sockets: go with neither oneshot nor a schedule\n" },
                { WITH("socket_variable: { name: X }"), AT "socket_variable: goes only with 'sockets'\n" },
                { WITH("socket_variable: { format: '%f' }\n    sockets: [ { tcp: 1 } ]"),
                  AT "socket_variable: 'name' is missing: expected the name of a variable\n" },
                { WITH("socket_variable: { name: LISTEN_FDS }\n    sockets: [ { tcp: 1 } ]"),
                  AT "socket_variable.name: expected the name of a variable, not 'LISTEN_FDS'\n" },
                { WITH("socket_variable: { name: X, format: f }\n    sockets: [ { tcp: 1 } ]"),
                  AT "socket_variable.format: expected a text with %f for the descriptor's number, not 'f'\n" },
                { WITH("fd_store: { max: 1025 }"), AT "fd_store.max: expected a number from 0 to 1024, not '1025'\n" },
                { WITH("fd_store: { timeout: x }"),
                  AT "fd_store.timeout: expected a duration such as 500ms, 10s, 5min or 1h, not 'x'\n" },
                { WITH("fd_store: { max: 1 }"),
                  AT "fd_store: goes only with 'ready: notify': it is filled by FDSTORE=1\n" },
                { WITH("log: { full: wait }"), AT "log.full: expected drop or park, not 'wait'\n" },
                { WITH("log: { ring_size: 1K }"),
                  AT "log.ring_size: expected a size in bytes such as 65536, 64K, 10M or 1G, "
                     "from 64K to 1G, not '1K'\n" },
                { WITH("log: { keep: 1001 }"), AT "log.keep: expected a number from 0 to 1000, not '1001'\n" },
                { WITH("log: { format: xml }"), AT "log.format: expected text or json, not 'xml'\n" },
                { WITH("rpc: { max_frame: 1K }"),
                  AT "rpc.max_frame: expected a size in bytes such as 65536, 64K, 10M or 1G, "
                     "from 64K, not '1K'\n" },
                { WITH("rpc: { max_waiting: none }"), AT "rpc.max_waiting: expected a number from 1, not 'none'\n" },
                { WITH("rpc: { max_held_fds: 0 }"), AT "rpc.max_held_fds: expected a number from 1, not '0'\n" },
                { WITH("rpc: { max_attached: 0 }"),
                  AT "rpc.max_attached: expected a number from 1 to 65535, not '0'\n" },
                { WITH("user: no-such-user"), AT "user: there is no user no-such-user\n" },
                { WITH("group: no-such-group"), AT "group: there is no group no-such-group\n" },
                { WITH("groups: [no-such-group]"), AT "groups: there is no group no-such-group\n" },
                { WITH("user: 4000000000"), AT "user: a user that has only a number needs 'group', too\n" },
                { "defaults: { user: no-such-user }\nrunners: { a: { command: x }, b: { command: x } }\n",
                  "c.yaml:1: defaults.user: there is no user no-such-user\n" },
                { "runners: { web: { command: x, after: wbe } }\n",
                  "c.yaml:1: runners.web.after: there is no runner or group wbe; did you mean web?\n" },
                { WITH("requires: [zzz]"), AT "requires: there is no runner or group zzz\n" },
                { WITH("after: a"), AT "after: waits for itself: a -> a\n" },
                { "groups: { g: [a] }\n" A, "c.yaml:1: groups.g: expected a mapping of a group's keys, not a list\n" },
                { "groups: { g: { } }\n" A,
                  "c.yaml:1: groups.g: 'members' is missing: expected names of runners and groups, as a list\n" },
                { "groups: { g: { members: [] } }\n" A,
                  "c.yaml:1: groups.g.members: expected names of runners and groups, as a list, not an empty list\n" },
                { "groups: { g: { members: b } }\n" A, "c.yaml:1: groups.g.members: there is no runner or group b\n" },
                { "groups: { g: { members: a }, h: { members: a } }\n" A,
                  "c.yaml:1: groups.h.members: a is already a member of group g\n" },
                { "groups: { g: { members: g } }\n" A,
                  "c.yaml:1: groups.g.members: the group is a member of itself\n" },
                { "groups: { g: { members: a, strategy: all } }\n" A,
                  "c.yaml:1: groups.g.strategy: expected one_for_one, one_for_all or rest_for_one, not 'all'\n" },
                { A "groups: { a: { members: a } }\n",
                  "c.yaml:2: groups.a: a runner of this name is already at c.yaml:1\n" },
                { "supervisor: { operators: no-such-group }\n" A,
                  "c.yaml:1: supervisor.operators: there is no group no-such-group\n" },
                { "supervisor: { others: all }\n" A,
                  "c.yaml:1: supervisor.others: expected none or read, not 'all'\n" },
                { "supervisor: { metrics: host:1 }\n" A, "c.yaml:1: supervisor.metrics: expected a socket's path, or "
                                                         "a numeric ADDRESS:PORT, not 'host:1'\n" },
                { "supervisor: { stop_timeout: 0 }\n" A,
                  "c.yaml:1: supervisor.stop_timeout: expected a duration such as 500ms, 10s, 5min or 1h, not '0'\n" },
                { "supervisor: 3\n" A, "c.yaml:1: supervisor: expected a mapping of its keys, not a text\n" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                write_text("c.yaml", cases[i].text);
                assert_errors("c.yaml", 0, cases[i].errors);
        }
}

/* A cycle over several runners and both kinds of edges, through a group, is told once and whole. */
static void test_cycle(void **state) {
        static const char text[] = "runners:\n"
                                   "  a: { command: x, after: b }\n"
                                   "  b: { command: x, requires: g }\n"
                                   "  c: { command: x, after: [d, a] }\n"
                                   "  d: { command: x }\n"
                                   "groups: { g: { members: [d, c] } }\n";

        (void) state;
        write_text("c.yaml", text);
        assert_errors("c.yaml", 0, "c.yaml:4: runners.c.after: waits for itself: a -> b -> c -> a\n");
}

/* What follows from something that was told is not told again, and what does not is. */
static void test_several(void **state) {
        static const char text[] = "runners:\n"
                                   "  a:\n"
                                   "    comand: [x]\n"
                                   "    nice: 99\n"
                                   "    cwd: { }\n"
                                   "  b:\n"
                                   "    command: { }\n"
                                   "    after: [a, c]\n";

        (void) state;
        write_text("c.yaml", text);
        assert_errors(
                "c.yaml", 0,
                "c.yaml:2: runners.a: 'command' is missing: expected a list of words as [/usr/bin/program, --option, "
                "value]\n"
                "c.yaml:3: runners.a.comand: there is no such key; did you mean command?\n"
                "c.yaml:4: runners.a.nice: expected a number from -20 to 19, not '99'\n"
                "c.yaml:5: runners.a.cwd: expected a directory, not a mapping\n"
                "c.yaml:7: runners.b.command: expected a list of words as [/usr/bin/program, --option, value], not a "
                "mapping\n"
                "c.yaml:8: runners.b.after: there is no runner or group c\n");
}

static void test_many_errors(void **state) {
        _cleanup_free_ char *text = NULL;
        Config *config = NULL;
        FILE *file = fopen("c.yaml", "we");
        size_t lines = 0;

        (void) state;
        assert_non_null(file);
        (void) fputs("runners:\n", file);
        for (int i = 0; i < 60; i++)
                (void) fprintf(file, "  r%d: { command: x, nice: 99 }\n", i);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(load("c.yaml", 0, &config, &text), -EINVAL);
        for (const char *p = text; (p = strchr(p, '\n')); p++)
                lines++;
        assert_int_equal(lines, CONFIG_ERRORS_MAX + 1);
        assert_non_null(strstr(text, "\nand 10 more errors\n"));
}

/* -------------------------------------------------------------------------------------------------------------- files */

static void test_directory(void **state) {
        _cleanup_(config_unrefp) Config *config = NULL;

        (void) state;
        assert_int_equal(mkdir("d", 0755), 0);
        assert_errors("d", 0, "d: no .yaml file is in this directory\n");
        write_text("d/2.yaml", "runners: { b: { command: x, after: a } }\n");
        write_text("d/1.yaml", "defaults: { nice: 3 }\nrunners: { a: { command: x } }\n");
        write_text("d/.hidden.yaml", "wrong");
        write_text("d/README", "wrong");
        config = load_good("d", 0);
        assert_int_equal(config->n_runners, 2);
        assert_string_equal(config->runners[0]->name, "a");
        assert_int_equal(config->runners[1]->nice, 3);
        write_text("d/3.yaml", "\ndefaults: { nice: 4 }\nrunners:\n  a: { command: y }\n");
        assert_errors("d", 0,
                      "d/3.yaml:2: defaults: is already at d/1.yaml:1\n"
                      "d/3.yaml:4: runners.a: a runner of this name is already at d/1.yaml:2\n");
        assert_int_equal(rename("d/3.yaml", "d/3.yml"), 0);
        assert_errors("d/", 0, "d/3.yml: its name ends in .yml: only .yaml files are read\n");
}

static void test_unreadable(void **state) {
        (void) state;
        assert_errors("nothing.yaml", 0, "nothing.yaml: cannot be read: No such file or directory\n");
        assert_errors("/dev/null", 0, "/dev/null: not a regular file\n");
        assert_int_equal(mkfifo("fifo.yaml", 0600), 0);
        assert_errors("fifo.yaml", 0, "fifo.yaml: not a regular file\n");
        write_text("c.yaml", A);
        assert_int_equal(truncate("c.yaml", CONFIG_FILE_MAX + 1), 0);
        assert_errors("c.yaml", 0, "c.yaml: larger than 4 MiB\n");
        assert_int_equal(mkdir("u", 0755), 0);
        assert_int_equal(mkdir("u/a.yaml", 0755), 0);
        assert_errors("u", 0, "u/a.yaml: cannot be read: Is a directory\n");
        seam_fail(SEAM_OPENAT, 1, EACCES);
        assert_errors("c.yaml", 0, "c.yaml: cannot be read: Permission denied\n");
}

static void test_rubbish(void **state) {
        static const char bytes[] = "\x7f"
                                    "ELF\2\1\1\0\0\0\0\0\0\0\0\0\3\0>\0\1\0\0\0";
        char deep[20000];
        _cleanup_free_ char *text = NULL;
        Config *config = NULL;

        (void) state;
        write_bytes("c.yaml", bytes, sizeof(bytes));
        assert_errors("c.yaml", 0, "c.yaml: not YAML: byte 0: control characters are not allowed\n");
        memset(deep, '[', sizeof(deep));
        write_bytes("c.yaml", deep, sizeof(deep));
        assert_int_equal(load("c.yaml", 0, &config, &text), -EINVAL);
}

/* Aliases are refused before they are followed: 9^9 of them are no more than nine. */
static void test_bomb(void **state) {
        static const char text[] = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
                                   "runners: { a: { command: [*b,*b] } }\n";

        (void) state;
        write_text("c.yaml", text);
        assert_errors(
                "c.yaml", 0,
                "c.yaml:1: a: there is no such key\n"
                "c.yaml:2: b: there is no such key\n"
                "c.yaml:2: runners.a.command: aliases (*name) cannot be used: what runners have in common goes into "
                "'defaults'\n"
                "c.yaml:2: runners.a.command: aliases (*name) cannot be used: what runners have in common goes into "
                "'defaults'\n");
}

static void test_too_many(void **state) {
        FILE *file = fopen("c.yaml", "we");

        (void) state;
        assert_non_null(file);
        (void) fputs("runners:\n", file);
        for (int i = 0; i <= CONFIG_RUNNERS_MAX; i++)
                (void) fprintf(file, "  r%d: { command: x }\n", i);
        assert_int_equal(fclose(file), 0);
        assert_errors("c.yaml", 0, "c.yaml: more than 10000 runners and groups: have instances of a template\n");
}

/* ----------------------------------------------------------------------------------------------- what must be there */

static void test_check(void **state) {
        static const char text[] = "runners:\n"
                                   "  good: { command: [sh, -c, exit], cwd: / }\n"
                                   "  not-there: { command: /nowhere/x }\n"
                                   "  not-in-path: { command: x, env: { PATH: '/nowhere:.' } }\n"
                                   "  folder: { command: / }\n"
                                   "  plain: { command: ./file, cwd: %s }\n"
                                   "  cwd: { command: sh, cwd: /nowhere }\n"
                                   "  file: { command: sh, cwd: %s/file }\n"
                                   "  env: { command: sh, env_file: /nowhere/env }\n"
                                   "  hook: { command: sh, hooks: [ { on: up, command: /nowhere/%%n } ] }\n"
                                   "  user: { command: /nowhere/y, user: no-such-user }\n"
                                   "  many: { command: /nowhere/%%n, instances: 2 }\n";
        char cwd[2048], yaml[8192], expected[8192];
        _cleanup_(config_unrefp) Config *config = NULL;

        (void) state;
        assert_non_null(getcwd(cwd, sizeof(cwd)));
        write_text("file", "#!/bin/sh\n");
        (void) snprintf(yaml, sizeof(yaml), text, cwd, cwd);
        write_text("c.yaml", yaml);
        (void) snprintf(expected, sizeof(expected),
                        "c.yaml:3: runners.not-there.command: program /nowhere/x: No such file or directory\n"
                        "c.yaml:4: runners.not-in-path.command: program x: not found in PATH (/nowhere:.)\n"
                        "c.yaml:5: runners.folder.command: program /: not a file\n"
                        "c.yaml:6: runners.plain.command: program %s/./file: not executable\n"
                        "c.yaml:7: runners.cwd.cwd: directory /nowhere: No such file or directory\n"
                        "c.yaml:8: runners.file.cwd: directory %s/file: not a directory\n"
                        "c.yaml:9: runners.env.env_file: env_file /nowhere/env: No such file or directory\n"
                        "c.yaml:10: runners.hook.hooks.1.command: program /nowhere/hook: No such file or directory\n"
                        "c.yaml:11: runners.user.user: there is no user no-such-user\n"
                        "c.yaml:11: runners.user.command: program /nowhere/y: No such file or directory\n"
                        "c.yaml:12: runners.many.command: program /nowhere/many.1: No such file or directory\n",
                        cwd, cwd);
        assert_errors("c.yaml", CONFIG_LOAD_CHECK, expected);

        /* One that follows another goes on without. */
        config = load_good("c.yaml", CONFIG_LOAD_AGAIN);
        assert_int_equal(config->n_runners, 11);
        assert_string_equal(config_find(config, "user")->user->unresolved, "there is no user no-such-user");
}

/* ------------------------------------------------------------------------------------------------------------- packing */

static ConfigSource *read_source(const char *path) {
        char *paths[] = { (char *) (uintptr_t) path, NULL };
        ConfigErrors errors = { 0 };
        ConfigSource *source = NULL;

        assert_int_equal(config_source_read(&source, paths, &errors), 0);
        return source;
}

static void test_pack(void **state) {
        _cleanup_(config_source_freep) ConfigSource *source = NULL, *unpacked = NULL;
        _cleanup_(config_unrefp) Config *one = NULL, *other = NULL;
        ConfigDifference difference;
        ConfigErrors errors = { 0 };
        char **before, **after;
        int fd;

        (void) state;
        assert_int_equal(mkdir("p", 0755), 0);
        write_text("p/a.yaml", everything);
        write_text("p/b.yaml", "runners: { b: { command: x } }\n");
        source = read_source("p");
        assert_int_equal(config_load(&one, source, 0, &errors), 0);
        assert_int_equal(config_source_pack(source, &fd), 0);
        write_text("p/a.yaml", "edited since");
        assert_int_equal(config_source_unpack(&unpacked, fd), 0);
        fd_close(fd);
        before = config_source_take_paths(source);
        after = config_source_take_paths(unpacked);
        assert_string_equal(after[0], before[0]);
        assert_int_equal(*after[0], '/');
        assert_null(after[1]);
        config_paths_free(before);
        config_paths_free(after);
        assert_int_equal(config_load(&other, unpacked, CONFIG_LOAD_AGAIN, &errors), 0);
        assert_int_equal(config_compare(one, other, &difference), 0);
        assert_true(config_difference_is_empty(&difference));
        assert_int_equal(difference.n_same, 6);
        config_difference_deinit(&difference);
}

/* Every length of a packed source but the whole is refused, and so is what is no such thing. */
static void test_unpack(void **state) {
        _cleanup_(config_source_freep) ConfigSource *source = NULL;
        _cleanup_(memfd_unmap) MemfdMapping mapping = { 0 };
        ConfigSource *unpacked = NULL;
        int fd, cut;

        (void) state;
        write_text("c.yaml", A);
        source = read_source("c.yaml");
        assert_int_equal(config_source_pack(source, &fd), 0);
        assert_int_equal(memfd_map_sealed(fd, 4096, &mapping), 0);
        for (size_t size = 0; size < mapping.size; size++) {
                assert_int_equal(memfd_sealed("cut", mapping.data, size, &cut), 0);
                assert_int_equal(config_source_unpack(&unpacked, cut), -EBADMSG);
                fd_close(cut);
        }
        fd_close(fd);
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_int_equal(config_source_unpack(&unpacked, fd), -EBADMSG);
        fd_close(fd);
}

/* ---------------------------------------------------------------------------------------------------------- difference */

/* assert_found() - each change by its name, and none of what is the same. */
static void assert_found(const ConfigDifference *difference, const Config *first, const Config *second) {
        const Config *configs[] = { first, second };
        const ConfigChange *changes = difference->changes;
        size_t n_found = 0, n_all = 0;

        for (size_t i = 0; i < difference->n_changes; i++)
                assert_ptr_equal(config_difference_find(difference, (changes[i].after ?: changes[i].before)->name),
                                 &changes[i]);
        for (size_t i = 0; i < ARRAY_SIZE(configs); i++)
                for (size_t j = 0; configs[i] && j < configs[i]->n_runners; j++, n_all++)
                        n_found += config_difference_find(difference, configs[i]->runners[j]->name) != NULL;
        assert_int_equal(n_all - n_found, 2 * difference->n_same);
        assert_null(config_difference_find(difference, "no runner's name"));
}

static void assert_difference(const char *one, const char *other, const char *expected) {
        _cleanup_(config_unrefp) Config *first = one ? load_text(one) : NULL, *second = load_text(other);
        ConfigDifference difference;
        _cleanup_free_ char *text = NULL;

        assert_int_equal(config_compare(first, second, &difference), 0);
        text = config_difference_text(&difference);
        assert_string_equal(text, expected);
        assert_int_equal(config_difference_is_empty(&difference), *expected == '\0');
        assert_found(&difference, first, second);
        config_difference_deinit(&difference);
}

/* What a change of a key needs of a process that there is. */
static void test_effects(void **state) {
        static const struct {
                const char *keys;
                ConfigEffect effect;
        } cases[] = {
                { "description: x", CONFIG_EFFECT_NONE },
                { "upgrade: { signal: QUIT }", CONFIG_EFFECT_NONE },
                { "env: { A: 1 }", CONFIG_EFFECT_UPGRADE },
                { "cwd: /", CONFIG_EFFECT_UPGRADE },
                { "limits: { cpu: 1 }", CONFIG_EFFECT_UPGRADE },
                { "rpc: { max_calls: 1 }", CONFIG_EFFECT_UPGRADE },
                { "rpc: { max_object: 1 }", CONFIG_EFFECT_UPGRADE },
                { "rpc: { max_held_fds: 1 }", CONFIG_EFFECT_UPGRADE },
                { "rpc: { max_waiting: 1 }", CONFIG_EFFECT_UPGRADE },
                { "rpc: { max_waiting_bytes: 1 }", CONFIG_EFFECT_UPGRADE },
                { "rpc: { max_unsent: 1 }", CONFIG_EFFECT_UPGRADE },
                { "env: { A: 1 }, stop_timeout: 1s", CONFIG_EFFECT_UPGRADE },
                { "ready: notify", CONFIG_EFFECT_RESTART },
                { "ready: notify, env: { A: 1 }", CONFIG_EFFECT_RESTART },
                { "sockets: [ { tcp: 80 } ]", CONFIG_EFFECT_RESTART },
                { "instances: 1", CONFIG_EFFECT_RESTART },
        };
        static const struct {
                uint32_t n_upgrades, n_restarts;
                const char *text;
        } numbers[] = {
                { 0, 0, "~ a: env (restart)\n" },
                { 0, 2, "~ a: env (restart)\n" },
                { 2, 0, "~ a: env (upgrade)\n" },
                { 2, 1, "~ a: env (upgrade 2, restart 1)\n" },
        };
        _cleanup_(config_unrefp) Config *first = load_text(A), *second = NULL;
        ConfigDifference difference;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                _cleanup_(config_unrefp) Config *changed = NULL;
                char text[256];

                (void) snprintf(text, sizeof(text), "runners: { a: { command: x, %s } }\n", cases[i].keys);
                changed = load_text(text);
                assert_int_equal(config_compare(first, changed, &difference), 0);
                assert_int_equal(difference.n_changes, 1);
                assert_int_equal(difference.changes[0].effect, cases[i].effect);
                config_difference_deinit(&difference);
        }
        second = load_text("runners: { a: { command: x, env: { A: 1 } } }\n");
        assert_int_equal(config_compare(first, second, &difference), 0);
        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
                _cleanup_free_ char *text = NULL;

                difference.changes[0].n_upgrades = numbers[i].n_upgrades;
                difference.changes[0].n_restarts = numbers[i].n_restarts;
                text = config_difference_text(&difference);
                assert_string_equal(text, numbers[i].text);
        }
        config_difference_deinit(&difference);
}

static void test_compare(void **state) {
        static const struct {
                const char *keys, *difference;
        } cases[] = {
                { "description: x", "~ a: description\n" },
                { "env: { A: 1 }", "~ a: env (restart)\n" },
                { "env_file: x", "~ a: env_file (restart)\n" },
                { "inherit_env: no", "~ a: inherit_env (restart)\n" },
                { "cwd: /", "~ a: cwd (restart)\n" },
                { "user: 1, group: 2", "~ a: user (restart)\n" },
                { "umask: 0", "~ a: umask (restart)\n" },
                { "limits: { cpu: 1 }", "~ a: limits (restart)\n" },
                { "nice: 1", "~ a: nice (restart)\n" },
                { "ioprio: idle", "~ a: ioprio (restart)\n" },
                { "oom_score_adj: 0", "~ a: oom_score_adj (restart)\n" },
                { "cgroup: { pids_max: 1 }", "~ a: cgroup (restart)\n" },
                { "ready: notify", "~ a: ready (restart)\n" },
                { "uds_path: yes, ready: hello", "~ a: uds_path, ready (restart)\n" },
                { "channels: [filesystem, data], ready: hello", "~ a: channels, ready (restart)\n" },
                { "rpc: { max_calls: 1 }", "~ a: rpc (restart)\n" },
                { "rpc: { max_attached: 1 }", "~ a: rpc.max_attached\n" },
                { "start_timeout: 1s", "~ a: start_timeout\n" },
                { "stop_timeout: 1s", "~ a: stop_timeout\n" },
                { "stop_signal: INT", "~ a: stop_signal\n" },
                { "restart: never", "~ a: restart\n" },
                { "success_exit: 1", "~ a: success_exit\n" },
                { "backoff: { initial: 1s }", "~ a: backoff\n" },
                { "backoff: { reset: 1s }", "~ a: backoff.reset\n" },
                { "intensity: { restarts: 1 }", "~ a: intensity\n" },
                { "autostart: no", "~ a: autostart\n" },
                { "oneshot: yes", "~ a: restart, oneshot\n" },
                { "every: 1h", "~ a: restart, schedule\n" },
                { "at: 0 0 * * *", "~ a: restart, schedule\n" },
                { "instances: 1", "~ a: template (restart)\n" },
                { "instances: 2", "~ a: instances, template (restart)\n" },
                { "hooks: [ { on: up, command: x } ]", "~ a: hooks\n" },
                { "sockets: [ { tcp: 80 } ]", "~ a: sockets (restart)\n" },
                { "sockets: [ { tcp: 80 } ], socket_variable: { name: X }",
                  "~ a: sockets, socket_variable (restart)\n" },
                { "ready: notify, fd_store: { max: 3 }", "~ a: fd_store.max, ready (restart)\n" },
                { "fd_store: { timeout: 3s }", "~ a: fd_store.timeout\n" },
                { "upgrade: { signal: QUIT }", "~ a: upgrade.signal\n" },
                { "ready: hello, recover: failover, checkpoint: { every: 1s }",
                  "~ a: ready, recover, checkpoint.every (restart)\n" },
                { "checkpoint: { timeout: 1s, max_state: 1M, max_fds: 5 }",
                  "~ a: checkpoint.timeout, checkpoint.max_state, checkpoint.max_fds\n" },
                { "ready: hello, pending: flush", "~ a: ready, pending (restart)\n" },
                { "log: { keep: 1 }", "~ a: log\n" },
                { "log: { directory: /x }", "~ a: log\n" },
                { "ready: notify, watchdog: 1s", "~ a: ready, watchdog (restart)\n" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                char text[256];

                (void) snprintf(text, sizeof(text), "runners: { a: { command: x, %s } }\n", cases[i].keys);
                assert_difference(A, text, cases[i].difference);
                assert_difference(text, A, cases[i].difference);
                assert_difference(text, text, "");
        }
        assert_difference(NULL, A, "+ a\n");
        assert_difference(A, "runners: { b: { command: x } }\n", "- a\n+ b\n");
        assert_difference(A, "runners: { a: { command: [x, y] }, b: { command: x, after: a } }\n",
                          "~ a: command (restart)\n+ b\n");
        assert_difference("runners: { a: { command: x }, b: { command: x } }\n",
                          "runners: { a: { command: x }, b: { command: x, after: a, requires: a } }\n",
                          "~ b: after, requires\n");
        assert_difference(A, A "groups: { g: { members: a } }\n", "~ groups\n");
        assert_difference(A, "supervisor: { others: read }\n" A, "~ supervisor\n");
}

/* -------------------------------------------------------------------------------------------------------------- memory */

static int load_everything(void *argument) {
        _cleanup_(config_unrefp) Config *config = NULL;
        ConfigErrors errors = { 0 };
        int r = config_load(&config, argument, 0, &errors);

        config_errors_deinit(&errors);
        return r;
}

static void test_no_memory(void **state) {
        _cleanup_(config_source_freep) ConfigSource *source = NULL;

        (void) state;
        write_text("c.yaml", everything);
        source = read_source("c.yaml");
        assert_true(seam_each(SEAM_MALLOC, ENOMEM, load_everything, source, 0) > 0);
        assert_true(seam_each(SEAM_CALLOC, ENOMEM, load_everything, source, 0) > 0);
        assert_true(seam_each(SEAM_REALLOC, ENOMEM, load_everything, source, 0) > 0);
}

/* A thousand runners, configured one by one. Sanitizers have another allocator. */
static void test_footprint(void **state) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
        (void) state;
        print_message("another allocator is linked\n");
        skip();
#else
        _cleanup_(config_source_freep) ConfigSource *source = NULL;
        _cleanup_(config_unrefp) Config *config = NULL;
        ConfigErrors errors = { 0 };
        FILE *file = fopen("c.yaml", "we");
        uint64_t begin, end;
        size_t used;

        (void) state;
        assert_non_null(file);
        (void) fputs("runners:\n", file);
        for (int i = 0; i < 1000; i++)
                (void) fprintf(file,
                               "  runner-%d:\n    command: [/usr/bin/sleep, \"%d\"]\n    env: { NUMBER: %d }\n"
                               "    restart: always\n    stop_timeout: 5s\n",
                               i, 100000 + i, i);
        assert_int_equal(fclose(file), 0);
        source = read_source("c.yaml");
        used = mallinfo2().uordblks;
        begin = clock_now();
        assert_int_equal(config_load(&config, source, 0, &errors), 0);
        end = clock_now();
        used = mallinfo2().uordblks - used;
        print_message("1000 runners: %zu bytes each, loaded in %llu ms\n", used / 1000,
                      (unsigned long long) (end - begin) / 1000);
        assert_true(used / 1000 < 600);
#endif
}

/* All in a folder of its own, so that messages have short names in them. */
int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_everything), TEST(test_defaults),  TEST(test_limit_names), TEST(test_errors),
                TEST(test_cycle),      TEST(test_several),   TEST(test_many_errors), TEST(test_directory),
                TEST(test_unreadable), TEST(test_rubbish),   TEST(test_bomb),        TEST_SLOW(test_too_many, 60),
                TEST(test_check),      TEST(test_pack),      TEST(test_unpack),      TEST(test_effects),
                TEST(test_compare),    TEST(test_no_memory), TEST(test_footprint),
        };
        char folder[] = "test-config-load-XXXXXX", command[64], *before = getcwd(NULL, 0);
        int r;

        if (!before || !mkdtemp(folder) || chdir(folder) < 0)
                return EXIT_FAILURE;
        r = test_run(tests, ARRAY_SIZE(tests));
        (void) snprintf(command, sizeof(command), "rm -r '%s'", folder);
        if (chdir(before) < 0 || system(command) != 0)
                r = EXIT_FAILURE;
        free(before);
        return r;
}
