/* SPDX-License-Identifier: Apache-2.0 */

/* Configuration: the structure of one runner, what exec gets of it, and its calendar. */

#include "supervisor/config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/config-internal.h"
#include "tests/seam.h"
#include "tests/test.h"

static const char *const command[] = { "/bin/sh", "-c", "echo %n", NULL };
static const char *const env[] = { "A=1", "NAME=%n", "LOW=%i of %t, 100%%, %x", NULL };

static RunnerConfig plain(void) {
        RunnerConfig draft = RUNNER_CONFIG_NULL;

        draft.name = "web";
        draft.command = command;
        return draft;
}

/* ---------------------------------------------------------------------------------------------------------- structure */

/* Everything a draft points at is gone when the copy is looked at. */
static RunnerConfig *full(void) {
        char text[] = "web", at[] = "/srv", file[] = "/etc/env", value[] = "max", why[] = "no user";
        const char *words[] = { text, at, NULL };
        gid_t gids[] = { 7, 8 };
        ConfigUser user = { { 1, 2, gids, 2 }, text, at, file, why };
        SpawnLimit limits[] = { { RLIMIT_CORE, { 3, 4 } } };
        ConfigCgroup cgroup = { .values = { [CONFIG_CGROUP_PIDS_MAX] = value } };
        ConfigHook hooks[] = { { 1, words, 5 }, { 2, words, 6 } };
        ConfigSocket sockets[] = { { .name = text, .address = at, .backlog = 13 } };
        ConfigSocketVariable variable = { text, at, file };
        ConfigExits exits = { .codes = { 8 }, .signals = 16 };
        ConfigTime times[] = { { .minutes = 9 }, { .minutes = 10 } };
        ConfigSchedule schedule = { 11, 2, times };
        PeerLimits rpc = { .max_calls = 12 };
        RunnerConfig draft = RUNNER_CONFIG_NULL, *config;

        draft.name = text;
        draft.description = at;
        draft.command = draft.env = draft.env_file = draft.after = draft.requires = words;
        draft.cwd = draft.log.directory = at;
        draft.user = &user;
        draft.limits = limits;
        draft.n_limits = 1;
        draft.cgroup = &cgroup;
        draft.hooks = hooks;
        draft.n_hooks = 2;
        draft.sockets = sockets;
        draft.n_sockets = 1;
        draft.socket_variable = &variable;
        draft.exits = &exits;
        draft.schedule = &schedule;
        draft.rpc = &rpc;
        if (runner_config_new(&config, &draft) < 0)
                return NULL;
        memset(text, 'x', 3);
        memset(at, 'x', 4);
        memset(file, 'x', 4);
        memset(value, 'x', 3);
        memset(why, 'x', 3);
        memset(words, 0xff, sizeof(words));
        memset(&user, 0xff, sizeof(user));
        memset(hooks, 0xff, sizeof(hooks));
        memset(sockets, 0xff, sizeof(sockets));
        memset(&variable, 0xff, sizeof(variable));
        memset(times, 0xff, sizeof(times));
        memset(gids, 0xff, sizeof(gids));
        return config;
}

static void assert_words(const char *const *words) {
        assert_string_equal(words[0], "web");
        assert_string_equal(words[1], "/srv");
        assert_null(words[2]);
}

