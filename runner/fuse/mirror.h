#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The file system: a directory, as it is. A Mirror answers requests; where they come from and where the answers go is the
 * session's business. One thread at a time uses a mirror.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "runner/fuse/protocol.h"
#include "runner/fuse/table.h"
#include "runner/fuse/vault.h"

typedef struct Mirror Mirror;
typedef struct Node Node;
typedef struct OpenFile OpenFile;
typedef struct Transferred Transferred;
typedef struct Prior Prior;

enum {
        MIRROR_FDS_MIN = 64, /* descriptors of inodes kept open at least */
        MIRROR_FDS_MAX = 4096,
};

/* What this process keeps for an inode of the table, at the same index. */
struct Node {
        int fd;         /* O_PATH; -1: to be opened by its handle */
        uint32_t chain; /* the next one in its bucket, or of the free ones */
        uint32_t older, newer;
        uint32_t n_open; /* files */
        bool pinned;     /* nothing else can open it again: never closed before it is forgotten */
};

/* What it keeps for an open file of the table. */
struct OpenFile {
        int fd; /* -1: it could not be opened again */
        int64_t position;
};

/* What a request that is resent finds of its first time. */
struct Prior {
        bool known;
        uint64_t source, target;
};

struct Mirror {
        int root, proc; /* the directory; /proc/self/fd */
        dev_t device;
        bool handles;        /* files of this file system can be opened by handles, by us */
        bool privileged;     /* we may act in the name of the user who asks */
        uint64_t timeout_ns; /* how long the kernel may believe what it was told of names and attributes */
        Table table;
        Vault vault;
        Node *nodes;
        uint32_t n_nodes_room, free_node;
        uint32_t *buckets, n_buckets, n_live;
        uint32_t oldest, newest, n_fds, max_fds; /* descriptors of nodes, by their use */
        OpenFile *files;
        uint32_t n_files_room, free_file;
        TableJournal *journal; /* of the request that is being served; NULL: it needs none */
        uint8_t *buffer;       /* of REQUEST_MAX_WRITE bytes, for answers */
        mode_t mask;           /* the umask of this thread */
};

/* Input and output on open files: all that an other thread may do, and needs. */
struct Transferred {
        uint32_t opcode;
        int fd, target; /* -1: none */
        bool owned;     /* the descriptors are its own */
        uint64_t offset, target_offset, size;
        uint32_t mode;
        const uint8_t *data;
};
#define TRANSFERRED_NULL ((Transferred){ .fd = -1, .target = -1 })

/* ---- life (mirror.c) ---- */

/*
 * mirror_new() - a mirror of @root_fd_consume, of @table and @vault, which are moved into it, on success and failure
 * alike. It has nothing loaded: mirror_load(). 0; -ENOTDIR; -ENOSYS: there is no /proc; -ENOMEM, -EMFILE.
 */
int mirror_new(Mirror **ret_mirror, int root_fd_consume, Table *table, Vault *vault, uint64_t timeout_ns);

Mirror *mirror_free(Mirror *mirror);
DEFINE_CLEANUP(Mirror *, mirror_free);

/*
 * mirror_load() - makes what this process keeps agree with the table, in which another process may have been at work. From
 * here on the table is ours. 0, or a negative errno: nothing can be served.
 */
int mirror_load(Mirror *mirror);

/* mirror_prepare_thread() - the thread that calls mirror_serve() can act for others from here on. */
int mirror_prepare_thread(Mirror *mirror);

/*
 * mirror_serve() - does what @request asks, and writes the answer to @reply. 0; a negative errno is the answer; or
 * MIRROR_TRANSFER: @transferred is to be done by transferred_run(), now or in another thread.
 */
enum {
        MIRROR_TRANSFER = 1,
};
int mirror_serve(Mirror *mirror, const Request *request, Reply *reply, Transferred *transferred);

/* mirror_unserved() - the answer to what was served last could not be given: the kernel does not know what it said. */
void mirror_unserved(Mirror *mirror);

/* mirror_orphans() - how many requests of those before us may come again. */
unsigned mirror_orphans(Mirror *mirror);

