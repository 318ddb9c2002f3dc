/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The client's pure parts by tables (command lines, exit codes, look-up of programs, environments, escaping), and the
 * private supervisor with programs in its place that fail in each way a program can.
 */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/exit-code.h"
#include "client/options.h"
#include "client/output.h"
#include "client/private.h"
#include "client/program.h"
#include "common/clock.h"
#include "common/fd.h"
#include "tests/seam.h"

#define MAX_ARGUMENTS 12
#define NAME_63       "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ."

static int count(char **argv) {
        int n = 0;

        while (argv[n])
                n++;
        return n;
}

/* ---- command lines ---- */

static const struct {
        const char *argv[MAX_ARGUMENTS];
        int result;
        const char *error; /* what the line must contain; or, with result 0, METHOD */
} call_lines[] = {
        { { "call", "--exec", "echo", "--", "M" }, 0, "M" },
        { { "call", "--exec", "echo", "--json", "--", "M", "--", "i8:1" }, 0, "M" },
        { { "call", "--json", "--exec", "--", "echo", "--", "u64 f(u64)", "u64:1" }, 0, "u64 f(u64)" },
        { { "call", "--deadline=10ms", "--start-timeout", "1s", "--env", "A=b", "--env=C=", "--exec", "p", "--", "M" },
          0,
          "M" },
        { { "call", "--raw", "--type=a.B", "--exec", "p", "--", "M", "string:x" }, 0, "M" },
        { { "call", "--help" }, OPTIONS_HELP, "" },
        { { "call", "--json", "--help", "--nonsense" }, OPTIONS_HELP, "" },
        { { "call", "web.1", "--", "M", "i8:1" }, 0, "M" },
        { { "call", "--socket=/x", "--json", "web.1", "--", "M" }, 0, "M" },
        { { "call" }, -EINVAL, "a runner's name is missing, or --exec" },
        { { "call", "p", "a", "--", "M" }, -EINVAL, "'a' is too much; a program to be started needs --exec" },
        { { "call", "p", "--json", "--", "M" }, -EINVAL, "options before it: '--json' is too much" },
        { { "call", "p\xff", "--", "M" }, -EINVAL, "a name is not UTF-8" },
        { { "call", "--env=A=1", "p", "--", "M" }, -EINVAL, "go with --exec: 'p' runs already" },
        { { "call", "--name=n", "p", "--", "M" }, -EINVAL, "go with --exec" },
        { { "call", "--start-timeout=1s", "p", "--", "M" }, -EINVAL, "go with --exec" },
        { { "call", "--socket=", "p", "--", "M" }, -EINVAL, "--socket wants a path" },
        { { "call", "--socket=/x", "--exec", "p", "--", "M" }, -EINVAL, "--socket goes with a runner's name" },
        { { "call", "p" }, -EINVAL, "'--' and a method are missing after the name" },
        { { "call", "--exec" }, -EINVAL, "a program is missing" },
        { { "call", "--exec", "--", "--", "M" }, -EINVAL, "a program is missing" },
        { { "call", "--exec", "p", "a" }, -EINVAL, "'--' and a method are missing" },
        { { "call", "--exec", "p", "--" }, -EINVAL, "a method is missing" },
        { { "call", "--exec", "p", "--", "" }, -EINVAL, "1 to 255 bytes" },
        { { "call", "--bogus", "--exec", "p", "--", "M" }, -EINVAL, "unknown option '--bogus'" },
        { { "call", "-x", "--exec", "p", "--", "M" }, -EINVAL, "unknown option '-x'" },
        { { "call", "--deadline" }, -EINVAL, "'--deadline' needs an argument" },
        { { "call", "--json=yes", "--exec", "p", "--", "M" }, -EINVAL, "'--json=yes' takes no argument" },
        { { "call", "--deadline=soon", "--exec", "p", "--", "M" }, -EINVAL, "--deadline wants a duration" },
        { { "call", "--deadline=0", "--exec", "p", "--", "M" }, -EINVAL, "above 0" },
        { { "call", "--start-timeout=-1s", "--exec", "p", "--", "M" }, -EINVAL, "--start-timeout wants" },
        { { "call", "--env=A", "--exec", "p", "--", "M" }, -EINVAL, "--env wants NAME=VALUE" },
        { { "call", "--env==b", "--exec", "p", "--", "M" }, -EINVAL, "--env wants NAME=VALUE" },
        { { "call", "--exec", "p", "--", "M\xff" }, -EINVAL, "a name is not UTF-8" },
        { { "call", "--name=\xff", "--exec", "p", "--", "M" }, -EINVAL, "--name wants 1 to 63 letters" },
        { { "call", "--name=", "--exec", "p", "--", "M" }, -EINVAL, "--name wants" },
        { { "call", "--name=a/b", "--exec", "p", "--", "M" }, -EINVAL, "not 'a/b'" },
        { { "call", "--name=" NAME_63, "--exec", "p", "--", "M" }, 0, "M" },
        { { "call", "--name=" NAME_63 "x", "--exec", "p", "--", "M" }, -EINVAL, "--name wants" },
        { { "call", "--name=aZ09._-@", "--exec", "p", "--", "M" }, 0, "M" },
        { { "call", "--stream", "--metadata=k=v", "--metadata", "k=", "--exec", "p", "--", "M" }, 0, "M" },
        { { "call", "--max-frame=64K", "--exec", "p", "--", "M" }, 0, "M" },
        { { "call", "--max-frame=65535", "--exec", "p", "--", "M" }, -EINVAL, "--max-frame wants a size" },
        { { "call", "--max-frame=4G", "--exec", "p", "--", "M" }, -EINVAL, "--max-frame wants a size" },
        { { "call", "--metadata=k", "--exec", "p", "--", "M" }, -EINVAL, "--metadata wants KEY=VALUE" },
        { { "call", "--metadata==v", "--exec", "p", "--", "M" }, -EINVAL, "--metadata wants KEY=VALUE" },
        { { "call", "--metadata=\xff=v", "--exec", "p", "--", "M" }, -EINVAL, "--metadata wants KEY=VALUE" },
        { { "call", "--metadata=k=v", "--metadata" }, -EINVAL, "needs an argument" },
        { { "call", "--stream", "--exec", "p", "--", "M", "u8:1", "buffer:-" },
          -EINVAL,
          "--stream takes standard input" },
        { { "call", "--type=a.B", "--exec", "p", "--", "M" }, -EINVAL, "--type goes with --raw" },
        { { "call", "--raw", "--exec", "p", "--", "M", "string:a", "string:b" }, -EINVAL, "--raw takes one value" },
};

