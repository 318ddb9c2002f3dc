/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton-runner-module: a runner that calls the exported C functions of any shared library. A library that crashes, aborts
 * or exits takes this process with it and nothing else; that is what it is for.
 *
 * The method of a call is the function's signature as text, `u64 crc32(u64, buffer, u32)`, so no method is registered:
 * every call comes to the default handler. The payload is baton.Values, one per parameter, and so is the answer: the
 * result, then each buffer out. A bare function name is refused for now; describe() is where descriptions of functions
 * that lie beside a library will be looked up.
 *
 * A function runs on the loop's thread: while it does, nothing else is served, and it cannot be interrupted but by
 * killing the process. Libraries are loaded before we connect, so that one that cannot be is a failed start whose last
 * output says why. Functions with a variable number of arguments, structures by value and callbacks cannot be called.
 */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "baton/runner.h"
#include "common/log.h"
#include "common/macro.h"
#include "common/parse.h"
#include "common/version.h"
#include "proto/status.h"
#include "proto/values.h"
#include "runner/invoke.h"
#include "runner/library.h"
#include "runner/signature.h"

#define PROGRAM         "baton-runner-module"
#define MAX_OUT_DEFAULT (UINT64_C(64) << 20)

enum {
        EXIT_USAGE = 2,
        ERROR_MAX = MAX((int) VALUES_ERROR_MAX, MAX((int) LIBRARY_ERROR_MAX, (int) SIGNATURE_ERROR_MAX)),
};

typedef struct Module {
        Library *libraries;
        size_t n_libraries;
        uint64_t max_out;
        const char *bootstrap; /* NULL: $BATON_BOOTSTRAP */
} Module;

static const char help[] =
        "Usage: " PROGRAM " [OPTION...] LIBRARY...\n"
        "\n"
        "A runner that calls the C functions a shared library exports. baton starts it:\n"
        "\n"
        "  baton call --exec " PROGRAM " libz.so.1 -- \\\n"
        "      'u64 crc32(u64, buffer, u32)' u64:0 buffer:@FILE u32:SIZE\n"
        "  baton call --exec " PROGRAM " libm.so.6 -- 'f64 sqrt(f64)' f64:2\n"
        "  baton call --exec " PROGRAM " libc.so.6 -- 'i32 gethostname(out, u64)' out:64 u64:64\n"
        "\n"
        "LIBRARY is a path, or a name without a slash that the dynamic linker finds; of several, the first that\n"
        "exports the function is used. The method of a call is the function's signature: RESULT NAME(TYPE, ...)\n"
        "with RESULT void, i8..i64, u8..u64, f32, f64 or string, and TYPE the same but for void, or buffer (a\n"
        "pointer to bytes in) or out (a pointer to a buffer, which is answered after the result).\n"
        "\n"
        "  --max-out=SIZE   all buffers out of one call together, at most (64M); suffix K, M or G\n"
        "  --uds-path=PATH  the supervisor's socket, instead of $BATON_BOOTSTRAP\n"
        "  -h, --help       show this\n"
        "  --version        show the version\n";

/* describe() - the signature that a call's method stands for. 0, -EINVAL or -EOPNOTSUPP, with the reason in @error. */
static int describe(const char *method, Signature *ret_signature, char *error) {
        char reason[SIGNATURE_ERROR_MAX];
        int r;

        if (strchr(method, '/')) {
                (void) snprintf(error, ERROR_MAX,
                                "no method %s here: a module's methods are signatures of C functions", method);
                return -EOPNOTSUPP;
        }
        if (signature_is_name(method)) {
                (void) snprintf(error, ERROR_MAX,
                                "the signature of %s is not known: give it whole, as in 'f64 sqrt(f64)'", method);
                return -EINVAL;
        }
        r = signature_parse(method, ret_signature, reason);
        if (r < 0)
                (void) snprintf(error, ERROR_MAX, "signature '%s': %s", method, reason);
        return r;
}

/* find() - the function @name of the first library that exports it; on failure the last library's reason, or all names. */
static int find(const Module *module, const char *name, InvokeFn *ret_function, char *error) {
        size_t length;
        int r = -ENOENT;

        for (size_t i = 0; i < module->n_libraries; i++) {
                r = library_find(&module->libraries[i], name, ret_function, error);
                if (r != -ENOENT)
                        return r;
        }
        if (module->n_libraries == 1)
                return r;
        length = (size_t) snprintf(error, ERROR_MAX, "no function %s is exported by", name);
        for (size_t i = 0; i < module->n_libraries && length < ERROR_MAX; i++)
                length += (size_t) snprintf(error + length, ERROR_MAX - length, "%s %s", i > 0 ? "," : "",
                                            module->libraries[i].path);
        return r;
}