static void test_copy(void **state) {
        _cleanup_(runner_config_unrefp) RunnerConfig *config = full();

        (void) state;
        assert_non_null(config);
        assert_string_equal(config->name, "web");
        assert_string_equal(config->description, "/srv");
        assert_words(config->command);
        assert_words(config->env);
        assert_words(config->env_file);
        assert_words(config->after);
        assert_words(config->requires);
        assert_string_equal(config->cwd, "/srv");
        assert_string_equal(config->log.directory, "/srv");
        assert_int_equal(config->user->spawn.uid, 1);
        assert_int_equal(config->user->spawn.gid, 2);
        assert_int_equal(config->user->spawn.groups[1], 8);
        assert_string_equal(config->user->name, "web");
        assert_string_equal(config->user->home, "/srv");
        assert_string_equal(config->user->shell, "/etc/env");
        assert_string_equal(config->user->unresolved, "no user");
        assert_int_equal(config->limits[0].limit.rlim_max, 4);
        assert_string_equal(config->cgroup->values[CONFIG_CGROUP_PIDS_MAX], "max");
        assert_null(config->cgroup->values[CONFIG_CGROUP_MEMORY_MAX]);
        assert_int_equal(config->hooks[1].timeout_us, 6);
        assert_words(config->hooks[0].command);
        assert_words(config->hooks[1].command);
        assert_string_equal(config->sockets[0].name, "web");
        assert_string_equal(config->sockets[0].address, "/srv");
        assert_int_equal(config->sockets[0].backlog, 13);
        assert_string_equal(config->socket_variable->name, "web");
        assert_string_equal(config->socket_variable->format, "/srv");
        assert_string_equal(config->socket_variable->separator, "/etc/env");
        assert_int_equal(config->exits->codes[0], 8);
        assert_int_equal(config->schedule->every_us, 11);
        assert_int_equal(config->schedule->at[1].minutes, 10);
        assert_int_equal(config->rpc->max_calls, 12);
        assert_ptr_equal(runner_config_ref(config), config);
        assert_null(runner_config_unref(config));
}

static int make_one(void *argument) {
        RunnerConfig draft = plain(), *config;
        int r = runner_config_new(&config, &draft);

        (void) argument;
        if (r == 0)
                runner_config_unref(config);
        return r;
}

static void test_no_memory(void **state) {
        (void) state;
        assert_int_equal(seam_each(SEAM_MALLOC, ENOMEM, make_one, NULL, 0), 1);
}

static void test_names(void **state) {
        RunnerConfig draft = plain();
        char text[CONFIG_NAME_MAX + 1];

        (void) state;
        assert_string_equal(runner_config_instance_name(&draft, 1, text), "web");
        draft.is_template = true;
        assert_string_equal(runner_config_instance_name(&draft, 12, text), "web.12");
}

static void test_success(void **state) {
        ConfigExits exits = { .codes = { 1 << 3, 0, 0, UINT64_C(1) << 63 }, .signals = 1 << (SIGTERM - 1) };
        const struct {
                int code, status;
                bool plain, configured;
        } cases[] = {
                { CLD_EXITED, 0, true, true },         { CLD_EXITED, 3, false, true },
                { CLD_EXITED, 4, false, false },       { CLD_EXITED, 255, false, true },
                { CLD_EXITED, 256, false, false },     { CLD_EXITED, -1, false, false },
                { CLD_KILLED, SIGTERM, false, true },  { CLD_DUMPED, SIGTERM, false, true },
                { CLD_KILLED, SIGKILL, false, false }, { CLD_KILLED, 0, false, false },
                { CLD_KILLED, 65, false, false },      { 0, 0, false, false },
        };
        RunnerConfig draft = plain();

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                draft.exits = NULL;
                assert_int_equal(runner_config_is_success(&draft, cases[i].code, cases[i].status), cases[i].plain);
                draft.exits = &exits;
                assert_int_equal(runner_config_is_success(&draft, cases[i].code, cases[i].status),
                                 cases[i].configured);
        }
}

/* -------------------------------------------------------------------------------------------------------------- start */

static const char *value_of(const RunnerStart *start, const char *name) {
        const char *found = NULL;

        for (char **variable = start->envp; *variable; variable++)
                if (strncmp(*variable, name, strlen(name)) == 0 && (*variable)[strlen(name)] == '=') {
                        assert_null(found); /* each name once */
                        found = *variable + strlen(name) + 1;
                }
        return found;
}

static RunnerStart *prepare(const RunnerConfig *config, const char *const *extra) {
        RunnerStart *start = NULL;
        char error[CONFIG_ERROR_SIZE] = "";
        int r = runner_config_prepare(config, "web.3", 3, extra, &start, error);

        if (r < 0)
                print_message("%s\n", error);
        assert_int_equal(r, 0);
        return start;
}

