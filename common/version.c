/* SPDX-License-Identifier: Apache-2.0 */

/* Version: the only file that is compiled again when the commit changes. */

#include "common/version.h"

#include "common/commit.h"

const char *version_release(void) {
        return PACKAGE_VERSION;
}

const char *version_commit(void) {
        return BATON_COMMIT;
}
