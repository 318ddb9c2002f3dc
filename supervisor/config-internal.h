#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What the files config-*.c share: the way from text to a Config. Nobody else includes this. */

#include "supervisor/config.h"

/* config_time_parse() - five fields of crontab(5). False: it is not such a time. */
bool config_time_parse(const char *text, ConfigTime *ret_time);
