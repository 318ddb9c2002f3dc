/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Transfer. A message is a header, with descriptors where its type has them: MANIFEST brings the memfd, BATCH the
 * descriptors from number `first' on, ACK says how many were accepted in all, FAIL why nothing more will be, SAY a word.
 * Both ends are ours, but not of one version: a type that is not known ends the transfer with a reason instead of a guess.
 */

#include "proto/transfer.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common/cmsg.h"
#include "common/fd.h"

#define MAGIC 0x426e7402u /* which protocol; native byte order: both ends are of one machine */

typedef enum MessageType {
        MESSAGE_MANIFEST = 1, /* n: descriptors in all */
        MESSAGE_BATCH,        /* first, n */
        MESSAGE_ACK,          /* n: descriptors accepted in all */
        MESSAGE_FAIL,         /* text */
        MESSAGE_SAY,          /* text */
} MessageType;

typedef struct Message {
        uint32_t magic, type;
        uint64_t first, n;
        char text[MANIFEST_REASON_SIZE];
} Message;

static int send_message(int socket, MessageType type, uint64_t first, uint64_t n, const char *text, const int *fds,
                        size_t n_fds) {
        Message message = { .magic = MAGIC, .type = type, .first = first, .n = n };
        ssize_t r;

        if (text)
                (void) snprintf(message.text, sizeof(message.text), "%s", text);
        r = cmsg_send(socket, &message, sizeof(message), fds, n_fds);
        return r < 0 ? (int) r : 0;
}

/* fail() - for good; the other side is told, if there is room. */
static TransferState _printf_(3, 4) fail(Transfer *transfer, bool tell, const char *format, ...) {
        va_list arguments;

        if (!transfer->failed) {
                va_start(arguments, format);
                (void) vsnprintf(transfer->reason, sizeof(transfer->reason), format, arguments);
                va_end(arguments);
                if (tell)
                        (void) send_message(transfer->socket, MESSAGE_FAIL, 0, 0, transfer->reason, NULL, 0);
        }
        transfer->failed = true;
        return TRANSFER_FAILED;
}

/* ------------------------------------------------------------------------------------------------------------- giving */

static int send_manifest(Transfer *transfer) {
        _cleanup_fd_ int memfd = -1;
        int r = manifest_pack(transfer->given, &memfd);

        if (r == 0)
                r = send_message(transfer->socket, MESSAGE_MANIFEST, 0, transfer->given->n, NULL, &memfd, 1);
        return r;
}

/* send_next() - the next message, if the window has room. 0, -EAGAIN, or another error. */
static int send_next(Transfer *transfer) {
        size_t n = MIN(transfer->given->n - transfer->sent, (size_t) TRANSFER_BATCH);
        int r;

        if (transfer->n_unanswered >= TRANSFER_WINDOW)
                return -EAGAIN;
        if (!transfer->manifest_sent)
                r = send_manifest(transfer);
        else if (n > 0)
                r = send_message(transfer->socket, MESSAGE_BATCH, transfer->sent, n, NULL,
                                 transfer->given->fds + transfer->sent, n);
        else
                return -EAGAIN;
        if (r == -ETOOMANYREFS && transfer->n_unanswered > 0)
                return -EAGAIN; /* an answer says that some have arrived */
        if (r < 0)
                return r;
        transfer->sent += transfer->manifest_sent ? n : 0;
        transfer->manifest_sent = true;
        transfer->n_unanswered++;
        return 0;
}

static TransferState give_handle(Transfer *transfer, const Message *message) {
        if (message->type != MESSAGE_ACK || message->n > transfer->sent || message->n < transfer->n_done ||
            transfer->n_unanswered == 0)
                return fail(transfer, true, "the successor answered out of turn");
        transfer->n_unanswered--;
        transfer->n_done = message->n;
        return transfer->n_done == transfer->given->n && transfer->n_unanswered == 0 ? TRANSFER_DONE : TRANSFER_WAITS;
}

/* ------------------------------------------------------------------------------------------------------------- taking */

static TransferState acknowledge(Transfer *transfer) {
        while (transfer->owed > 0) {
                int r = send_message(transfer->socket, MESSAGE_ACK, 0, transfer->n_done, NULL, NULL, 0);

                if (r == -EAGAIN)
                        return TRANSFER_WAITS;
                if (r < 0)
                        return fail(transfer, false, "the predecessor is gone: %s", strerror(-r));
                transfer->owed--;
        }
        return transfer->manifest_sent && transfer->n_done == transfer->taken.n ? TRANSFER_DONE : TRANSFER_WAITS;
}

static TransferState take_manifest(Transfer *transfer, const Message *message, int *fds, size_t n_fds) {
        char reason[MANIFEST_REASON_SIZE];

        if (transfer->manifest_sent || n_fds != 1)
                return fail(transfer, true, "a manifest came out of turn");
        transfer->listed = (size_t) message->n;
        if (message->n > transfer->most)
                return fail(transfer, true, "%ju descriptors, and %zu are possible", (uintmax_t) message->n,
                            transfer->most);
        if (manifest_unpack(&transfer->taken, fds[0], transfer->min, transfer->max, transfer->most, reason) < 0)
                return fail(transfer, true, "%s", reason);
        if (transfer->taken.n != message->n)
                return fail(transfer, true, "the manifest lists %zu descriptors, and should list %ju",
                            transfer->taken.n, (uintmax_t) message->n);
        if (transfer_fits(transfer->taken.n, 0, reason) < 0)
                return fail(transfer, true, "%s", reason);
        transfer->manifest_sent = true;
        transfer->owed++;
        return acknowledge(transfer);
}

static TransferState take_batch(Transfer *transfer, const Message *message, int *fds, size_t n_fds, bool truncated) {
        char reason[MANIFEST_REASON_SIZE];

        if (truncated)
                return fail(transfer, true, "descriptors were lost on the way: the limit of open files is too low");
        if (!transfer->manifest_sent || message->first != transfer->n_done || message->n != n_fds || n_fds == 0 ||
            n_fds > transfer->taken.n - transfer->n_done)
                return fail(transfer, true, "descriptors came out of turn");
        for (size_t i = 0; i < n_fds; i++)
                if (manifest_accept(&transfer->taken, transfer->n_done++, fd_take(&fds[i]), reason) < 0)
                        return fail(transfer, true, "%s", reason);
        transfer->owed++;
        return acknowledge(transfer);
}

/* --------------------------------------------------------------------------------------------------------------- both */

void transfer_give(Transfer *transfer, int socket, const Manifest *manifest) {
        *transfer = (Transfer){ .socket = socket, .gives = true, .given = manifest };
}

void transfer_take(Transfer *transfer, int socket, uint32_t min, uint32_t max) {
        *transfer = (Transfer){ .socket = socket, .min = min, .max = max, .most = MANIFEST_FDS_MAX };
}

void transfer_deinit(Transfer *transfer) {
        manifest_deinit(&transfer->taken);
}

/* receive() - one message. 1: there is one; 0: none for now; negative: the end, or no message of ours (-EPROTO). */
static int receive(int socket, Message *ret_message, int *fds, size_t n_max, CmsgInfo *ret_info) {
        ssize_t n = cmsg_receive(socket, ret_message, sizeof(*ret_message), fds, n_max, ret_info);

        if (n == -EAGAIN)
                return 0;
        if (n <= 0)
                return n == 0 ? -EPIPE : (int) n;
        if ((size_t) n != sizeof(*ret_message) || ret_message->magic != MAGIC || ret_info->foreign) {
                fd_close_all(fds, ret_info->n_fds);
                return -EPROTO;
        }
        ret_message->text[sizeof(ret_message->text) - 1] = '\0';
        return 1;
}

static TransferState handle(Transfer *transfer, const Message *message, int *fds, const CmsgInfo *info) {
        if (message->type == MESSAGE_FAIL)
                return fail(transfer, false, "%s", message->text);
        if (message->type == MESSAGE_SAY) {
                (void) snprintf(transfer->said, sizeof(transfer->said), "%.*s", TRANSFER_WORD_SIZE - 1, message->text);
                return TRANSFER_SAID;
        }
        if (transfer->gives)
                return give_handle(transfer, message);
        if (message->type == MESSAGE_MANIFEST)
                return take_manifest(transfer, message, fds, info->n_fds);
        if (message->type == MESSAGE_BATCH)
                return take_batch(transfer, message, fds, info->n_fds, info->truncated);
        return fail(transfer, true, "the predecessor sent a message of the unknown type %u", message->type);
}

TransferState transfer_step(Transfer *transfer) {
        TransferState state = TRANSFER_WAITS;
        int r = 0;

        if (transfer->failed)
                return TRANSFER_FAILED;
        if (!transfer->gives)
                state = acknowledge(transfer);
        while (state == TRANSFER_WAITS) {
                int fds[TRANSFER_BATCH];
                Message message;
                CmsgInfo info;

                while (transfer->gives && (r = send_next(transfer)) == 0)
                        ;
                if (transfer->gives && r < 0 && r != -EAGAIN && r != -EPIPE && r != -ECONNRESET)
                        return fail(transfer, true, "cannot send descriptors: %s", strerror(-r));
                r = receive(transfer->socket, &message, fds, ARRAY_SIZE(fds), &info);
                if (r == 0)
                        break;
                if (r < 0)
                        return fail(transfer, false, "the %s %s%s", transfer->gives ? "successor" : "predecessor",
                                    r == -EPIPE ? "is gone" : "cannot be heard: ", r == -EPIPE ? "" : strerror(-r));
                state = handle(transfer, &message, fds, &info);
                fd_close_all(fds, info.n_fds);
        }
        return state;
}

short transfer_events(const Transfer *transfer) {
        bool sends = transfer->gives ? transfer->n_unanswered < TRANSFER_WINDOW &&
                                               (!transfer->manifest_sent || transfer->sent < transfer->given->n)
                                     : transfer->owed > 0;

        return (short) (POLLIN | (sends ? POLLOUT : 0));
}

int transfer_say(int socket, const char *word) {
        return strlen(word) < TRANSFER_WORD_SIZE ? send_message(socket, MESSAGE_SAY, 0, 0, word, NULL, 0) : -EMSGSIZE;
}

int transfer_hear(int socket, char word[TRANSFER_WORD_SIZE]) {
        Message message;
        CmsgInfo info;
        int r = receive(socket, &message, NULL, 0, &info);

        if (r <= 0)
                return r == 0 ? -EAGAIN : r;
        if (message.type != MESSAGE_SAY)
                return -EPROTO;
        (void) snprintf(word, TRANSFER_WORD_SIZE, "%.*s", TRANSFER_WORD_SIZE - 1, message.text);
        return 0;
}

int transfer_fits(size_t n, size_t spare, char reason[MANIFEST_REASON_SIZE]) {
        struct rlimit limit;
        int open = fd_count();

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || open < 0 || limit.rlim_cur == RLIM_INFINITY)
                return 0; /* not known: the transfer itself will tell */
        if ((uint64_t) open + n + spare <= limit.rlim_cur)
                return 0;
        (void) snprintf(reason, MANIFEST_REASON_SIZE,
                        "%zu descriptors do not fit: %d of at most %ju are open; raise the limit of open files", n,
                        open, (uintmax_t) limit.rlim_cur);
        return -EMFILE;
}
