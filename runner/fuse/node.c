/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Nodes: the inodes that the kernel knows by number. The table says which, this file finds them by what they are on disk
 * and opens them. Where the file system has file handles, a node is opened by its handle when it is needed, and a bounded
 * number of descriptors is kept open by their use; where it has none, each node has its descriptor, which lies in the vault,
 * too. A node number is an index with the generation of its use, so that none is ever used again.
 *
 * Two files can have the same inode number one after the other. The handle tells them apart; without handles, the
 * descriptor that is kept open does, since its inode cannot be used again meanwhile.
 *
 * Names are looked up one component at a time (openat2 with RESOLVE_BENEATH, O_NOFOLLOW), and never into another file
 * system: what is mounted below the directory is not part of the mirror.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"
#include "runner/fuse/mirror.h"

#define NOBODY 0u

typedef union HandleRoom {
        struct file_handle handle;
        uint8_t bytes[sizeof(struct file_handle) + TABLE_HANDLE_MAX];
} HandleRoom;

static TableInode *inode_of(const Mirror *mirror, uint32_t index) {
        return &mirror->table.inodes[index];
}

uint64_t node_number(const Mirror *mirror, uint32_t index) {
        return (uint64_t) inode_of(mirror, index)->generation << 32 | index;
}

void node_path(int fd, char path[NODE_PATH_SIZE]) {
        (void) snprintf(path, NODE_PATH_SIZE, "/proc/self/fd/%d", fd);
}

/* ---- descriptors by their use ---- */

static void unlist(Mirror *mirror, uint32_t index) {
        Node *node = &mirror->nodes[index];

        if (node->older)
                mirror->nodes[node->older].newer = node->newer;
        else if (mirror->oldest == index)
                mirror->oldest = node->newer;
        if (node->newer)
                mirror->nodes[node->newer].older = node->older;
        else if (mirror->newest == index)
                mirror->newest = node->older;
        node->older = node->newer = NOBODY;
}

static void list_as_newest(Mirror *mirror, uint32_t index) {
        Node *node = &mirror->nodes[index];

        node->older = mirror->newest;
        if (mirror->newest)
                mirror->nodes[mirror->newest].newer = index;
        else
                mirror->oldest = index;
        mirror->newest = index;
}

static void close_node(Mirror *mirror, uint32_t index) {
        Node *node = &mirror->nodes[index];

        if (node->fd < 0)
                return;
        if (!node->pinned) {
                unlist(mirror, index);
                mirror->n_fds--;
        }
        node->fd = fd_close(node->fd);
}

/* hold() - @fd_consume is the node's from here on. */
static void hold(Mirror *mirror, uint32_t index, int fd_consume) {
        Node *node = &mirror->nodes[index];

        if (node->fd >= 0) {
                fd_close(fd_consume);
                return;
        }
        if (!node->pinned) {
                if (mirror->n_fds >= mirror->max_fds && mirror->oldest)
                        close_node(mirror, mirror->oldest);
                list_as_newest(mirror, index);
                mirror->n_fds++;
        }
        node->fd = fd_consume;
}

/* pin() - not to be closed any more. */
static void pin(Mirror *mirror, uint32_t index) {
        Node *node = &mirror->nodes[index];

        if (node->pinned)
                return;
        if (node->fd >= 0) {
                unlist(mirror, index);
                mirror->n_fds--;
        }
        node->pinned = true;
}

/* ---- finding ---- */