static void test_call_options(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(call_lines); i++) {
                char **argv = (char **) call_lines[i].argv, error[OPTIONS_ERROR_MAX] = "";
                CallOptions options;

                assert_int_equal(call_options_parse(count(argv), argv, &options, error), call_lines[i].result);
                if (call_lines[i].result == 0)
                        assert_string_equal(options.method, call_lines[i].error);
                else
                        assert_non_null(strstr(error, call_lines[i].error));
                call_options_deinit(&options);
        }
}

static void test_call_options_values(void **state) {
        const char *line[] = { "call", "--json", "--deadline=10ms", "--env=A=1", "--env=B=2", "--name=n", "--exec",
                               "p",    "a",      "--json=",         "--",        "M",         "i8:1",     "--",
                               NULL };
        char **argv = (char **) line, error[OPTIONS_ERROR_MAX];
        CallOptions options;

        (void) state;
        assert_int_equal(call_options_parse(count(argv), argv, &options, error), 0);
        assert_true(options.json);
        assert_false(options.raw);
        assert_int_equal(options.deadline_us, 10000);
        assert_int_equal(options.runner.n_environment, 2);
        assert_string_equal(options.runner.environment[1], "B=2");
        assert_string_equal(options.runner.name, "n");
        assert_string_equal(options.runner.program, "p");
        assert_int_equal(options.runner.n_arguments, 2);
        assert_string_equal(options.runner.arguments[1], "--json=");
        assert_int_equal(options.n_values, 2);
        assert_string_equal(options.values[1], "--");
        call_options_deinit(&options);
}

