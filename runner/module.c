/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton-runner-module: a runner that calls the exported C functions of any shared library. A library that crashes, aborts
 * or exits takes this process with it and nothing else; that is what it is for.
 *
 * The method of a call is a function's signature as text, `u64 crc32(u64, buffer, u32)`, or, where the library is
 * described (docs/modules.md), its name: every call comes to on_call(), and catalog.c knows what it stands for.
 * The payload is baton.Values, one per parameter, and so is the answer: the result, then each buffer out.
 *
 * A function runs on the loop's thread: while it does, nothing else is served, and it cannot be interrupted but by
 * killing the process. Libraries are loaded and descriptions read before we connect, so that one that cannot be is a
 * failed start whose last output says why. Functions with a variable number of arguments, structures by value and
 * callbacks cannot be called.
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
#include "runner/catalog.h"
#include "runner/invoke.h"

#define PROGRAM         "baton-runner-module"
#define MAX_OUT_DEFAULT (UINT64_C(64) << 20)

enum {
        EXIT_USAGE = 2,
        ERROR_MAX = MAX((int) VALUES_ERROR_MAX, (int) CATALOG_ERROR_MAX),
};

typedef struct Module {
        Catalog catalog;
        uint64_t max_out;
        const char *description;             /* its file; NULL: where descriptions lie */
        struct baton_runner_options options; /* for libbaton */
        char software[64];
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
        "A description, LIBRARY.baton, lists signatures, one a line. Where there is one, the name alone is enough,\n"
        "another signature is refused, and so are functions that it does not have. It is looked for beside the\n"
        "library, in the directories of $BATON_MODULE_PATH, and in " BATON_MODULEDIR ".\n"
        "\n"
        "  --describe=FILE  the description of the one LIBRARY; no other is looked for\n"
        "  --open           functions that are not described can be called, too\n"
        "  --max-out=SIZE   all buffers out of one call together, at most (64M); suffix K, M or G\n"
        "  --uds-path=PATH  the supervisor's socket, instead of $BATON_BOOTSTRAP\n"
        "  -h, --help       show this\n"
        "  --version        show the version\n";

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

        r = catalog_resolve(&module->catalog, baton_call_method(call), &signature, &function, error);
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

/* load() - $BATON_MODULE_PATH does not count for a program that runs with more rights than who started it. */
static int load(Module *module, char *const *names, size_t n) {
        DescriptionPlaces places = { .path = secure_getenv("BATON_MODULE_PATH"), .installed = BATON_MODULEDIR };
        char error[CATALOG_LOAD_ERROR_MAX];
        int r = catalog_load(&module->catalog, names, n, module->description, &places, error);

        if (r < 0)
                log_error("%s", error);
        return r;
}

/*
 * add_methods() - the described functions of @entry that its library exports are methods by their names: a call of one
 * comes to on_call() anyway, but so it is listed. 0 or -ENOMEM.
 */
static int add_methods(Module *module, struct baton_runner *runner, const CatalogEntry *entry) {
        const Description *description = entry->description;
        char reason[LIBRARY_ERROR_MAX];
        InvokeFn function;

        for (size_t i = 0; description && i < description->n_functions; i++) {
                const char *name = description->functions[i].signature.name;
                int r;

                if (library_find(&entry->library, name, &function, reason) < 0)
                        continue;
                r = baton_runner_add_method(runner, name, on_call, module);
                if (r == 0)
                        r = baton_runner_describe_method(runner, name, VALUES_TYPE, VALUES_TYPE, 0);
                if (r < 0 && r != -EEXIST) /* an earlier library's */
                        return r;
        }
        return 0;
}

static int serve_calls(Module *module) {
        struct baton_runner *runner = NULL;
        int r;

        (void) snprintf(module->software, sizeof(module->software), PROGRAM " %s", version_release());
        module->options.software = module->software;
        r = baton_runner_new(&runner, &module->options);
        if (r < 0)
                return r;
        baton_runner_set_default(runner, on_call, module);
        for (size_t i = 0; r == 0 && i < module->catalog.n_entries; i++)
                r = add_methods(module, runner, &module->catalog.entries[i]);
        if (r < 0) {
                log_error("cannot list the described functions: %s", strerror(-r));
        } else {
                r = baton_runner_run(runner);
                if (r < 0)
                        log_error("%s", baton_runner_reason(runner));
        }
        baton_runner_free(runner);
        return r;
}

static int show(const char *text) {
        return fputs(text, stdout) < 0 || fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int show_version(void) {
        char version[128];

        (void) snprintf(version, sizeof(version), PROGRAM " %s (%s)\n", version_release(), version_commit());
        return show(version);
}

/* check_libraries() - as parse_options(), of what follows the options. */
static int check_libraries(int n, const Module *module) {
        if (n == 0)
                log_error("no LIBRARY given; see " PROGRAM " --help");
        else if (n > 1 && module->description)
                log_error("--describe goes with one LIBRARY; for several put their descriptions beside them");
        else
                return -1;
        return EXIT_USAGE;
}

/* parse_options() - what is not for libbaton. -1: go on; else the program's exit status. */
static int parse_options(int argc, char **argv, Module *module) {
        enum { OPTION_DESCRIBE = 256, OPTION_OPEN, OPTION_MAX_OUT, OPTION_VERSION };
        static const struct option options[] = {
                { "describe", required_argument, NULL, OPTION_DESCRIBE }, { "open", no_argument, NULL, OPTION_OPEN },
                { "max-out", required_argument, NULL, OPTION_MAX_OUT },   { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, OPTION_VERSION },         {},
        };
        int option;

        while ((option = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
                switch (option) {
                case OPTION_DESCRIBE:
                        module->description = optarg;
                        break;
                case OPTION_OPEN:
                        module->catalog.is_open = true;
                        break;
                case OPTION_MAX_OUT:
                        if (parse_size(optarg, SIZE_MAX / 2, &module->max_out) == 0)
                                break;
                        log_error("--max-out %s: not a size in bytes (a suffix K, M or G is allowed)", optarg);
                        return EXIT_USAGE;
                case OPTION_VERSION:
                        return show_version();
                case 'h':
                        return show(help);
                default:
                        return EXIT_USAGE; /* getopt has said why */
                }
        }
        return check_libraries(argc - optind, module);
}

int main(int argc, char **argv) {
        Module module = { .max_out = MAX_OUT_DEFAULT, .options = { .size = sizeof(module.options) } };
        int r;

        log_open(PROGRAM);
        if (baton_runner_options_from_arguments(&module.options, &argc, argv) < 0)
                return EXIT_USAGE;
        r = parse_options(argc, argv, &module);
        if (r >= 0)
                return r;
        /* What a library prints reaches the log line by line, and is there when it crashes. */
        (void) setvbuf(stdout, NULL, _IOLBF, 0);
        r = load(&module, argv + optind, (size_t) (argc - optind));
        if (r == 0)
                r = serve_calls(&module);
        catalog_deinit(&module.catalog);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
