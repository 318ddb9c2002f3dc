#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Takeover: how a supervisor hands everything to a successor. The other half is successor.h; docs/takeover.md tells both. */

#include "supervisor/supervisor.h"

/*
 * What a successor says to its predecessor (transfer_say()): that it runs; that it has built everything of the table; that it
 * has got everything.
 */
#define TAKEOVER_WORD_HERE  "here"
#define TAKEOVER_WORD_READY "ready to take"
#define TAKEOVER_WORD_TAKEN "taken"

/* Said to it before it is started, and by it, before "here", in answer: it takes runners before the end. */
#define TAKEOVER_WORD_RUNNERS "runners before the end"

/* What it is told before it is started, with a point behind it (fault.h), and what it then says instead of "here". */
#define TAKEOVER_WORD_FAULT "fault "
#define TAKEOVER_WORD_ARMED "armed"

/* takeover_again() - the configuration was loaded again: another successor begins with that. Accepts NULL. */
void takeover_again(Takeover *takeover);

/* takeover_cancel() - it does not take place, for @why. Accepts NULL: none is under way. */
void takeover_cancel(Takeover *takeover, const char *why);

/* takeover_free() - without a word to anybody. Accepts NULL, returns NULL. */
Takeover *takeover_free(Takeover *takeover);