static const struct {
        const char *argv[MAX_ARGUMENTS];
        int result;
        const char *error; /* or, with result 0, PROGRAM */
        size_t n_arguments;
} run_lines[] = {
        { { "run", "p" }, 0, "p", 0 },
        { { "run", "--", "p", "--", "-x" }, 0, "p", 2 },
        { { "run", "p", "--native" }, 0, "p", 1 },
        { { "run", "--native", "--name=n", "--prefix", "--stop-timeout=1s", "p", "a" }, 0, "p", 1 },
        { { "run", "--help" }, OPTIONS_HELP, "", 0 },
        { { "run" }, -EINVAL, "a program is missing", 0 },
        { { "run", "--" }, -EINVAL, "a program is missing", 0 },
        { { "run", "--stop-timeout=", "p" }, -EINVAL, "--stop-timeout wants", 0 },
        { { "run", "--json", "p" }, -EINVAL, "unknown option '--json'", 0 },
        { { "run", "--name=a b", "p" }, -EINVAL, "--name wants", 0 },
        { { "run", "--name" }, -EINVAL, "'--name' needs an argument", 0 },
};

static void test_run_options(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(run_lines); i++) {
                char **argv = (char **) run_lines[i].argv, error[OPTIONS_ERROR_MAX] = "";
                RunOptions options;

                assert_int_equal(run_options_parse(count(argv), argv, &options, error), run_lines[i].result);
                if (run_lines[i].result == 0) {
                        assert_string_equal(options.runner.program, run_lines[i].error);
                        assert_int_equal(options.runner.n_arguments, run_lines[i].n_arguments);
                } else
                        assert_non_null(strstr(error, run_lines[i].error));
                run_options_deinit(&options);
        }
}

static void test_call_options_metadata(void **state) {
        const char *line[] = { "call", "--metadata=a=1=2", "--metadata=b=\xff", "--stream", "--exec", "p", "--", "M",
                               NULL };
        char **argv = (char **) line, error[OPTIONS_ERROR_MAX];
        CallOptions options;

        (void) state;
        assert_int_equal(call_options_parse(count(argv), argv, &options, error), 0);
        assert_true(options.stream);
        assert_int_equal(options.n_metadata, 2);
        assert_string_equal(options.metadata[0].key, "a");
        assert_string_equal(options.metadata[0].value, "1=2");
        assert_string_equal(options.metadata[1].key, "b");
        assert_string_equal(options.metadata[1].value, "\xff");
        call_options_deinit(&options);
}

/* ---- ping, methods, bench ---- */

static const struct {
        const char *argv[MAX_ARGUMENTS];
        int result;
        const char *error; /* or, with result 0, PROGRAM */
} ping_lines[] = {
        { { "ping", "--exec", "p" }, 0, "p" },
        { { "ping", "--exec", "p", "a", "--" }, 0, "p" },
        { { "ping", "--count=1", "--interval=0", "--deadline=1s", "--json", "--name=n", "--exec", "p", "-x" },
          0,
          "p" },
        { { "ping", "--help" }, OPTIONS_HELP, "" },
        { { "ping" }, -EINVAL, "a runner's name is missing" },
        { { "ping", "p", "q" }, -EINVAL, "'q' is too much" },
        { { "ping", "p", "--", "M" }, -EINVAL, "nothing after '--'" },
        { { "ping", "--exec" }, -EINVAL, "a program is missing" },
        { { "ping", "--exec", "p", "--", "M" }, -EINVAL, "nothing after '--'" },
        { { "ping", "--count=0", "--exec", "p" }, -EINVAL, "--count wants a number" },
        { { "ping", "--count=many", "--exec", "p" }, -EINVAL, "--count wants a number" },
        { { "ping", "--interval=often", "--exec", "p" }, -EINVAL, "--interval wants a duration" },
        { { "ping", "--deadline=0", "--exec", "p" }, -EINVAL, "--deadline wants a duration above 0" },
        { { "ping", "--size=1", "--exec", "p" }, -EINVAL, "unknown option '--size=1'" },
};

static void test_ping_options(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(ping_lines); i++) {
                char **argv = (char **) ping_lines[i].argv, error[OPTIONS_ERROR_MAX] = "";
                PingOptions options;

                assert_int_equal(ping_options_parse(count(argv), argv, &options, error), ping_lines[i].result);
                if (ping_lines[i].result == 0)
                        assert_string_equal(options.runner.program, ping_lines[i].error);
                else
                        assert_non_null(strstr(error, ping_lines[i].error));
                ping_options_deinit(&options);
        }
}

