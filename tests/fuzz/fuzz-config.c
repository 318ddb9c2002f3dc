/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes configurations: as the text of a file, and, where the input begins with a byte 1, as a packed source. What is
 * accepted can be found by its names, is the same as itself, and the same again when its source was packed; what is
 * refused has at least one line, and no line has a control character in it.
 */

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/memfd.h"
#include "supervisor/config-internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

static void check_errors(const ConfigErrors *errors) {
        CHECK(errors->n > 0 && errors->n_kept > 0 && errors->n_kept <= errors->n);
        for (size_t i = 0; i < errors->n_kept; i++) {
                char *line = config_error_line(&errors->errors[i]);

                CHECK(line && *line);
                for (const char *p = line; *p; p++)
                        CHECK((unsigned char) *p >= 0x20 && *p != 0x7f);
                free(line);
        }
}

static void check_runner(const Config *config, RunnerConfig *runner) {
        char error[CONFIG_ERROR_SIZE] = "", name[CONFIG_NAME_MAX + 1];
        RunnerStart *start = NULL;

        CHECK(config_find(config, runner->name) == runner);
        CHECK(runner->command && *runner->command && **runner->command);
        CHECK(strlen(runner_config_instance_name(runner, CONFIG_INSTANCES_MAX, name)) <= CONFIG_NAME_MAX);
        for (const char *const *after = runner->after; after && *after; after++)
                CHECK(config_find(config, *after));
        for (const char *const *requires = runner->requires; requires && *requires; requires ++)
                CHECK(config_find(config, *requires));
        if (runner->env_file) /* whatever it names is not to be opened here */
                return;
        if (runner_config_prepare(runner, name, 1, NULL, &start, error) == 0)
                CHECK(start->path && start->argv[0]);
        else
                CHECK(*error);
        free(start);
}

static void check_same(const Config *one, const Config *other) {
        ConfigDifference difference;

        CHECK(config_compare(one, other, &difference) == 0);
        CHECK(config_difference_is_empty(&difference) && difference.n_same == one->n_runners);
        config_difference_deinit(&difference);
}

static void check_packed(const ConfigSource *source, const Config *config) {
        ConfigErrors errors = { 0 };
        ConfigSource *unpacked;
        Config *again;
        int fd;

        CHECK(config_source_pack(source, &fd) == 0);
        CHECK(config_source_unpack(&unpacked, fd) == 0);
        fd_close(fd);
        CHECK(config_load(&again, unpacked, CONFIG_LOAD_AGAIN, &errors) == 0);
        check_same(config, again);
        config_unref(again);
        config_source_free(unpacked);
}

static void load(const ConfigSource *source) {
        ConfigErrors errors = { 0 };
        Config *config = NULL;
        int r = config_load(&config, source, 0, &errors);

        CHECK(r == 0 || r == -EINVAL);
        if (r < 0) {
                check_errors(&errors);
        } else {
                CHECK(errors.n == 0);
                for (size_t i = 0; i < config->n_runners; i++)
                        check_runner(config, config->runners[i]);
                check_same(config, config);
                check_packed(source, config);
        }
        config_unref(config);
        config_errors_deinit(&errors);
}

/* make_source() - one file with that text. */
static ConfigSource *make_source(const uint8_t *data, size_t size) {
        ConfigSource *source = calloc(1, sizeof(*source));

        CHECK(source);
        source->paths = calloc(2, sizeof(*source->paths));
        CHECK(source->paths);
        source->paths[source->n_paths++] = strdup("/x");
        source->files[0] = (ConfigFile){ .name = strdup("x"), .text = malloc(size + 1), .size = size };
        CHECK(source->paths[0] && source->files[0].name && source->files[0].text);
        memcpy(source->files[0].text, data, size);
        source->n = 1;
        return source;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        ConfigSource *source = NULL;
        int fd;

        if (size > 0 && data[0] == 1) {
                CHECK(memfd_sealed("fuzz", data + 1, size - 1, &fd) == 0);
                (void) config_source_unpack(&source, fd);
                fd_close(fd);
        } else if (size > 0) {
                source = make_source(data, size);
        }
        if (source)
                load(source);
        config_source_free(source);
        return 0;
}