static void assert_fails(const RunnerConfig *config, int result, const char *text) {
        RunnerStart *start = NULL;
        char error[CONFIG_ERROR_SIZE] = "";

        assert_int_equal(runner_config_prepare(config, "web.3", 3, NULL, &start, error), result);
        assert_string_equal(error, text);
        assert_null(start);
}

static void test_prepare(void **state) {
        static const char *const extra[] = { "A=2", "BATON_BOOTSTRAP=/x", NULL };
        ConfigUser user = { .name = "joe", .home = "/home/joe" };
        _cleanup_free_ RunnerStart *start = NULL;
        RunnerConfig draft = plain();

        (void) state;
        assert_int_equal(setenv("INHERITED", "yes", 1), 0);
        assert_int_equal(setenv("NOTIFY_SOCKET", "/run/ours", 1), 0);
        assert_int_equal(setenv("BATON_BOOTSTRAP", "/run/ours", 1), 0);
        draft.env = env;
        draft.cwd = "/srv/%i";
        draft.user = &user;
        start = prepare(&draft, extra);
        assert_string_equal(start->path, "/bin/sh");
        assert_string_equal(start->argv[0], "/bin/sh");
        assert_string_equal(start->argv[2], "echo web.3");
        assert_null(start->argv[3]);
        assert_string_equal(start->cwd, "/srv/3");
        assert_string_equal(value_of(start, "A"), "2");
        assert_string_equal(value_of(start, "NAME"), "web.3");
        assert_string_equal(value_of(start, "LOW"), "3 of web, 100%, %x");
        assert_string_equal(value_of(start, "INHERITED"), "yes");
        assert_string_equal(value_of(start, "BATON_BOOTSTRAP"), "/x");
        assert_string_equal(value_of(start, "USER"), "joe");
        assert_string_equal(value_of(start, "LOGNAME"), "joe");
        assert_string_equal(value_of(start, "HOME"), "/home/joe");
        assert_null(value_of(start, "NOTIFY_SOCKET"));
        free(TAKE_PTR(start));

        draft.uds_path = true;
        start = prepare(&draft, extra);
        assert_string_equal(start->argv[3], "--uds-path");
        assert_string_equal(start->argv[4], "/x");
        assert_null(start->argv[5]);
        free(TAKE_PTR(start));
        draft.uds_path = false;

        draft.inherit_env = false;
        draft.user = NULL;
        draft.cwd = NULL;
        start = prepare(&draft, NULL);
        assert_null(value_of(start, "INHERITED"));
        assert_non_null(value_of(start, "PATH"));
        assert_null(start->cwd);
}

static void test_literal(void **state) {
        static const char *const given[] = { "A=%n", "BATON_BOOTSTRAP=/theirs", "B=2", NULL };
        static const char *const words[] = { "sh", "%n", NULL };
        _cleanup_free_ RunnerStart *start = NULL;
        RunnerConfig draft = plain();

        (void) state;
        draft.literal = true;
        draft.inherit_env = false;
        draft.env = given;
        draft.command = words;
        start = prepare(&draft, NULL);
        assert_string_equal(start->path, "sh");
        assert_string_equal(start->argv[1], "%n");
        assert_string_equal(start->envp[0], "A=%n");
        assert_string_equal(start->envp[1], "B=2");
        assert_null(start->envp[2]);
}

static void write_file(const char *path, const char *text, size_t size) {
        FILE *file = fopen(path, "we");

        assert_non_null(file);
        assert_int_equal(fwrite(text, 1, size, file), size);
        assert_int_equal(fclose(file), 0);
}

