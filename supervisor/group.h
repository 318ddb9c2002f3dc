#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Groups: runners that are restarted together, and a limit of restarts for all of them, in a tree. A group that reaches its
 * limit is the failure of a member of the group above; when the one at the top has reached its own, it has failed with
 * all that is in it, says so, and whatever is not in it goes on.
 */

#include <stdbool.h>

#include "supervisor/config.h"
#include "supervisor/runner.h"

TAILQ_HEAD(GroupRunners, Runner);
TAILQ_HEAD(GroupList, Group);

struct Group {
        TAILQ_ENTRY(Group) link;    /* in the supervisor's */
        TAILQ_ENTRY(Group) sibling; /* in the parent's */
        Supervisor *supervisor;
        Group *parent;               /* NULL: none */
        const GroupConfig *config;   /* of the configuration that holds */
        unsigned position;           /* among the members of its parent */
        struct GroupRunners runners; /* its own; their `position' and the groups' are of one count */
        struct GroupList groups;
        PolicyWindow window; /* of restarts */
        bool restarting;     /* some of its members are on their way down to come back together */
        char *why;           /* it has failed, because; NULL: it has not */
};

/*
 * groups_apply() - makes the groups of @config, which stays for as long as they are, and puts each runner into its own.
 * Counters of groups that were there before go on. 0; -ENOMEM: nothing has changed.
 */
int groups_apply(Supervisor *supervisor, const Config *config);
void groups_free(Supervisor *supervisor);

/* group_leave() - it is a member of none any more. */
void group_leave(Runner *runner);

/* group_save() - for a successor. 0 or -ENOMEM. group_restore() - what a group of that name was, if there is one. */
typedef struct Baton__Snapshot__Group Baton__Snapshot__Group;
int group_save(const Group *group, Baton__Snapshot__Group **ret_message);
void group_restore(const Supervisor *supervisor, const Baton__Snapshot__Group *message);

/* group_find() - or NULL. */
Group *group_find(const Supervisor *supervisor, const char *name);

/*
 * group_allows() - @runner, of this group, has ended (@text) and would be restarted: one more restart of the group, or of one
 * above. True: it may, and those that go with it have been told to. False: the limits are reached; the members of the
 * group at the top fail, and runner->why says so.
 */
bool group_allows(Group *group, Runner *runner, const char *text);

/* group_holds() - a member that @runner has to wait for because they come back together, or NULL. */
const Runner *group_holds(const Runner *runner);

/* group_changed() - the state of a member has. */
void group_changed(Runner *runner);

/* group_forgive() - its counters, and those above, are as new; it has not failed. */
void group_forgive(Group *group);
