#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The upgrades of a runner that are over: remembered, written down for a supervisor that follows, and read. */

#include "supervisor/save.h"
#include "supervisor/upgrade.h"

/* upgrade_history_add() - @record, with its reason, which is taken on every path. Without memory it is in the log alone. */
void upgrade_history_add(UpgradeHistory **history, UpgradeRecord *record);

/* upgrade_history_save() - those from the @first on, from 0; NULL: @history is NULL, or no memory, and noted. */
Baton__Snapshot__Upgrades *upgrade_history_save(Save *save, const UpgradeHistory *history, unsigned first);

/* upgrade_history_restore() - those of @message follow what is in @history, which is made where it is NULL. */
void upgrade_history_restore(UpgradeHistory **history, const Baton__Snapshot__Upgrades *message);