static void test_env_file(void **state) {
        static const char text[] = "# who\n\n  ONE=1\nTWO = no\n",
                          good[] = "ONE=1\r\n Q=\"a b\" \nS='#'\nE=\nA=file\nlast=end";
        char path[64], configured[80], message[256];
        const char *files[] = { configured, NULL };
        _cleanup_free_ RunnerStart *start = NULL;
        RunnerConfig draft = plain();

        (void) state;
        (void) snprintf(path, sizeof(path), "test-config-env.%d.3", getpid());
        (void) snprintf(configured, sizeof(configured), "test-config-env.%d.%%i", getpid());
        draft.env_file = files;
        draft.env = env;
        (void) snprintf(message, sizeof(message), "env_file %s: No such file or directory", path);
        assert_fails(&draft, -ENOENT, message);
        write_file(path, text, strlen(text));
        (void) snprintf(message, sizeof(message), "env_file %s: line 4: expected NAME=value", path);
        assert_fails(&draft, -EINVAL, message);
        write_file(path, "A=\0", 3);
        (void) snprintf(message, sizeof(message), "env_file %s: expected text, not a byte 0", path);
        assert_fails(&draft, -EINVAL, message);
        write_file(path, good, strlen(good));
        start = prepare(&draft, NULL);
        assert_string_equal(value_of(start, "ONE"), "1");
        assert_string_equal(value_of(start, "Q"), "a b");
        assert_string_equal(value_of(start, "S"), "#");
        assert_string_equal(value_of(start, "E"), "");
        assert_string_equal(value_of(start, "last"), "end");
        assert_string_equal(value_of(start, "A"), "1"); /* env is over env_file */
        assert_int_equal(truncate(path, 1024 * 1024 + 1), 0);
        (void) snprintf(message, sizeof(message), "env_file %s: larger than 1 MiB", path);
        assert_fails(&draft, -EFBIG, message);
        assert_int_equal(unlink(path), 0);

        files[0] = "-/nowhere/env";
        free(TAKE_PTR(start));
        start = prepare(&draft, NULL);
        files[0] = "/";
        assert_fails(&draft, -EISDIR, "env_file /: Is a directory");
        files[0] = "/dev/null";
        assert_fails(&draft, -EINVAL, "env_file /dev/null: Invalid argument");
}

static void test_path(void **state) {
        static const char *const words[] = { "program", NULL };
        char directory[] = "test-config-XXXXXX", path[64], variable[80], message[256];
        const char *variables[] = { variable, NULL };
        _cleanup_free_ RunnerStart *start = NULL;
        RunnerConfig draft = plain();

        (void) state;
        assert_non_null(mkdtemp(directory));
        (void) snprintf(path, sizeof(path), "%s/program", directory);
        (void) snprintf(variable, sizeof(variable), "PATH=/nowhere:%s", directory);
        draft.command = words;
        draft.env = variables;
        (void) snprintf(message, sizeof(message), "program program: not found in PATH (/nowhere:%s)", directory);
        assert_fails(&draft, -ENOENT, message);
        assert_int_equal(mkdir(path, 0755), 0); /* which is no program */
        assert_fails(&draft, -ENOENT, message);
        assert_int_equal(rmdir(path), 0);
        write_file(path, "x", 1);
        assert_int_equal(chmod(path, 0644), 0);
        assert_fails(&draft, -EACCES, "program program: found in PATH, but not executable");
        assert_int_equal(chmod(path, 0755), 0);
        start = prepare(&draft, NULL);
        assert_string_equal(start->path, path);
        assert_string_equal(start->argv[0], "program");
        assert_int_equal(unlink(path), 0);
        assert_int_equal(rmdir(directory), 0);
}

static void test_unresolved(void **state) {
        ConfigUser user = { .unresolved = "user joe does not exist" };
        RunnerConfig draft = plain();

        (void) state;
        draft.user = &user;
        assert_fails(&draft, -ENOENT, "user joe does not exist");
}

static void test_hook(void **state) {
        static const char *const words[] = { "/bin/echo", "%n", NULL };
        static const char *const extra[] = { "BATON_EVENT=up", NULL };
        ConfigHook hook = { 1, words, 1 };
        RunnerConfig draft = plain();
        _cleanup_free_ RunnerStart *start = NULL;
        char error[CONFIG_ERROR_SIZE];

        (void) state;
        assert_int_equal(runner_config_prepare_hook(&draft, &hook, "web.1", 1, extra, &start, error), 0);
        assert_string_equal(start->path, "/bin/echo");
        assert_string_equal(start->argv[1], "web.1");
        assert_string_equal(value_of(start, "BATON_EVENT"), "up");
}