/* unpack() - the arguments of @call; no payload at all is none. */
static int unpack(struct baton_call *call, Baton__Values **ret_arguments, char *error) {
        const char *type = baton_call_type(call);
        char reason[VALUES_ERROR_MAX];
        const void *data;
        size_t size;
        int r;

        data = baton_call_data(call, &size);
        if (size > 0 && strcmp(type, VALUES_TYPE) != 0) {
                (void) snprintf(error, ERROR_MAX, "arguments of type '%.100s': expected " VALUES_TYPE, type);
                return -EINVAL;
        }
        r = values_unpack(data, size, ret_arguments, reason);
        if (r < 0)
                (void) snprintf(error, ERROR_MAX, "arguments: %.400s", reason);
        return r == -ENOMEM ? r : r < 0 ? -EINVAL : 0;
}

/* serve() - the whole of a call but its answer. */
static int serve(const Module *module, struct baton_call *call, Baton__Values **ret_results, char *error) {
        _cleanup_(values_freep) Baton__Values *arguments = NULL;
        Signature signature;
        InvokeFn function;
        int r;

        r = describe(baton_call_method(call), &signature, error);
        if (r == 0)
                r = find(module, signature.name, &function, error);
        if (r == 0)
                r = unpack(call, &arguments, error);
        if (r == 0)
                r = invoke(function, &signature, arguments, module->max_out, ret_results, error);
        return r;
}

static void on_call(struct baton_call *call, void *userdata) {
        _cleanup_(values_freep) Baton__Values *results = NULL;
        _cleanup_free_ uint8_t *data = NULL;
        char error[ERROR_MAX] = "no memory for the results";
        size_t size;
        int r;

        r = serve(userdata, call, &results, error);
        if (r == 0)
                r = values_pack(results, &data, &size);
        if (r < 0)
                (void) baton_call_fail(call, (enum baton_status) status_from_errno(r), "%s", error);
        else
                (void) baton_call_answer(call, VALUES_TYPE, data, size);
}

static int load(Module *module, char *const *paths, size_t n) {
        char error[LIBRARY_ERROR_MAX];

        module->libraries = calloc(n, sizeof(*module->libraries));
        if (!module->libraries)
                return -ENOMEM;
        for (; module->n_libraries < n; module->n_libraries++) {
                const char *path = paths[module->n_libraries];
                int r = library_open(&module->libraries[module->n_libraries], path, error);

                if (r < 0) {
                        log_error("cannot load library %s: %s", path, error);
                        return r;
                }
        }
        return 0;
}

static int serve_calls(Module *module) {
        char software[64];
        struct baton_runner_options options = {
                .size = sizeof(options),
                .software = software,
                .bootstrap = module->bootstrap,
        };
        struct baton_runner *runner = NULL;
        int r;

        (void) snprintf(software, sizeof(software), PROGRAM " %s", version_release());
        r = baton_runner_new(&runner, &options);
        if (r < 0)
                return r;
        baton_runner_set_default(runner, on_call, module);
        r = baton_runner_run(runner);
        if (r < 0)
                log_error("%s", baton_runner_reason(runner));
        baton_runner_free(runner);
        return r;
}

static int show(const char *text) {
        return fputs(text, stdout) < 0 || fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* parse_options() - -1: go on; else the program's exit status. */
static int parse_options(int argc, char **argv, Module *module) {
        enum { OPTION_MAX_OUT = 256, OPTION_UDS_PATH, OPTION_VERSION };
        static const struct option options[] = {
                { "max-out", required_argument, NULL, OPTION_MAX_OUT },
                { "uds-path", required_argument, NULL, OPTION_UDS_PATH },
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, OPTION_VERSION },
                {},
        };
        char version[128];
        int option;

        while ((option = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
                switch (option) {
                case OPTION_MAX_OUT:
                        if (parse_size(optarg, SIZE_MAX / 2, &module->max_out) == 0)
                                break;
                        log_error("--max-out %s: not a size in bytes (a suffix K, M or G is allowed)", optarg);
                        return EXIT_USAGE;
                case OPTION_UDS_PATH:
                        module->bootstrap = optarg;
                        break;
                case OPTION_VERSION:
                        (void) snprintf(version, sizeof(version), PROGRAM " %s (%s)\n", version_release(),
                                        version_commit());
                        return show(version);
                case 'h':
                        return show(help);
                default:
                        return EXIT_USAGE; /* getopt has said why */
                }
        }
        if (optind < argc)
                return -1;
        log_error("no LIBRARY given; see " PROGRAM " --help");
        return EXIT_USAGE;
}

int main(int argc, char **argv) {
        Module module = { .max_out = MAX_OUT_DEFAULT };
        int r;

        log_open(PROGRAM);
        r = parse_options(argc, argv, &module);
        if (r >= 0)
                return r;
        /* What a library prints reaches the log line by line, and is there when it crashes. */
        (void) setvbuf(stdout, NULL, _IOLBF, 0);
        r = load(&module, argv + optind, (size_t) (argc - optind));
        if (r == 0)
                r = serve_calls(&module);
        free(module.libraries);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
