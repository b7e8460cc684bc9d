/* The handles that were pickled or unpickled in this interpreter.
 *
 * The table is weak. If this process has mapped an object already, unpickling
 * it shares the descriptor and the map. A handle that grows in place
 * (max_size) is not in the table. */
#ifndef CORE_HANDLE_TABLE_H
#define CORE_HANDLE_TABLE_H

#include "core/memory/handle.h"

/* The module's state and every handle in the table own it together. */
struct handle_table *handle_table_new(void);
void handle_table_drop(struct handle_table *table);

/* Add an open handle, unless it is in a table. */
void handle_table_add(struct handle_table *table, SharedMemoryObject *self);

/* Remove a handle, if it is in a table. */
void handle_table_remove(SharedMemoryObject *self);

/* Find an open handle of that object and access, with all its rights, whose map
 * protect() has not changed. Returns whether there is one, and if so sets the
 * descriptor and the map of *out to new references. */
bool handle_table_take(struct handle_table *table, struct pshm_identity id,
                       bool readonly, handle_state *out);

#endif
