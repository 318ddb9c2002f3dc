#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* A supervisor that hangs is replaced: by its keeper, who alone can. */

#include "client/options.h"

/* takeover_force() - `baton takeover --force': the exit code, after its words. */
int takeover_force(const ControlOptions *options);