/* mirror_forget_orphan() - @unique will not come again: it was answered (@answered), or has been ended with an error. */
void mirror_forget_orphan(Mirror *mirror, uint64_t unique, bool answered);

/* mirror_forget_orphans() - none will come: all were answered. */
void mirror_forget_orphans(Mirror *mirror);

/* mirror_keep_open() - before a save: what is open and has no name any more goes to the vault, however it lost it. */
void mirror_keep_open(Mirror *mirror);

/* mirror_counts() - inodes known, files open, descriptors in the vault. */
void mirror_counts(const Mirror *mirror, uint64_t *ret_inodes, uint64_t *ret_files, uint64_t *ret_kept);

/* ---- input and output (transfer.c) ---- */

/* transferred_begin() - what @request wants, of a file that is open. 0 or a negative errno. */
int transferred_begin(Mirror *mirror, const Request *request, Transferred *ret_transferred);

/* transferred_is_slow() - it may wait for a disk for long: not for the thread that everybody waits for. */
bool transferred_is_slow(const Transferred *transferred);

/* transferred_own() - its descriptors are its own: it can be handed to another thread. 0 or a negative errno. */
int transferred_own(Transferred *transferred);

/*
 * transferred_run() - does it; @buffer has room for REQUEST_MAX_WRITE bytes. As mirror_serve(), and -EAGAIN with
 * @only_cached: the data is not in memory.
 */
int transferred_run(const Transferred *transferred, uint8_t *buffer, bool only_cached, Reply *reply);

/* transferred_end() - closes what is its own. */
void transferred_end(Transferred *transferred);

/* ---- inodes (node.c), for operations ---- */

int node_load(Mirror *mirror);
void node_unload(Mirror *mirror);

/* node_of() - the index of a node number that the kernel used. 0; -ESTALE: there is none. */
int node_of(Mirror *mirror, uint64_t number, uint32_t *ret_index);

/* node_number() - the other way round. */
uint64_t node_number(const Mirror *mirror, uint32_t index);

/* node_fd() - a descriptor (O_PATH), borrowed for this request. It, or a negative errno. */
int node_fd(Mirror *mirror, uint32_t index);

/* node_fd_of() - both in one. */
int node_fd_of(Mirror *mirror, uint64_t number);

/* node_reopen() - @index as a file, with the flags of open(2). A descriptor that is the caller's, or a negative errno. */
int node_reopen(Mirror *mirror, uint32_t index, int flags);

/*
 * node_lookup() - what @name is in @parent; one reference more of the kernel's. 0, with its index and what it is; or a
 * negative errno.
 */
int node_lookup(Mirror *mirror, int parent, const char *name, uint32_t *ret_index, struct stat *ret_stat);

/* node_adopt() - the same for a file that has no name: @fd_consume, O_PATH or not. */
int node_adopt(Mirror *mirror, int fd_consume, uint32_t *ret_index, struct stat *ret_stat);

/* node_forget() - @n references fewer. */
void node_forget(Mirror *mirror, uint64_t number, uint64_t n);

/*
 * node_keep() - its last name is about to go: what it takes to find it all the same, @used: by whoever has it open. False:
 * it was kept before, or cannot be. node_unkeep() - after true: the name did not go.
 */
bool node_keep(Mirror *mirror, uint32_t index, bool used);
void node_unkeep(Mirror *mirror, uint32_t index);

/* node_find() - the index of the inode @ino, if the kernel knows it; 0: it does not. */
uint32_t node_find(Mirror *mirror, int parent, const char *name, uint64_t ino);

/* node_path() - its name in /proc, for calls that take no descriptor. */
enum {
        NODE_PATH_SIZE = 32,
};
void node_path(int fd, char path[NODE_PATH_SIZE]);

/* ---- open files (file.c), for operations ---- */

int file_load(Mirror *mirror);
void file_unload(Mirror *mirror);

/* file_add() - @fd_consume is open as @number for the kernel. 0; -ENFILE, -ENOMEM. */
int file_add(Mirror *mirror, uint32_t node, int fd_consume, uint32_t flags, uint32_t kind, uint64_t *ret_number);