static void test_methods_options(void **state) {
        const char *good[] = { "methods", "--json", "--exec", "p", "a", NULL };
        const char *bad[] = { "methods", "--exec", "p", "--", "M", NULL };
        const char *named[] = { "methods", "--socket=/x", "p", NULL };
        char error[OPTIONS_ERROR_MAX];
        MethodsOptions options;

        (void) state;
        assert_int_equal(methods_options_parse(count((char **) good), (char **) good, &options, error), 0);
        assert_true(options.json);
        assert_int_equal(options.runner.n_arguments, 1);
        methods_options_deinit(&options);
        assert_int_equal(methods_options_parse(count((char **) bad), (char **) bad, &options, error), -EINVAL);
        methods_options_deinit(&options);
        assert_int_equal(methods_options_parse(count((char **) named), (char **) named, &options, error), 0);
        assert_string_equal(options.runner.target, "p");
        assert_string_equal(options.runner.socket, "/x");
        methods_options_deinit(&options);
}

static const struct {
        const char *argv[MAX_ARGUMENTS];
        int result;
        const char *error; /* or, with result 0, METHOD */
} bench_lines[] = {
        { { "bench", "--exec", "p" }, 0, "echo.Echo/Unary" },
        { { "bench", "--exec", "p", "--" }, 0, "echo.Echo/Unary" },
        { { "bench", "--exec", "p", "a", "--", "M" }, 0, "M" },
        { { "bench", "--size=0,1K,64M", "--in-flight=1,4096", "--duration=100ms", "--json", "--exec", "p" },
          0,
          "echo.Echo/Unary" },
        { { "bench", "--exec", "p", "--", "M", "N" }, -EINVAL, "one method at a time" },
        { { "bench", "--exec", "p", "--", "" }, -EINVAL, "1 to 255 bytes" },
        { { "bench", "p" }, 0, "echo.Echo/Unary" },
        { { "bench", "--socket=/x", "p", "--", "M" }, 0, "M" },
        { { "bench", "p", "--", "M", "N" }, -EINVAL, "one method at a time" },
        { { "bench", "--size=", "--exec", "p" }, -EINVAL, "--size wants" },
        { { "bench", "--size=1,", "--exec", "p" }, -EINVAL, "--size wants" },
        { { "bench", "--size=65M", "--exec", "p" }, -EINVAL, "--size wants" },
        { { "bench", "--size=1,2,3,4,5,6,7,8,9", "--exec", "p" }, -EINVAL, "at most 8" },
        { { "bench", "--in-flight=0", "--exec", "p" }, -EINVAL, "--in-flight wants" },
        { { "bench", "--in-flight=1,4097", "--exec", "p" }, -EINVAL, "--in-flight wants" },
        { { "bench", "--duration=0", "--exec", "p" }, -EINVAL, "--duration wants" },
};

static void test_bench_options(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(bench_lines); i++) {
                char **argv = (char **) bench_lines[i].argv, error[OPTIONS_ERROR_MAX] = "";
                BenchOptions options;

                assert_int_equal(bench_options_parse(count(argv), argv, &options, error), bench_lines[i].result);
                if (bench_lines[i].result == 0)
                        assert_string_equal(options.method, bench_lines[i].error);
                else
                        assert_non_null(strstr(error, bench_lines[i].error));
                bench_options_deinit(&options);
        }
}

static void test_bench_lists(void **state) {
        const char *line[] = { "bench", "--size=0,1K,64M", "--in-flight=2", "--exec", "p", NULL };
        char error[OPTIONS_ERROR_MAX];
        BenchOptions options;

        (void) state;
        assert_int_equal(bench_options_parse(count((char **) line), (char **) line, &options, error), 0);
        assert_int_equal(options.sizes.n, 3);
        assert_int_equal(options.sizes.values[0], 0);
        assert_int_equal(options.sizes.values[1], 1024);
        assert_int_equal(options.sizes.values[2], 64 * 1024 * 1024);
        assert_int_equal(options.in_flight.n, 1);
        assert_int_equal(options.in_flight.values[0], 2);
        bench_options_deinit(&options);
}

/* ---- exit codes ---- */

static void test_exit_code_of_failure(void **state) {
        static const int codes[] = { 30, 40, 41, 42, 43, 44, 30, 30 };
        ControlFailure failure = { 0 };

        (void) state;
        for (int status = 0; status < _STATUS_N; status++) {
                failure.status = (Status) status;
                assert_int_equal(exit_code_of_failure(&failure), 16 + status);
        }
        failure.status = STATUS_UNAVAILABLE;
        /* The last is a reason that this version does not know. */
        for (size_t reason = 0; reason < ARRAY_SIZE(codes); reason++) {
                ControlStartFailure start = BATON__CONTROL__START_FAILURE__INIT;

                memcpy(&start.reason, &(int){ (int) reason }, sizeof(int));
                failure.start = &start;
                assert_int_equal(exit_code_of_failure(&failure), codes[reason]);
                assert_true(*start_reason_name((int) reason) && *start_reason_describe((int) reason));
        }
}