static int prepare_all(void *argument) {
        ConfigUser user = { .name = "joe" };
        RunnerConfig draft = plain();
        RunnerStart *start = NULL;
        char error[CONFIG_ERROR_SIZE];
        int r;

        (void) argument;
        draft.user = &user;
        draft.env = env;
        r = runner_config_prepare(&draft, "web", 0, NULL, &start, error);
        free(start);
        return r;
}

static void test_prepare_no_memory(void **state) {
        (void) state;
        assert_true(seam_each(SEAM_MALLOC, ENOMEM, prepare_all, NULL, 0) > 0);
        assert_true(seam_each(SEAM_REALLOC, ENOMEM, prepare_all, NULL, 0) > 0);
}

static void is_program(const char *cwd, const char *program, const char *expected) {
        const char *const words[] = { program, "--option", NULL };
        RunnerConfig draft = plain();
        char *path = NULL;
        int r;

        draft.command = words;
        draft.cwd = cwd;
        r = runner_config_program(&draft, "web.3", 3, &path);
        assert_int_equal(r, expected ? 0 : -ENOENT);
        if (expected)
                assert_string_equal(path, expected);
        free(path);
}

static void test_program(void **state) {
        const char *const env_path[] = { "PATH=/nowhere:/proc/self", NULL };
        const char *const words[] = { "exe", NULL };
        RunnerConfig draft = plain();
        char *path = NULL;

        (void) state;
        is_program(NULL, "/srv/%n/web", "/srv/web.3/web");
        is_program("/srv/%i", "/web", "/web");
        is_program("/srv/%i", "./web", "/srv/3/./web");
        is_program(NULL, "bin/web", "bin/web");
        is_program("/srv", "there-is-no-such-program", NULL);
        draft.env = env_path;
        draft.command = words;
        assert_int_equal(runner_config_program(&draft, "web.3", 3, &path), 0);
        assert_string_equal(path, "/proc/self/exe");
        free(path);
}

/* ----------------------------------------------------------------------------------------------------------- calendar */

static void test_time_parse(void **state) {
        static const struct {
                const char *text;
                ConfigTime time;
        } good[] = {
                { "5 4 * * *", { 1 << 5, 1 << 4, 0xfffffffe, 0x1ffe, 0x7f, true, true } },
                { " */20  0-2 1,31 jan-mar sun ", { 0x10000100001, 7, 0x80000002, 0xe, 1, false, false } },
                { "0 0 * * 1-5", { 1, 1, 0xfffffffe, 0x1ffe, 0x3e, true, false } },
                { "0 0 * * 7", { 1, 1, 0xfffffffe, 0x1ffe, 1, true, false } },
                { "0 0 * * Fri-7/2", { 1, 1, 0xfffffffe, 0x1ffe, 0x21, true, false } },
        };
        static const char *const bad[] = {
                "",           "* * * *",        "* * * * * *", "60 * * * *",  "* 24 * * *",  "* * 0 * *",
                "* * * 13 *", "* * * * 8",      "5-3 * * * *", "*/0 * * * *", "5/2 * * * *", "1, * * * *",
                "x * * * *",  "* * * * monday", "@daily",      "-1 * * * *",  "0001 * * * *"
        };
        ConfigTime time;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
                memset(&time, 0, sizeof(time));
                assert_true(config_time_parse(good[i].text, &time));
                assert_int_equal(time.minutes, good[i].time.minutes);
                assert_int_equal(time.hours, good[i].time.hours);
                assert_int_equal(time.days, good[i].time.days);
                assert_int_equal(time.months, good[i].time.months);
                assert_int_equal(time.weekdays, good[i].time.weekdays);
                assert_int_equal(time.any_day, good[i].time.any_day);
                assert_int_equal(time.any_weekday, good[i].time.any_weekday);
        }
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                if (config_time_parse(bad[i], &time))
                        print_message("%s\n", bad[i]);
                assert_false(config_time_parse(bad[i], &time));
        }
}

/* moment() - of local time. */
static uint64_t moment(const char *text) {
        struct tm tm = { .tm_isdst = -1 };

        assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &tm));
        return (uint64_t) mktime(&tm) * USEC_PER_SEC;
}