static uint32_t *bucket_of(Mirror *mirror, uint64_t ino) {
        return &mirror->buckets[(ino * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (mirror->n_buckets - 1)];
}

static void enter(Mirror *mirror, uint32_t index) {
        uint32_t *bucket = bucket_of(mirror, inode_of(mirror, index)->ino);

        mirror->nodes[index].chain = *bucket;
        *bucket = index;
}

static void leave(Mirror *mirror, uint32_t index) {
        uint32_t *p = bucket_of(mirror, inode_of(mirror, index)->ino);

        while (*p && *p != index)
                p = &mirror->nodes[*p].chain;
        if (*p)
                *p = mirror->nodes[index].chain;
}

/* grow_buckets() - as many as there are nodes. Without memory the chains get longer, and all is as before. */
static void grow_buckets(Mirror *mirror) {
        uint32_t n = mirror->n_buckets * 2, *old = mirror->buckets, n_old = mirror->n_buckets;
        uint32_t *buckets = mirror->n_live > mirror->n_buckets ? calloc(n, sizeof(*buckets)) : NULL;

        if (!buckets)
                return;
        mirror->buckets = buckets;
        mirror->n_buckets = n;
        for (uint32_t i = 0; i < n_old; i++)
                for (uint32_t index = old[i], next; index; index = next) {
                        next = mirror->nodes[index].chain;
                        enter(mirror, index);
                }
        free(old);
}

static bool same_handle(const TableInode *inode, const HandleRoom *room) {
        return inode->handle_size == room->handle.handle_bytes && inode->handle_type == room->handle.handle_type &&
               memcmp(inode->handle, room->handle.f_handle, inode->handle_size) == 0;
}

/* find() - the live node of @ino with this handle; one of another handle is a file that is gone. */
static uint32_t find(Mirror *mirror, uint64_t ino, const HandleRoom *room) {
        for (uint32_t index = *bucket_of(mirror, ino); index; index = mirror->nodes[index].chain)
                if (inode_of(mirror, index)->ino == ino &&
                    (room->handle.handle_bytes == 0 || inode_of(mirror, index)->handle_size == 0 ||
                     same_handle(inode_of(mirror, index), room)))
                        return index;
        return NOBODY;
}

/* read_handle() - of @fd, or of @name in it; none (0 bytes) where handles are of no use. */
static void read_handle(const Mirror *mirror, int fd, const char *name, HandleRoom *ret_room) {
        int id;

        ret_room->handle.handle_bytes = TABLE_HANDLE_MAX;
        if (!mirror->handles ||
            name_to_handle_at(fd, name, &ret_room->handle, &id, name[0] == '\0' ? AT_EMPTY_PATH : 0) < 0)
                ret_room->handle.handle_bytes = 0;
}

uint32_t node_find(Mirror *mirror, int parent, const char *name, uint64_t ino) {
        HandleRoom room;

        if (*bucket_of(mirror, ino) == NOBODY)
                return NOBODY;
        read_handle(mirror, parent, name, &room);
        return find(mirror, ino, &room);
}

int node_of(Mirror *mirror, uint64_t number, uint32_t *ret_index) {
        uint32_t index = (uint32_t) number;

        if (index == NOBODY || index >= mirror->table.header->n_inodes || inode_of(mirror, index)->lookups == 0 ||
            number != node_number(mirror, index))
                return -ESTALE;
        *ret_index = index;
        return 0;
}

static int open_by_handle(const Mirror *mirror, const TableInode *inode, int flags) {
        HandleRoom room = { .handle = { .handle_bytes = inode->handle_size, .handle_type = inode->handle_type } };
        int fd;

        memcpy(room.handle.f_handle, inode->handle, inode->handle_size);
        fd = open_by_handle_at(mirror->root, &room.handle, flags | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

int node_fd(Mirror *mirror, uint32_t index) {
        Node *node = &mirror->nodes[index];
        int fd;

        if (node->fd >= 0) {
                if (!node->pinned && mirror->newest != index) {
                        unlist(mirror, index);
                        list_as_newest(mirror, index);
                }
                return node->fd;
        }
        if (inode_of(mirror, index)->handle_size == 0)
                return -ESTALE;
        fd = open_by_handle(mirror, inode_of(mirror, index), O_PATH | O_NOFOLLOW);
        if (fd >= 0)
                hold(mirror, index, fd);
        return fd;
}

int node_fd_of(Mirror *mirror, uint64_t number) {
        uint32_t index;
        int r = node_of(mirror, number, &index);

        return r < 0 ? r : node_fd(mirror, index);
}

int node_reopen(Mirror *mirror, uint32_t index, int flags) {
        char name[16];
        int fd = node_fd(mirror, index);

        if (fd < 0)
                return fd;
        (void) snprintf(name, sizeof(name), "%d", fd);
        fd = openat(mirror->proc, name, flags | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

/* ---- coming and going ---- */

static int make_room(Mirror *mirror, uint32_t n) {
        uint32_t room = MAX(n, mirror->n_nodes_room * 2);
        Node *nodes;

        if (n <= mirror->n_nodes_room)
                return 0;
        nodes = reallocarray(mirror->nodes, room, sizeof(*nodes));
        if (!nodes)
                return -ENOMEM;
        for (uint32_t i = mirror->n_nodes_room; i < room; i++)
                nodes[i] = (Node){ .fd = -1 };
        mirror->nodes = nodes;
        mirror->n_nodes_room = room;
        return 0;
}

/* take_index() - a free one. */
static int take_index(Mirror *mirror, uint32_t *ret_index) {
        TableHeader *header = mirror->table.header;
        uint32_t index = mirror->free_node;
        int r;

        if (index) {
                mirror->free_node = mirror->nodes[index].chain;
        } else {
                if (header->n_inodes == header->max_inodes)
                        return -ENFILE;
                r = make_room(mirror, header->n_inodes + 1);
                if (r < 0)
                        return r;
                index = header->n_inodes++;
        }
        *ret_index = index;
        return 0;
}

static void give_index(Mirror *mirror, uint32_t index) {
        mirror->nodes[index].chain = mirror->free_node;
        mirror->free_node = index;
}

static int find_kept(uint64_t number, void *userdata) {
        Mirror *mirror = userdata;
        uint32_t index;

        return node_of(mirror, number, &index) == 0 && inode_of(mirror, index)->kept ? mirror->nodes[index].fd : -1;
}

/* write_inode() - all but its references, without which it is not there. */
static void write_inode(Mirror *mirror, uint32_t index, uint64_t ino, const HandleRoom *room) {
        TableInode *inode = inode_of(mirror, index);

        inode->ino = ino;
        inode->generation = ++mirror->table.header->generation;
        inode->handle_size = room->handle.handle_bytes;
        inode->handle_type = room->handle.handle_bytes ? room->handle.handle_type : 0;
        memcpy(inode->handle, room->handle.f_handle, inode->handle_size);
        inode->kept = 0;
}

/* add() - a node for what @fd_consume is. The caller counts the reference. */
static int add(Mirror *mirror, int fd_consume, uint64_t ino, const HandleRoom *room, uint32_t *ret_index) {
        _cleanup_fd_ int fd = fd_consume;
        uint32_t index;
        int r = take_index(mirror, &index);

        if (r < 0)
                return r;
        write_inode(mirror, index, ino, room);
        if (room->handle.handle_bytes == 0) {
                r = vault_put(&mirror->vault, node_number(mirror, index), fd);
                if (r < 0) {
                        give_index(mirror, index);
                        return -ENFILE;
                }
                inode_of(mirror, index)->kept = 1;
                pin(mirror, index);
        }
        hold(mirror, index, fd_take(&fd));
        enter(mirror, index);
        mirror->n_live++;
        grow_buckets(mirror);
        *ret_index = index;
        return 0;
}

static void drop(Mirror *mirror, uint32_t index) {
        bool kept = inode_of(mirror, index)->kept;

        leave(mirror, index);
        close_node(mirror, index);
        mirror->nodes[index] = (Node){ .fd = -1 };
        give_index(mirror, index);
        mirror->n_live--;
        if (kept)
                vault_drop(&mirror->vault, find_kept, mirror);
}

int node_adopt(Mirror *mirror, int fd_consume, uint32_t *ret_index, struct stat *ret_stat) {
        _cleanup_fd_ int fd = fd_consume;
        HandleRoom room;
        uint32_t index;
        int r;

        if (fstatat(fd, "", ret_stat, AT_EMPTY_PATH) < 0)
                return -errno;
        read_handle(mirror, fd, "", &room);
        index = ret_stat->st_ino == inode_of(mirror, TABLE_ROOT)->ino ? (uint32_t) TABLE_ROOT
                                                                      : find(mirror, ret_stat->st_ino, &room);
        if (index == NOBODY) {
                r = add(mirror, fd_take(&fd), ret_stat->st_ino, &room, &index);
                if (r < 0)
                        return r;
        } else if (index != TABLE_ROOT) {
                hold(mirror, index, fd_take(&fd));
        }
        r = journal_entry(mirror, index);
        if (r < 0 && inode_of(mirror, index)->lookups == 0)
                drop(mirror, index);
        *ret_index = index;
        return r;
}

static int open_name(int parent, const char *name) {
        struct open_how how = {
                .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS,
        };
        int fd;

        do
                fd = (int) syscall(SYS_openat2, parent, name, &how, sizeof(how));
        while (fd < 0 && errno == EAGAIN); /* something was renamed meanwhile */
        return fd < 0 ? -errno : fd;
}

int node_lookup(Mirror *mirror, int parent, const char *name, uint32_t *ret_index, struct stat *ret_stat) {
        int fd = open_name(parent, name);

        return fd < 0 ? fd : node_adopt(mirror, fd, ret_index, ret_stat);
}

void node_forget(Mirror *mirror, uint64_t number, uint64_t n) {
        TableInode *inode;
        uint32_t index;

        if (node_of(mirror, number, &index) < 0 || index == TABLE_ROOT)
                return;
        inode = inode_of(mirror, index);
        inode->lookups -= MIN(n, inode->lookups);
        if (inode->lookups == 0)
                drop(mirror, index);
}

/*
 * A file that somebody has open, and a directory that somebody is in, live on without a name; what nobody uses the kernel
 * forgets at once, so it is held, and not put away. A failure (the vault is full) costs something only if this process dies
 * before the file is closed.
 */
bool node_keep(Mirror *mirror, uint32_t index, bool used) {
        TableInode *inode = inode_of(mirror, index);
        bool pinned;
        int fd;

        if (index == TABLE_ROOT || inode->kept)
                return false;
        fd = node_fd(mirror, index);
        if (fd < 0)
                return false;
        pinned = mirror->nodes[index].pinned;
        pin(mirror, index);
        if (used && vault_put(&mirror->vault, node_number(mirror, index), fd) == 0)
                inode->kept = 1;
        return !pinned;
}

void node_unkeep(Mirror *mirror, uint32_t index) {
        Node *node = &mirror->nodes[index];
        int fd = fd_take(&node->fd);
        bool kept = inode_of(mirror, index)->kept;

        node->pinned = false;
        inode_of(mirror, index)->kept = 0;
        if (fd >= 0)
                hold(mirror, index, fd);
        if (kept)
                vault_drop(&mirror->vault, find_kept, mirror);
}

/* ---- loading ---- */

static int take_kept(uint64_t number, int fd_consume, void *userdata) {
        _cleanup_fd_ int fd = fd_consume;
        Mirror *mirror = userdata;
        uint32_t index;

        if (node_of(mirror, number, &index) < 0 || mirror->nodes[index].fd >= 0)
                return 0; /* dropped, and not taken out; or the second of two */
        inode_of(mirror, index)->kept = 1;
        pin(mirror, index);
        hold(mirror, index, fd_take(&fd));
        return 0;
}

static int load_root(Mirror *mirror) {
        TableInode *root = inode_of(mirror, TABLE_ROOT);
        struct stat stat;
        int fd;

        if (fstat(mirror->root, &stat) < 0)
                return -errno;
        fd = fd_dup(mirror->root);
        if (fd < 0)
                return fd;
        mirror->device = stat.st_dev;
        root->ino = stat.st_ino;
        root->generation = 0;
        root->lookups = 1;
        pin(mirror, TABLE_ROOT);
        hold(mirror, TABLE_ROOT, fd);
        return 0;
}

/* try_handles() - whether we can open by handle what we can name. */
static bool try_handles(Mirror *mirror) {
        HandleRoom room;
        int id, fd;

        room.handle.handle_bytes = TABLE_HANDLE_MAX;
        if (name_to_handle_at(mirror->root, "", &room.handle, &id, AT_EMPTY_PATH) < 0)
                return false;
        fd = open_by_handle_at(mirror->root, &room.handle, O_PATH | O_CLOEXEC);
        if (fd < 0)
                return false;
        fd_close(fd);
        return true;
}

int node_load(Mirror *mirror) {
        uint32_t n = mirror->table.header->n_inodes;
        int r;

        mirror->n_buckets = 1024;
        mirror->buckets = calloc(mirror->n_buckets, sizeof(*mirror->buckets));
        if (!mirror->buckets)
                return -ENOMEM;
        r = make_room(mirror, n);
        if (r == 0)
                r = load_root(mirror);
        if (r < 0)
                return r;
        mirror->handles = try_handles(mirror);
        for (uint32_t i = n - 1; i > TABLE_ROOT; i--)
                if (inode_of(mirror, i)->lookups == 0) {
                        give_index(mirror, i);
                } else {
                        enter(mirror, i);
                        mirror->n_live++;
                        grow_buckets(mirror);
                }
        return vault_load(&mirror->vault, take_kept, mirror);
}

void node_unload(Mirror *mirror) {
        for (uint32_t i = 0; i < mirror->n_nodes_room; i++)
                fd_close(mirror->nodes[i].fd);
        free(mirror->nodes);
        free(mirror->buckets);
        mirror->nodes = NULL;
        mirror->buckets = NULL;
        mirror->n_nodes_room = mirror->n_buckets = mirror->n_live = mirror->n_fds = 0;
        mirror->free_node = mirror->oldest = mirror->newest = NOBODY;
}
