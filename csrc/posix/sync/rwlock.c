#include "posix/sync/rwlock.h"

#include <limits.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "posix/sync/futex.h"

/* In the word of a slot: wake the waiters after leaving it. */
#define WAITED UINT64_C(0x80000000)
#define ID UINT64_C(0x3fffffff)         /* FUTEX_TID_MASK */
#define STARTED (UINT64_C(1) << 32)

int
pshm_rw_init(struct pshm_rwlock *rw)
{
    pshm_primitive_mark(&rw->entry);
    for (int i = 0; i < PSHM_SLOT_LINES; i++) {
        pshm_primitive_mark(&rw->lines[i]);
    }
    return pshm_lock_init(&rw->turnstile, 0);
}

int
pshm_rw_open(struct pshm_rwlock *rw, struct pshm_rw_state *state)
{
    static atomic_uint last;
    state->number =
        atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
    return pshm_lock_open(&rw->turnstile, 0, &state->turnstile);
}

static bool
is_inconsistent(const struct pshm_rwlock *rw)
{
    return atomic_load_explicit(&rw->turnstile.inconsistent,
                                memory_order_relaxed)
           != 0;
}

/* ---- Slots ---- */

static uint64_t
me(void)
{
    const struct pshm_thread *self = pshm_thread();
    return self->started * STARTED + self->id;
}

/* Is this thread in the slot? Not after execve(2). */
static bool
is_mine(const struct pshm_rw_slot *slot)
{
    return (atomic_load(&slot->reader) & ~WAITED) == me()
           && atomic_load_explicit(&slot->image, memory_order_relaxed)
                  == pshm_this_thread.image;
}

static struct pshm_rw_slot *
slot_at(const struct pshm_rwlock *rw, unsigned i)
{
    const struct pshm_rw_line *line = &rw->lines[i % PSHM_SLOT_LINES];
    return (struct pshm_rw_slot *)(uintptr_t)
        &line->slots[i / PSHM_SLOT_LINES % 2];
}

/* The half of the word that contains the id, on which waiters sleep. */
static atomic_uint *
futex_of(struct pshm_rw_slot *slot)
{
    atomic_uint *halves = (atomic_uint *)(void *)&slot->reader;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return &halves[0];
#else
    return &halves[1];
#endif
}

/* Returns NULL if all slots are taken. */
static struct pshm_rw_slot *
take_slot(struct pshm_rwlock *rw, struct pshm_rw_state *state)
{
    /* Threads begin at different slots. */
    unsigned first = pshm_thread()->id;
    for (unsigned i = first; i != first + PSHM_SLOTS; i++) {
        struct pshm_rw_slot *slot = slot_at(rw, i);
        uint64_t reader = atomic_load_explicit(&slot->reader,
                                               memory_order_relaxed);
        /* Sequentially consistent, as the load of the entry that follows. */
        if (reader == 0
            && atomic_compare_exchange_strong(&slot->reader, &reader, me())) {
            atomic_store_explicit(&slot->image, pshm_this_thread.image,
                                  memory_order_relaxed);
            atomic_store_explicit(&slot->object, state->number,
                                  memory_order_relaxed);
            atomic_fetch_add_explicit(&state->reads, 1, memory_order_relaxed);
            return slot;
        }
    }
    return NULL;
}

/* For the thread whose id is in the word. The other fields are cleared first,
 * so they are never those of an earlier reader. Release: a writer that finds
 * the slot empty comes after the reader. */
static void
leave_slot(struct pshm_rw_slot *slot)
{
    atomic_store_explicit(&slot->object, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->image, 0, memory_order_relaxed);
    if (atomic_exchange_explicit(&slot->reader, 0, memory_order_release)
        & WAITED) {
        (void)pshm_futex_wake(futex_of(slot), INT_MAX);
    }
}

static void
stop_reading(struct pshm_rw_slot *slot, struct pshm_rw_state *state)
{
    atomic_fetch_sub_explicit(&state->reads, 1, memory_order_relaxed);
    leave_slot(slot);
}