static void test_time_next(void **state) {
        static const struct {
                const char *at, *zone, *now, *next;
        } cases[] = {
                { "5 4 * * *", "UTC", "2026-11-21 04:04:59", "2026-11-21 04:05:00" },
                { "5 4 * * *", "UTC", "2026-11-21 04:05:00", "2026-11-22 04:05:00" },
                { "*/15 * * * *", "UTC", "2026-12-31 23:50:00", "2027-01-01 00:00:00" },
                { "0 3 * * mon-fri", "UTC", "2026-11-21 00:00:00", "2026-11-23 03:00:00" }, /* from a Saturday */
                { "0 0 13 * fri", "UTC", "2026-11-21 00:00:00", "2026-11-27 00:00:00" },    /* either is enough */
                { "0 0 29 feb *", "UTC", "2026-11-21 00:00:00", "2028-02-29 00:00:00" },
                { "0 0 31 * *", "UTC", "2026-11-21 00:00:00", "2026-12-31 00:00:00" },
                { "30 2 * * *", "Europe/Berlin", "2026-10-25 02:30:00", "2026-10-26 02:30:00" }, /* comes twice */
                { "30 12 * * *", "Europe/Berlin", "2026-10-24 12:30:00", "2026-10-25 12:30:00" },
                { "0 12 * * *", "Asia/Kathmandu", "2026-10-24 11:59:59", "2026-10-24 12:00:00" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                ConfigTime at;
                const ConfigSchedule schedule = { .n_at = 1, .at = &at };

                assert_int_equal(setenv("TZ", cases[i].zone, 1), 0);
                tzset();
                assert_true(config_time_parse(cases[i].at, &at));
                assert_int_equal(config_schedule_next(&schedule, moment(cases[i].now)), moment(cases[i].next));
        }
}

/* A time that summer time skips comes on that day all the same, once. */
static void test_time_skipped(void **state) {
        ConfigTime at;
        const ConfigSchedule schedule = { .n_at = 1, .at = &at };
        uint64_t midnight, next;

        (void) state;
        assert_int_equal(setenv("TZ", "Europe/Berlin", 1), 0);
        tzset();
        assert_true(config_time_parse("30 2 * * *", &at));
        midnight = moment("2026-03-29 00:00:00");
        next = config_schedule_next(&schedule, midnight);
        assert_in_range(next, midnight + 3600 * USEC_PER_SEC, midnight + 3 * 3600 * USEC_PER_SEC);
        assert_int_equal(config_schedule_next(&schedule, next), moment("2026-03-30 02:30:00"));
}

static void test_time_several(void **state) {
        ConfigTime at[2];
        const ConfigSchedule schedule = { .n_at = 2, .at = at };

        (void) state;
        assert_int_equal(setenv("TZ", "UTC", 1), 0);
        tzset();
        assert_true(config_time_parse("0 12 * * *", &at[0]));
        assert_true(config_time_parse("0 6 * * *", &at[1]));
        assert_int_equal(config_schedule_next(&schedule, moment("2026-11-21 05:00:00")),
                         moment("2026-11-21 06:00:00"));
        assert_int_equal(config_schedule_next(&schedule, moment("2026-11-21 06:00:00")),
                         moment("2026-11-21 12:00:00"));
        assert_true(config_time_parse("0 0 30 feb *", &at[0]));
        assert_true(config_time_parse("0 0 31 4,6,9,11 *", &at[1]));
        assert_true(config_schedule_next(&schedule, moment("2026-11-21 06:00:00")) == USEC_INFINITY);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_copy),
                TEST(test_no_memory),
                TEST(test_names),
                TEST(test_success),
                TEST(test_prepare),
                TEST(test_literal),
                TEST(test_env_file),
                TEST(test_path),
                TEST(test_unresolved),
                TEST(test_hook),
                TEST(test_prepare_no_memory),
                TEST(test_program),
                TEST(test_time_parse),
                TEST(test_time_next),
                TEST(test_time_skipped),
                TEST(test_time_several),
        };

        return test_run(tests, ARRAY_SIZE(tests));
}
