/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Features: one table of names and probes. A probe is a harmless call that tells whether the kernel knows the thing; it
 * runs at most once per process, the answer is kept here (the only state; the process has one kernel). A probe can say
 * yes and the thing be refused all the same, by a filter that looks at arguments: who uses it falls back then, too.
 * $BATON_DISABLE is for tests and for operators of odd sandboxes, and is ignored by privileged programs (secure_getenv).
 */

#include "common/feature.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/fd.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif

/* A range that holds nothing: only the flag is looked at. */
static bool probe_clone_files(void) {
        return close_range(UINT32_MAX, UINT32_MAX, CLOSE_RANGE_UNSHARE) == 0;
}

static bool probe_children_file(void) {
        char path[64];

        (void) snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int) getpid());
        return access(path, R_OK) == 0;
}

static bool probe_noexec_seal(void) {
        _cleanup_fd_ int fd = memfd_create("baton-probe", MFD_CLOEXEC | MFD_NOEXEC_SEAL);

        return fd >= 0;
}

/* There is nothing to ask without a mount, whose INIT then says it again. */
static bool probe_fuse_resend(void) {
        struct utsname name;
        unsigned major = 0, minor = 0;

        return uname(&name) == 0 && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
               (major > 6 || (major == 6 && minor >= 9));
}

static const struct {
        const char *name;
        bool (*probe)(void);
} features[] = {
        [FEATURE_CLONE_FILES] = { "clone-files", probe_clone_files },
        [FEATURE_CHILDREN_FILE] = { "children-file", probe_children_file },
        [FEATURE_NOEXEC_SEAL] = { "noexec-seal", probe_noexec_seal },
        [FEATURE_FUSE_RESEND] = { "fuse-resend", probe_fuse_resend },
};

_Static_assert(ARRAY_SIZE(features) == _FEATURE_N, "one row per feature");

enum { NOT_ASKED, PRESENT, ABSENT };

static _Atomic unsigned char answers[_FEATURE_N]; /* loops of several threads ask; each finds the same */

const char *feature_name(Feature feature) {
        return features[feature].name;
}

/* word_is() - whether the word at @p, up to a comma or the end, is @name. */
static bool word_is(const char *p, const char *name) {
        size_t length = strcspn(p, ",");

        return length == strlen(name) && strncmp(p, name, length) == 0;
}

/* next_word() - the word after the one at @p, or NULL. */
static const char *next_word(const char *p) {
        p = strchr(p, ',');
        return p ? p + 1 : NULL;
}

static bool disabled(Feature feature) {
        for (const char *p = secure_getenv("BATON_DISABLE"); p; p = next_word(p))
                if (word_is(p, features[feature].name))
                        return true;
        return false;
}

bool feature_enabled(Feature feature) {
        if (answers[feature] == NOT_ASKED) {
                int saved = errno;

                answers[feature] = !disabled(feature) && features[feature].probe() ? PRESENT : ABSENT;
                errno = saved;
        }
        return answers[feature] == PRESENT;
}

const char *feature_unknown(void) {
        for (const char *p = secure_getenv("BATON_DISABLE"); p; p = next_word(p)) {
                bool known = word_is(p, "");

                for (Feature f = 0; f < _FEATURE_N; f++)
                        known |= word_is(p, features[f].name);
                if (!known)
                        return p;
        }
        return NULL;
}

void feature_forget(void) {
        for (Feature f = 0; f < _FEATURE_N; f++)
                answers[f] = NOT_ASKED;
}