/* Empty the slot of another thread, if this is still its word. */
static bool
evict(struct pshm_rw_slot *slot, uint64_t word)
{
    bool mine = atomic_compare_exchange_strong(&slot->reader, &word,
                                               me() | (word & WAITED));
    if (mine) {
        leave_slot(slot);
    }
    return mine;
}

/* A slot in which this thread reads by this state, or NULL. */
static struct pshm_rw_slot *
my_slot(const struct pshm_rwlock *rw, const struct pshm_rw_state *state)
{
    unsigned first = pshm_thread()->id;
    for (unsigned i = first; i != first + PSHM_SLOTS; i++) {
        struct pshm_rw_slot *slot = slot_at(rw, i);
        if (is_mine(slot)
            && atomic_load_explicit(&slot->object, memory_order_relaxed)
                   == state->number) {
            return slot;
        }
    }
    return NULL;
}

/* In how many slots does this thread read, by any state? */
static int
count_mine(const struct pshm_rwlock *rw)
{
    int count = 0;
    for (unsigned i = 0; i < PSHM_SLOTS; i++) {
        count += is_mine(slot_at(rw, i));
    }
    return count;
}

/* Has the reader died, or replaced its program? False if that is unknown, or
 * if its id is of another PID namespace. */
static bool
is_gone(const struct pshm_rwlock *rw, const struct pshm_rw_slot *slot,
        uint64_t word)
{
    unsigned id = (unsigned)(word & ID);
    uint32_t space = atomic_load_explicit(&rw->header.space,
                                          memory_order_relaxed);
    uint32_t here = pshm_process_space();
    return (space == 0 || here == 0 || space == here)
           && (id == 0
               || pshm_thread_is_gone(
                   id, (unsigned)(word / STARTED),
                   atomic_load_explicit(&slot->image, memory_order_relaxed)));
}

/* For the owner of the turnstile: empty the slots of readers that are gone, at
 * most once in half a poll interval. Returns whether there were any. */
static bool
evict_in_time(struct pshm_rwlock *rw, struct pshm_rw_state *state)
{
    int64_t now = pshm_now_coarse();
    int64_t last = atomic_load_explicit(&state->looked, memory_order_relaxed);
    bool any = false;
    if (last != 0 && now - last < PSHM_POLL_INTERVAL / 2) {
        return false;
    }
    atomic_store_explicit(&state->looked, now, memory_order_relaxed);
    for (unsigned i = 0; i < PSHM_SLOTS; i++) {
        struct pshm_rw_slot *slot = slot_at(rw, i);
        uint64_t word = atomic_load(&slot->reader);
        if (word != 0 && is_gone(rw, slot, word)) {
            any = evict(slot, word) || any;
        }
    }
    return any;
}

/* ---- The turnstile ---- */

/* Release: a thread that finds the entry open sees what this thread wrote. */
static void
set_entry(struct pshm_rwlock *rw, unsigned entry)
{
    atomic_store_explicit(&rw->entry, entry, memory_order_release);
}

/* Returns 0 or -EOWNERDEAD with the turnstile locked, or another error. */
static int
lock_turnstile(struct pshm_rwlock *rw, struct pshm_rw_state *state,
               bool *pending, int64_t deadline)
{
    int rc = deadline > 0
                 ? pshm_lock_wait(&rw->turnstile, &state->turnstile, deadline)
                 : pshm_lock_try(&rw->turnstile, &state->turnstile);
    if (rc != 0 && rc != -EOWNERDEAD) {
        return rc == -EDEADLK && deadline <= 0 ? -EBUSY : rc;
    }
    *pending = true;
    state->writing = false;
    if (rc == -EOWNERDEAD && !is_inconsistent(rw)
        && !(atomic_load(&rw->entry) & PSHM_ENTRY_WRITING)) {
        pshm_lock_repair(&rw->turnstile);
        rc = 0;                         /* the dead owner did not write */
    }
    if (rc == -EOWNERDEAD) {
        atomic_store(&rw->turnstile.inconsistent, 1);
        set_entry(rw, PSHM_ENTRY_CLOSED);
    }
    return rc;
}

