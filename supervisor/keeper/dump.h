#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* How a supervisor is told the keeper's table. */

#include "supervisor/keeper/port.h"
#include "supervisor/keeper/table.h"

/* dump_flush() - as much of what @port has not been told of @table as its socket takes. */
PortFlushed dump_flush(Port *port, Table *table);
