#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Transfer: a manifest and its descriptors from one process to another, over a SOCK_SEQPACKET pair that both keep for what
 * they say to each other besides (TRANSFER_SAY). The giver goes on serving meanwhile: nobody waits, each side does a step
 * when its socket is ready. At most TRANSFER_WINDOW messages are unanswered, so that no more descriptors are in flight than
 * any limit allows.
 *
 * Several transfers may follow each other: the taker knows the next one by its manifest.
 */

#include "proto/manifest.h"

typedef struct Transfer Transfer;

enum {
        TRANSFER_BATCH = 250, /* descriptors in a message; the kernel's limit is 253 */
        TRANSFER_WINDOW = 4,
        TRANSFER_WORD_SIZE = 480, /* of TRANSFER_SAY, with its NUL */
};

typedef enum TransferState {
        TRANSFER_WAITS,  /* for the socket: transfer_events() */
        TRANSFER_DONE,   /* given: everything was accepted; taken: all of it is here */
        TRANSFER_SAID,   /* taker and giver: the other one said a word; go on with transfer_step() */
        TRANSFER_FAILED, /* transfer->reason says why; the other side was told, or has told us */
} TransferState;

struct Transfer {
        int socket; /* borrowed */
        bool gives;
        const Manifest *given;
        Manifest taken; /* the receiver's to move away when it is DONE */
        uint32_t min, max;
        size_t most;         /* descriptors that are taken */
        size_t listed;       /* that the giver says there are */
        size_t sent, n_done; /* descriptors sent, or expected next; accepted by the taker */
        unsigned n_unanswered;
        bool manifest_sent, failed;
        size_t owed; /* an acknowledgement for which there was no room */
        char said[TRANSFER_WORD_SIZE];
        char reason[MANIFEST_REASON_SIZE];
};

/* transfer_give() - prepares to send @manifest, which stays and must not change before the end. */
void transfer_give(Transfer *transfer, int socket, const Manifest *manifest);

/*
 * transfer_take() - prepares to receive one, of state version @min to @max. Where whoever gives is not ours, @transfer->most is
 * to be set to what it may give; and it has no word to say (TRANSFER_SAID), since those may come without end.
 */
void transfer_take(Transfer *transfer, int socket, uint32_t min, uint32_t max);

/* transfer_deinit() - closes what was taken and not moved away. The socket stays. */
void transfer_deinit(Transfer *transfer);

/* transfer_step() - as far as it goes without waiting. */
TransferState transfer_step(Transfer *transfer);

/* transfer_events() - POLLIN, POLLOUT: when the next step is worth while. */
short transfer_events(const Transfer *transfer);

/* transfer_say() - one word to the other side, besides any transfer: 0, -EAGAIN, -EMSGSIZE, -EPIPE. */
int transfer_say(int socket, const char *word);

/* transfer_hear() - the next word, when no transfer is going on. 0; -EAGAIN; -EPIPE: the end; -EPROTO: it is none. */
int transfer_hear(int socket, char word[TRANSFER_WORD_SIZE]);

/*
 * transfer_fits() - whether @n more descriptors fit into this process, @spare left over. 0; -EMFILE, with one line in
 * @reason that names the limit.
 */
int transfer_fits(size_t n, size_t spare, char reason[MANIFEST_REASON_SIZE]);