/* Unlock the turnstile. An inconsistent lock stays closed. */
void
pshm_rw_undo(struct pshm_rwlock *rw, struct pshm_rw_state *state,
             bool *pending)
{
    *pending = *pending && pshm_mutex_state_mine(&state->turnstile);
    if (*pending && is_inconsistent(rw)) {
        set_entry(rw, PSHM_ENTRY_CLOSED);
        pshm_lock_release_unrepaired(&rw->turnstile, &state->turnstile);
    }
    else if (*pending) {
        set_entry(rw, 0);
        (void)pshm_lock_release(&rw->turnstile, &state->turnstile);
    }
    *pending = false;
}

/* For the owner of the turnstile: wait until the slot may be empty. Returns 0,
 * -EBUSY, -EINTR or -ETIMEDOUT. */
static int
wait_for_slot(struct pshm_rwlock *rw, struct pshm_rw_state *state,
              struct pshm_rw_slot *slot, int64_t deadline)
{
    if (deadline == PSHM_RW_TRY) {
        return -EBUSY;
    }
    if (evict_in_time(rw, state)) {
        return 0;
    }
    uint64_t reader = atomic_load(&slot->reader);
    if (reader == 0
        || (!(reader & WAITED)
            && !atomic_compare_exchange_strong(&slot->reader, &reader,
                                               reader | WAITED))) {
        return 0;
    }
    return pshm_futex_wait(futex_of(slot), (unsigned)(reader | WAITED),
                           deadline);
}

/* ---- Acquiring ---- */

/* Take a slot as the owner of the turnstile. If all are taken, close the
 * entry, so that later readers do not take the next empty one. */
