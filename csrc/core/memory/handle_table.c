#include "core/memory/handle_table.h"

#include "posix/constants.h"

#define BUCKETS 256

struct handle_table {
    fields_mutex lock;                  /* taken before a handle's fields */
    atomic_size_t users;
    SharedMemoryObject *buckets[BUCKETS];
};

struct handle_table *
handle_table_new(void)
{
    struct handle_table *table = PyMem_RawCalloc(1, sizeof(*table));
    if (table != NULL) {
        atomic_init(&table->users, 1);
    }
    return table;
}

void
handle_table_drop(struct handle_table *table)
{
    if (table != NULL
        && atomic_fetch_sub_explicit(&table->users, 1, memory_order_acq_rel)
               == 1) {
        PyMem_RawFree(table);
    }
}

static SharedMemoryObject **
bucket(struct handle_table *table, struct pshm_identity id, bool readonly)
{
    return &table->buckets[((size_t)id.ino * 2 + readonly) % BUCKETS];
}

void
handle_table_add(struct handle_table *table, SharedMemoryObject *self)
{
    fields_lock(&table->lock);
    fields_lock(&self->fields);
    if (self->open && self->state.max_size == 0 && self->table_link == NULL) {
        SharedMemoryObject **first =
            bucket(table, self->state.id, self->state.readonly);
        self->table_next = *first;
        if (*first != NULL) {
            (*first)->table_link = &self->table_next;
        }
        *first = self;
        self->table_link = first;
        atomic_fetch_add_explicit(&table->users, 1, memory_order_relaxed);
        atomic_store_explicit(&self->table, table, memory_order_release);
    }
    fields_unlock(&self->fields);
    fields_unlock(&table->lock);
}

void
handle_table_remove(SharedMemoryObject *self)
{
    struct handle_table *table = atomic_load_explicit(&self->table,
                                                      memory_order_acquire);
    if (table == NULL) {
        return;
    }
    bool removed = false;
    fields_lock(&table->lock);
    if (self->table_link != NULL) {
        *self->table_link = self->table_next;
        if (self->table_next != NULL) {
            self->table_next->table_link = self->table_link;
        }
        self->table_link = NULL;
        atomic_store_explicit(&self->table, NULL, memory_order_relaxed);
        removed = true;
    }
    fields_unlock(&table->lock);
    if (removed) {
        handle_table_drop(table);
    }
}

/* A handle in the table may be in its deallocator, which removes it from the
 * table before it releases anything. So take a reference to its descriptor and
 * its map, but not to the handle. */
bool
handle_table_take(struct handle_table *table, struct pshm_identity id,
                  bool readonly, handle_state *out)
{
    const int prot = readonly ? PROT_READ : PROT_READ | PROT_WRITE;
    bool found = false;
    fields_lock(&table->lock);
    SharedMemoryObject *at = *bucket(table, id, readonly);
    for (; at != NULL && !found; at = at->table_next) {
        fields_lock(&at->fields);
        if (at->open && at->state.fd != NULL
            && pshm_identity_same(at->state.id, id)
            && at->state.map->prot == prot
            && mapping_decide(at->state.map, MAPPING_SHARED)) {
            out->fd = fdref_take(at->state.fd);
            out->map = (MemoryMapObject *)Py_NewRef(at->state.map);
            out->locked = at->state.locked;
            out->last = at->state.last;
            found = true;
        }
        fields_unlock(&at->fields);
    }
    fields_unlock(&table->lock);
    return found;
}
