#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The Envelope's way to bytes and back. Most frames carry nothing but numbers and a name or two; these have a short way
 * of their own. Everything else is protobuf-c's, with the same result: tests/test-envelope.c and the fuzzer compare.
 */

#include "proto/baton.pb-c.h"
#include "proto/message.h"

#define ENVELOPE_SHORT 512u /* room that a frame on the short way never exceeds */

/* envelope_pack_short() - packs into @bytes. The size; 0: it must go the long way. */
size_t envelope_pack_short(const Baton__Envelope *envelope, uint8_t bytes[ENVELOPE_SHORT]);

/*
 * envelope_unpack() - checks and unpacks; valid until the scratch is reset. NULL: malformed, a string that is not UTF-8
 * without NUL, or more than the scratch may hold.
 */
Baton__Envelope *envelope_unpack(MessageScratch *scratch, const uint8_t *data, size_t size);
