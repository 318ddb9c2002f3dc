/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Replay: main() of a fuzz target where libFuzzer is not linked. It feeds the target every file of its folder of seeds,
 * tests/fuzz/seeds/X for fuzz-X (or the files given), one TAP line each: an input that once broke something is a test.
 */

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/macro.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int read_file(const char *path, uint8_t **ret_data, size_t *ret_size) {
        FILE *file = fopen(path, "re");
        uint8_t *data;
        long size;

        if (!file)
                return -errno;
        if (fseek(file, 0, SEEK_END) < 0 || (size = ftell(file)) < 0 || fseek(file, 0, SEEK_SET) < 0) {
                (void) fclose(file);
                return -EIO;
        }
        /* Exactly as long as the input, so that a sanitizer sees a read past its end. */
        data = malloc(size ? (size_t) size : 1);
        if (!data || fread(data, 1, (size_t) size, file) != (size_t) size) {
                free(data);
                (void) fclose(file);
                return -EIO;
        }
        (void) fclose(file);
        *ret_data = data;
        *ret_size = (size_t) size;
        return 0;
}

static void replay(unsigned number, const char *path, const char *name) {
        _cleanup_free_ uint8_t *data = NULL;
        int before = fd_count(), r;
        size_t size = 0;

        r = read_file(path, &data, &size);
        if (r == 0)
                (void) LLVMFuzzerTestOneInput(data, size);
        printf("%s %u - %s%s%s\n", r == 0 && fd_count() == before ? "ok" : "not ok", number, name, r < 0 ? ": " : "",
               r < 0 ? strerror(-r) : "");
        (void) fflush(stdout);
}

static int is_seed(const struct dirent *entry) {
        return entry->d_name[0] != '.';
}

static int replay_folder(const char *folder) {
        struct dirent **entries;
        int n = scandir(folder, &entries, is_seed, alphasort);

        if (n <= 0) {
                printf("Bail out! no seeds in %s\n", folder);
                return EXIT_FAILURE;
        }
        printf("1..%d\n", n);
        for (int i = 0; i < n; i++) {
                char path[4096 + NAME_MAX + 2];

                (void) snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
                replay((unsigned) i + 1, path, entries[i]->d_name);
                free(entries[i]);
        }
        free(entries);
        return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
        const char *root = getenv("abs_top_srcdir"), *name = strstr(argv[0], "fuzz-");
        char folder[4096];

        if (argc > 1) {
                printf("1..%d\n", argc - 1);
                for (int i = 1; i < argc; i++)
                        replay((unsigned) i, argv[i], argv[i]);
                return EXIT_SUCCESS;
        }
        if (!root || !name) {
                (void) fprintf(stderr, "usage: %s INPUT..., or run it by make check\n", argv[0]);
                return 2;
        }
        (void) snprintf(folder, sizeof(folder), "%s/tests/fuzz/seeds/%s", root, name + strlen("fuzz-"));
        return replay_folder(folder);
}
