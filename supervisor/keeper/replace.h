#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What a keeper and the program that goes on in its place say to each other. */

#include "supervisor/keeper/keeper-internal.h"

/* What a rehearsal says when all is well, followed by its release. */
#define REPLACE_READY "READY "

/* replace_done() - we are that program, of @release, and have everything; the supervisor is to be told. */
void replace_done(Keeper *k, const char *release);

/* replace_undone() - we are the one before, once more. */
void replace_undone(Keeper *k);

/* replace_go_back() - executes @former in our place; returns if it cannot be. */
void replace_go_back(const KeeperOptions *options, int memfd, int former);