static const struct {
        Baton__Control__Exit__How how;
        int status, code;
        const char *text, *name;
} exits[] = {
        { BATON__CONTROL__EXIT__HOW__EXITED, 0, 0, "exited with status 0", "exited" },
        { BATON__CONTROL__EXIT__HOW__EXITED, 255, 255, "exited with status 255", "exited" },
        { BATON__CONTROL__EXIT__HOW__SIGNALED, SIGTERM, 143, "killed by signal 15 (SIGTERM)", "signaled" },
        { BATON__CONTROL__EXIT__HOW__DUMPED, SIGSEGV, 139, "killed by signal 11 (SIGSEGV), core dumped", "dumped" },
        { BATON__CONTROL__EXIT__HOW__SIGNALED, 120, 248, "killed by signal 120", "signaled" },
        { BATON__CONTROL__EXIT__HOW__UNKNOWN, 0, 1, "gone, nobody saw how", "unknown" },
};

static void test_exit_code_of_runner(void **state) {
        char text[EXIT_TEXT_MAX];

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(exits); i++) {
                ControlExit how = BATON__CONTROL__EXIT__INIT;

                how.how = exits[i].how;
                how.status = exits[i].status;
                assert_int_equal(exit_code_of_runner(&how), exits[i].code);
                exit_describe(&how, text);
                assert_string_equal(text, exits[i].text);
                assert_string_equal(exit_how_name((int) how.how), exits[i].name);
        }
        assert_int_equal(exit_code_of_runner(NULL), 1);
        assert_string_equal(exit_how_name(77), "unknown");
        assert_string_equal(start_reason_name(-1), "unknown");
}

/* ---- programs ---- */

typedef struct Tree {
        char root[64], one[96], two[96];
} Tree;

static void make_file(const char *directory, const char *name, mode_t mode) {
        char path[160];
        int fd;

        (void) snprintf(path, sizeof(path), "%s/%s", directory, name);
        fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, mode);
        assert_true(fd >= 0);
        (void) fd_close(fd);
}

static void remove_file(const char *directory, const char *name) {
        char path[160];

        (void) snprintf(path, sizeof(path), "%s/%s", directory, name);
        assert_int_equal(remove(path), 0);
}

static void tree_make(Tree *tree) {
        const char *base = getenv("TMPDIR");

        (void) snprintf(tree->root, sizeof(tree->root), "%.40s/programs-XXXXXX", base ? base : "/tmp");
        assert_non_null(mkdtemp(tree->root));
        (void) snprintf(tree->one, sizeof(tree->one), "%s/one", tree->root);
        (void) snprintf(tree->two, sizeof(tree->two), "%s/two", tree->root);
        assert_int_equal(mkdir(tree->one, 0700), 0);
        assert_int_equal(mkdir(tree->two, 0700), 0);
        make_file(tree->one, "plain", 0600);
        make_file(tree->two, "plain", 0700);
        make_file(tree->one, "text", 0600);
        make_file(tree->two, "own", 0700);
}

static void tree_remove(const Tree *tree) {
        remove_file(tree->one, "plain");
        remove_file(tree->two, "plain");
        remove_file(tree->one, "text");
        remove_file(tree->two, "own");
        remove_file(tree->root, "one");
        remove_file(tree->root, "two");
        assert_int_equal(rmdir(tree->root), 0);
}

static void check_find(const char *program, const char *path, const char *beside, int result, const char *directory,
                       const char *name) {
        _cleanup_free_ char *found = NULL;
        char expected[160];

        assert_int_equal(program_find(program, path, beside, "/work", &found), result);
        if (result < 0) {
                assert_null(found);
                return;
        }
        (void) snprintf(expected, sizeof(expected), "%s/%s", directory, name);
        assert_string_equal(found, expected);
}

