#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Which baton this is: the release, and the commit it was built from. */

/* version_release() - as configure.ac says, "0.1.0". */
const char *version_release(void);

/* version_commit() - 12 hexadecimal digits, with "-dirty" if the tree had changes; "unknown" without history. */
const char *version_commit(void);