static int
take_slot_or_wait(struct pshm_rwlock *rw, struct pshm_rw_state *state,
                  int64_t deadline)
{
    while (take_slot(rw, state) == NULL) {
        unsigned other = 0;
        while (other < PSHM_SLOTS - 1 && is_mine(slot_at(rw, other))) {
            other++;
        }
        if (deadline == PSHM_NEVER && count_mine(rw) == PSHM_SLOTS) {
            return -EAGAIN;
        }
        set_entry(rw, PSHM_ENTRY_CLOSED);
        int rc = wait_for_slot(rw, state, slot_at(rw, other), deadline);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* Returns NULL if all slots are empty. */
static struct pshm_rw_slot *
taken_slot(const struct pshm_rwlock *rw)
{
    unsigned i = 0;
    while (i < PSHM_SLOTS && atomic_load(&slot_at(rw, i)->reader) == 0) {
        i++;
    }
    return i < PSHM_SLOTS ? slot_at(rw, i) : NULL;
}

/* Close the entry and wait until all slots are empty. */
static int
wait_for_readers(struct pshm_rwlock *rw, struct pshm_rw_state *state,
                 int64_t deadline)
{
    struct pshm_rw_slot *slot;
    int rc = 0;
    /* Sequentially consistent, as the loads of the slots that follow. */
    atomic_store(&rw->entry, PSHM_ENTRY_CLOSED);
    while (rc == 0 && (slot = taken_slot(rw)) != NULL) {
        rc = deadline == PSHM_NEVER && count_mine(rw) > 0
                 ? -EDEADLK : wait_for_slot(rw, state, slot, deadline);
    }
    return rc;
}

static bool
read_at_once(struct pshm_rwlock *rw, struct pshm_rw_state *state)
{
    struct pshm_rw_slot *slot = take_slot(rw, state);
    bool open = slot != NULL && atomic_load(&rw->entry) == 0;
    if (slot != NULL && !open) {
        stop_reading(slot, state);
    }
    return open;
}

int
pshm_rw_acquire(struct pshm_rwlock *rw, struct pshm_rw_state *state,
                bool writes, bool *pending, int64_t deadline)
{
    /* A child that a signal handler forked holds nothing. */
    *pending = *pending && pshm_mutex_state_mine(&state->turnstile);
    if (!*pending && !writes && read_at_once(rw, state)) {
        return 0;
    }
    int rc = *pending ? 0 : lock_turnstile(rw, state, pending, deadline);
    if (rc == 0) {
        rc = writes ? wait_for_readers(rw, state, deadline)
                    : take_slot_or_wait(rw, state, deadline);
    }
    if (rc == 0 && writes) {
        set_entry(rw, PSHM_ENTRY_CLOSED | PSHM_ENTRY_WRITING);
        state->writing = true;
        *pending = false;
    }
    else if (rc != -EINTR && rc != -EOWNERDEAD) {
        pshm_rw_undo(rw, state, pending);
    }
    return rc;
}

/* ---- Releasing ---- */

static int
stop_writing(struct pshm_rwlock *rw, struct pshm_rw_state *state)
{
    state->writing = false;
    set_entry(rw, is_inconsistent(rw) ? PSHM_ENTRY_CLOSED : 0);
    int rc = pshm_lock_release(&rw->turnstile, &state->turnstile);
    if (rc < 0) {
        /* Other threads may have held the lock at the same time. */
        atomic_store(&rw->turnstile.inconsistent, 1);
        set_entry(rw, PSHM_ENTRY_CLOSED);
        state->writing = pshm_mutex_state_mine(&state->turnstile);
    }
    return rc;
}

void
pshm_rw_release_unrepaired(struct pshm_rwlock *rw, struct pshm_rw_state *state)
{
    pshm_lock_begin_repair(&rw->turnstile);
    (void)stop_writing(rw, state);
}

int
pshm_rw_release(struct pshm_rwlock *rw, struct pshm_rw_state *state)
{
    if (pshm_rw_writes(state)) {
        return stop_writing(rw, state);
    }
    struct pshm_rw_slot *slot = my_slot(rw, state);
    if (slot == NULL) {
        return -EPERM;
    }
    stop_reading(slot, state);
    return 0;
}

bool
pshm_rw_writes(const struct pshm_rw_state *state)
{
    return pshm_mutex_state_mine(&state->turnstile) && state->writing;
}

bool
pshm_rw_reads(const struct pshm_rwlock *rw, const struct pshm_rw_state *state)
{
    return my_slot(rw, state) != NULL;
}

int
pshm_rw_readers(const struct pshm_rwlock *rw)
{
    bool writes = atomic_load(&rw->entry) & PSHM_ENTRY_WRITING;
    int count = writes ? -1 : 0;
    for (unsigned i = 0; !writes && i < PSHM_SLOTS; i++) {
        count += atomic_load(&slot_at(rw, i)->reader) != 0;
    }
    return count;
}

/* False for a thread that the process had before it forked. */
static bool
is_of_this_process(uint64_t word)
{
    return syscall(SYS_tgkill, pshm_process_id(), (pid_t)(word & ID), 0) == 0;
}

int
pshm_rw_abandon(struct pshm_rwlock *rw, struct pshm_rw_state *state)
{
    bool reads = atomic_load(&state->reads) > 0;
    /* A state that does not read leaves the memory alone: another process may
     * have truncated the object. */
    for (unsigned i = 0; reads && i < PSHM_SLOTS; i++) {
        struct pshm_rw_slot *slot = slot_at(rw, i);
        uint64_t word = atomic_load(&slot->reader);
        while (word != 0
               && atomic_load_explicit(&slot->object, memory_order_relaxed)
                      == state->number
               && is_of_this_process(word) && !evict(slot, word)) {
            word = atomic_load(&slot->reader);
        }
    }
    return pshm_lock_abandon(&rw->turnstile, &state->turnstile);
}