static void test_program_find(void **state) {
        char path[256], empty_first[256];
        Tree tree;

        (void) state;
        tree_make(&tree);
        (void) snprintf(path, sizeof(path), "/nonexistent:%s:%s", tree.one, tree.two);
        (void) snprintf(empty_first, sizeof(empty_first), ":%s", tree.two);

        check_find("plain", path, NULL, 0, tree.two, "plain");
        check_find("plain", empty_first, NULL, 0, tree.two, "plain");
        check_find("text", path, NULL, -EACCES, NULL, NULL);
        check_find("nothing", path, NULL, -ENOENT, NULL, NULL);
        check_find("own", tree.one, tree.two, 0, tree.two, "own");
        check_find("own", tree.one, NULL, -ENOENT, NULL, NULL);
        check_find("text", tree.one, tree.two, -EACCES, NULL, NULL);
        check_find("", path, NULL, -ENOENT, NULL, NULL);
        check_find("one", tree.root, NULL, -EACCES, NULL, NULL);
        check_find("./sub/p", NULL, NULL, 0, "/work", "sub/p");
        check_find("../p", NULL, NULL, 0, "/work", "../p");
        check_find("/bin/true", NULL, NULL, 0, "/bin", "true");
        check_find("sh", NULL, NULL, 0, "/usr/bin", "sh");
        tree_remove(&tree);
}

static void test_program_directory(void **state) {
        _cleanup_free_ char *directory = NULL;
        struct stat st;

        (void) state;
        assert_int_equal(program_directory(&directory), 0);
        assert_int_equal(directory[0], '/');
        assert_int_equal(stat(directory, &st), 0);
        assert_true(S_ISDIR(st.st_mode));
}

static void test_environment_merge(void **state) {
        const char *base[] = { "A=1", "AB=2", "C", NULL };
        const char *changes[] = { "AB=3", "D=4", "D=5", "A=" };
        static const char *const expected[] = { "A=", "AB=3", "C", "D=5" };
        _cleanup_free_ char **environment = NULL;
        size_t n;

        (void) state;
        assert_int_equal(environment_merge((char **) base, (char **) changes, ARRAY_SIZE(changes), &environment, &n),
                         0);
        assert_int_equal(n, ARRAY_SIZE(expected));
        for (size_t i = 0; i < n; i++)
                assert_string_equal(environment[i], expected[i]);
        assert_null(environment[n]);
}

/* ---- output ---- */

static const struct {
        const char *text, *written;
} texts[] = {
        { "", "" },
        { "plain\tand\nlines", "plain\tand\nlines" },
        { "\033[31mred\r\007\177", "\\x1b[31mred\\x0d\\x07\\x7f" },
        { "gr\303\274n \342\202\254 \360\237\231\202", "gr\303\274n \342\202\254 \360\237\231\202" },
        { "\302\233m", "\\xc2\\x9bm" },
        { "\303", "\\xc3" },
        { "\303x\377\355\240\200", "\\xc3x\\xff\\xed\\xa0\\x80" },
};

static void test_output_text(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                char *written = NULL;
                size_t size;
                FILE *file = open_memstream(&written, &size);

                assert_non_null(file);
                assert_int_equal(output_text(file, texts[i].text, strlen(texts[i].text)), 0);
                assert_int_equal(fclose(file), 0);
                assert_string_equal(written, texts[i].written);
                free(written);
        }
}

static void test_output_full(void **state) {
        FILE *file = fopen("/dev/full", "we");

        (void) state;
        assert_non_null(file);
        assert_int_equal(output_bytes(file, "x", 1), 0);
        assert_int_equal(output_flush(file), -ENOSPC);
        (void) fclose(file);
}

/* ---- the private supervisor ---- */

typedef struct Seen {
        bool ended;
} Seen;

static void on_ended(Peer *peer, Status status, const char *reason) {
        Seen *seen = peer_userdata(peer);

        (void) status;
        (void) reason;
        seen->ended = true;
}

/* A failed start tells the handler nothing: its userdata may be NULL. */
static const PeerHandler handler = { .ended = on_ended };

static void test_private_no_program(void **state) {
        _cleanup_(endpoint_freep) Endpoint *endpoint = NULL;
        PrivateConfig config = { .program = "/nonexistent/baton", .handler = &handler };
        Private *private = NULL;

        (void) state;
        assert_int_equal(endpoint_new(&endpoint), 0);
        assert_int_equal(private_start(&private, endpoint, &config), -ENOENT);
        assert_null(private);
}

