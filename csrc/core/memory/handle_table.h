/* The handles that were pickled or unpickled in this interpreter: a weak table,
 * so that unpickling an object which this process has mapped already shares
 * that descriptor and that map.
 *
 * A handle that grows in place (max_size) is never shared. */
#ifndef CORE_HANDLE_TABLE_H
#define CORE_HANDLE_TABLE_H

#include "core/memory/handle.h"

/* Owned by the module's state, and by every handle that is in it. */
struct handle_table *handle_table_new(void);
void handle_table_drop(struct handle_table *table);

/* Add an open handle, unless it is in a table. */
void handle_table_add(struct handle_table *table, SharedMemoryObject *self);

/* Remove it, if it is in one. */
void handle_table_remove(SharedMemoryObject *self);

/* Does the table have an open handle of that object and access, with all its
 * rights, whose map protect() has not changed?  If so, fill body with new
 * references to its descriptor and map. */
bool handle_table_take(struct handle_table *table, struct pshm_identity id,
                       bool readonly, handle_state *body);

#endif