/* file_of() - what the kernel calls @number, of that kind. 0; -EBADF; -ESTALE: it could not be opened again. */
int file_of(Mirror *mirror, uint64_t number, uint32_t kind, OpenFile **ret_file);

/* file_remove() - closes it; a number that is none is left alone: it was closed before. */
void file_remove(Mirror *mirror, uint64_t number);

/* ---- journal (journal.c), for operations ---- */

/* journal_load() - what a process that died was doing is an orphan from here on; its counts are right. Comes first. */
void journal_load(Mirror *mirror);

/* journal_finish() - what nobody will ask for again is done, @last, the request it had read last, or NULL. Comes last. */
void journal_finish(Mirror *mirror, const Request *last);

/* journal_begin() - @request is being served, and not the same when done twice. What its first time has found: @ret. */
void journal_begin(Mirror *mirror, const Request *request, Prior *ret_prior);

/* journal_end() - it has been answered. */
void journal_end(Mirror *mirror);

/* journal_prior() - what the names stand for, before anything is done. */
void journal_prior(Mirror *mirror, uint64_t source, uint64_t target);

/* journal_entry() - @index gets one reference more. 0; -EMLINK: one answer cannot name more. */
int journal_entry(Mirror *mirror, uint32_t index);

/* journal_file() - @number is being opened. */
void journal_file(Mirror *mirror, uint64_t number);

/* journal_undo() - the kernel has not heard of what @journal did. */
void journal_undo(Mirror *mirror, TableJournal *journal);

/* journal_forget() - one of FORGET or BATCH_FORGET, the @i'th: takes the references away. */
void journal_forget(Mirror *mirror, uint32_t i, const struct fuse_forget_one *one);

/* journal_of_orphan() - or NULL. */
TableJournal *journal_of_orphan(Mirror *mirror, uint64_t unique);

/* ---- operations ---- */

void attributes_of(const struct stat *stat, struct fuse_attr *ret_attributes);

/* reply_entry() - the answer that names an inode. */
void fill_entry(const Mirror *mirror, uint32_t index, const struct stat *stat, struct fuse_entry_out *ret_entry);

/* What is done in the name of the caller is between these two. */
void act_as(Mirror *mirror, const struct fuse_in_header *header, uint32_t mask);
void act_as_self(Mirror *mirror);

int op_lookup(Mirror *mirror, const Request *request, Reply *reply);
int op_getattr(Mirror *mirror, const Request *request, Reply *reply);
int op_setattr(Mirror *mirror, const Request *request, Reply *reply);
int op_statx(Mirror *mirror, const Request *request, Reply *reply);
int op_statfs(Mirror *mirror, const Request *request, Reply *reply);
int op_readlink(Mirror *mirror, const Request *request, Reply *reply);
int op_setxattr(Mirror *mirror, const Request *request, const Prior *prior);
int op_getxattr(Mirror *mirror, const Request *request, Reply *reply);
int op_listxattr(Mirror *mirror, const Request *request, Reply *reply);
int op_removexattr(Mirror *mirror, const Request *request, const Prior *prior);
void op_forget(Mirror *mirror, const Request *request, uint32_t first);

int op_make(Mirror *mirror, const Request *request, const Prior *prior, Reply *reply);
int op_create(Mirror *mirror, const Request *request, const Prior *prior, Reply *reply);
int op_tmpfile(Mirror *mirror, const Request *request, Reply *reply);
int op_link(Mirror *mirror, const Request *request, const Prior *prior, Reply *reply);
int op_remove(Mirror *mirror, const Request *request, const Prior *prior);
int op_rename(Mirror *mirror, const Request *request, const Prior *prior);

int op_open(Mirror *mirror, const Request *request, Reply *reply);
int op_opendir(Mirror *mirror, const Request *request, Reply *reply);
int op_release(Mirror *mirror, const Request *request);
int op_flush(Mirror *mirror, const Request *request);
int op_lseek(Mirror *mirror, const Request *request, Reply *reply);
int op_readdir(Mirror *mirror, const Request *request, Reply *reply);
int op_readdirplus(Mirror *mirror, const Request *request, Reply *reply);
