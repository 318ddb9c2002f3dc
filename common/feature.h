#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the kernel, or a sandbox around us, may lack: each is asked for once, and has another way or a refusal naming it.
 * $BATON_DISABLE, a list of names separated by commas, makes baton behave as if they were missing; tests run the other
 * ways by it.
 */

#include <stdbool.h>

typedef enum Feature {
        FEATURE_CLONE_FILES,   /* "clone-files": a child shares our descriptors until it says close_range(UNSHARE) */
        FEATURE_CHILDREN_FILE, /* "children-file": /proc/self/task/N/children lists a process's children */
        FEATURE_NOEXEC_SEAL,   /* "noexec-seal": a memfd can be made so that it is never executed (6.3) */
        FEATURE_FUSE_RESEND,   /* "fuse-resend": a file system's requests can be had again after a death (6.9) */
        _FEATURE_N,
} Feature;

/* feature_enabled() - whether @feature is there and not disabled. Asks the kernel the first time; allocates nothing. */
bool feature_enabled(Feature feature);

/* feature_name() - as in $BATON_DISABLE. */
const char *feature_name(Feature feature);

/* feature_unknown() - the first word in $BATON_DISABLE that is no feature's name, up to the end of the list; or NULL. */
const char *feature_unknown(void);

/* feature_forget() - asks again next time: for tests that change $BATON_DISABLE. */
void feature_forget(void);
