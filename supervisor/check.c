/* SPDX-License-Identifier: Apache-2.0 */

/* Check: loads a configuration as a first start would, and says what came of it. */

#include "supervisor/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/config.h"

static void print_good(char *const *paths, const Config *config) {
        size_t instances = 0;

        for (size_t i = 0; i < config->n_runners; i++)
                instances += config->runners[i]->instances;
        for (; *paths; paths++)
                (void) printf("%s%s", *paths, paths[1] ? ", " : ": ");
        (void) printf("good: %zu runner%s, %zu instance%s, %zu group%s\n", config->n_runners,
                      config->n_runners == 1 ? "" : "s", instances, instances == 1 ? "" : "s", config->n_groups,
                      config->n_groups == 1 ? "" : "s");
}

static int print_wrong(const ConfigErrors *errors) {
        _cleanup_free_ char *text = config_errors_text(errors);

        if (!text)
                return -ENOMEM;
        (void) fputs(text, stderr);
        return -EINVAL;
}

int check_configuration(char *const *paths) {
        _cleanup_(config_source_freep) ConfigSource *source = NULL;
        _cleanup_(config_unrefp) Config *config = NULL;
        ConfigErrors errors = { 0 };
        int r = config_source_read(&source, paths, &errors);

        if (r == 0)
                r = config_load(&config, source, CONFIG_LOAD_CHECK, &errors);
        if (r == 0)
                print_good(paths, config);
        else if (r == -EINVAL)
                r = print_wrong(&errors);
        config_errors_deinit(&errors);
        if (r == 0 && fflush(stdout) != 0)
                r = -errno;
        if (r < 0 && r != -EINVAL)
                (void) fprintf(stderr, "baton-supervisor: cannot check %s: %s\n", *paths, strerror(-r));
        return r == 0 ? EXIT_SUCCESS : r == -EINVAL ? CHECK_EXIT_WRONG : EXIT_FAILURE;
}