/* A program that ends at once: ended() says so, and nothing is left to reap. */
static void test_private_ends_at_once(void **state) {
        _cleanup_(endpoint_freep) Endpoint *endpoint = NULL;
        Seen seen = { false };
        PrivateConfig config = { .program = "/bin/false", .handler = &handler, .userdata = &seen };
        _cleanup_(private_freep) Private *private = NULL;

        (void) state;
        assert_int_equal(endpoint_new(&endpoint), 0);
        assert_int_equal(private_start(&private, endpoint, &config), 0);
        while (!seen.ended)
                assert_int_equal(endpoint_dispatch(endpoint, -1), 0);
        assert_int_equal(private_stop(private, USEC_PER_SEC), 0);
        assert_int_equal(private_fd(private), -1);
        assert_null(private_peer(private));
        assert_int_equal(private_stop(private, USEC_PER_SEC), 0);
}

/* Started as `supervise' this very program waits for ever: see main(). */

/* One that does not look at its lane: it is killed after the time-out. */
static void test_private_hangs(void **state) {
        _cleanup_(endpoint_freep) Endpoint *endpoint = NULL;
        Seen seen = { false };
        PrivateConfig config = { .program = "/proc/self/exe", .handler = &handler, .userdata = &seen };
        _cleanup_(private_freep) Private *private = NULL;

        (void) state;
        assert_int_equal(endpoint_new(&endpoint), 0);
        assert_int_equal(private_start(&private, endpoint, &config), 0);
        assert_int_equal(private_stop(private, 10 * USEC_PER_MSEC), -ETIMEDOUT);
}

/* A host that ignores SIGCHLD has no child to reap; its disposition is left alone. */
static void test_private_host_ignores_children(void **state) {
        _cleanup_(endpoint_freep) Endpoint *endpoint = NULL;
        Seen seen = { false };
        PrivateConfig config = { .program = "/proc/self/exe", .handler = &handler, .userdata = &seen };
        struct sigaction ignore = { .sa_handler = SIG_IGN }, before, after;
        Private *private = NULL;

        (void) state;
        assert_int_equal(sigaction(SIGCHLD, &ignore, &before), 0);
        assert_int_equal(endpoint_new(&endpoint), 0);
        assert_int_equal(private_start(&private, endpoint, &config), 0);
        private_kill(private);
        assert_int_equal(private_stop(private, 5 * USEC_PER_SEC), 0);
        private = private_free(private);
        assert_int_equal(sigaction(SIGCHLD, &before, &after), 0);
        assert_ptr_equal(after.sa_handler, SIG_IGN);
}

static int start_and_stop(void *argument) {
        _cleanup_(endpoint_freep) Endpoint *endpoint = NULL;
        Seen seen = { false };
        PrivateConfig config = { .program = "/bin/true", .handler = &handler, .userdata = &seen };
        Private *private = NULL;
        int r;

        (void) argument;
        r = endpoint_new(&endpoint);
        if (r == 0)
                r = private_start(&private, endpoint, &config);
        if (r == 0)
                r = private_stop(private, 5 * USEC_PER_SEC);
        (void) private_free(private);
        return r;
}

static void test_private_failures(void **state) {
        (void) state;
        assert_int_not_equal(seam_each(SEAM_SOCKETPAIR, EMFILE, start_and_stop, NULL, 0), 0);
        assert_int_not_equal(seam_each(SEAM_CALLOC, ENOMEM, start_and_stop, NULL, 0), 0);
        assert_int_not_equal(seam_each(SEAM_EPOLL_CREATE1, EMFILE, start_and_stop, NULL, 0), 0);
}

static const struct CMUnitTest tests[] = {
        TEST(test_call_options),
        TEST(test_call_options_values),
        TEST(test_call_options_metadata),
        TEST(test_ping_options),
        TEST(test_methods_options),
        TEST(test_bench_options),
        TEST(test_bench_lists),
        TEST(test_run_options),
        TEST(test_exit_code_of_failure),
        TEST(test_exit_code_of_runner),
        TEST(test_program_find),
        TEST(test_program_directory),
        TEST(test_environment_merge),
        TEST(test_output_text),
        TEST(test_output_full),
        TEST(test_private_no_program),
        TEST(test_private_ends_at_once),
        TEST(test_private_hangs),
        TEST(test_private_host_ignores_children),
        TEST(test_private_failures),
};

int main(int argc, char **argv) {
        if (argc > 1 && strcmp(argv[1], "supervise") == 0)
                while (true)
                        (void) pause();
        return test_run(tests, ARRAY_SIZE(tests));
}
