#include "check.h"
#include "peers.h"
#include "posix/host.h"
#include "posix/sync/rwlock.h"

#include <pthread.h>
#include <sched.h>

/* The protected data: two words that are equal while no thread writes, except
 * after a death. */
struct place {
    struct pshm_rwlock rw;
    volatile long first, second;
    atomic_uint writers, steps, owner_deaths, stopped;
};

struct peer {
    struct place *place;
    struct pshm_rwlock *rw;
    struct pshm_rw_state state;
};

/* Another Python object for the same lock. */
static struct peer
open_again(struct place *place)
{
    struct peer peer = {.place = place, .rw = &place->rw};
    CHECK_IS(pshm_rw_open(peer.rw, &peer.state), 0);
    return peer;
}

static struct peer
make(void)
{
    struct place *place = shared_memory(sizeof(struct place));
    CHECK_IS(pshm_rw_init(&place->rw), 0);
    return open_again(place);
}

static void
unmake(struct peer *peer)
{
    CHECK(munmap(peer->place, sizeof(struct place)) == 0);
}

static int
acquire(struct peer *peer, bool writes, bool *pending, int64_t deadline)
{
    int rc;
    PATIENTLY(rc, pshm_rw_acquire(peer->rw, &peer->state, writes, pending,
                                  deadline));
    CHECK(*pending == (rc == -EOWNERDEAD));
    return rc;
}

static int
acquire_until(struct peer *peer, bool writes, int64_t deadline)
{
    bool pending = false;
    int rc = acquire(peer, writes, &pending, deadline);
    pshm_rw_undo(peer->rw, &peer->state, &pending);
    return rc;
}

static bool
is_held(const struct peer *peer)
{
    return pshm_mutex_state_held(&peer->state.turnstile)
           || pshm_rw_reads(peer->rw, &peer->state);
}

static int
begin_to_read(struct peer *peer)
{
    return acquire_until(peer, false, before_long());
}

static int
begin_to_write(struct peer *peer)
{
    return acquire_until(peer, true, before_long());
}

/* Acquire it also if the last owner died. Returns 0; or -EOWNERDEAD: acquired,
 * to be repaired. */
static int
begin_to_repair(struct peer *peer)
{
    bool pending = false;
    int first = acquire(peer, true, &pending, before_long());
    int rc = first == -EOWNERDEAD
                 ? acquire(peer, true, &pending, before_long()) : first;
    return rc == 0 ? first : rc;
}

static int
stop(struct peer *peer)
{
    return pshm_rw_release(peer->rw, &peer->state);
}

static void
repair_it(struct peer *peer)
{
    CHECK_IS(begin_to_repair(peer), -EOWNERDEAD);
    pshm_lock_repair(&peer->rw->turnstile);
    CHECK_IS(stop(peer), 0);
}

/* ---- threads that may hold it together ---- */

static int
can_read(void *context)
{
    struct peer *peer = context;
    CHECK_IS(acquire_until(peer, false, PSHM_RW_NOW), 0);
    CHECK(pshm_rw_reads(peer->rw, &peer->state));
    CHECK_IS(stop(peer), 0);
    CHECK(!is_held(peer));
    return 0;
}

static int
can_write(void *context)
{
    struct peer *peer = context;
    CHECK_IS(acquire_until(peer, true, PSHM_RW_NOW), 0);
    CHECK(pshm_rw_writes(&peer->state));
    CHECK_IS(stop(peer), 0);
    CHECK(!is_held(peer));
    return 0;
}

static void
check_busy(struct peer *peer, bool writes)
{
    int rc = acquire_until(peer, writes, PSHM_RW_NOW);
    CHECK(rc == -EBUSY || rc == -ETIMEDOUT);
    CHECK_IS(acquire_until(peer, writes, PSHM_RW_TRY), -EBUSY);
    int64_t start = pshm_now();
    CHECK_IS(acquire_until(peer, writes, start + 20 * MS), -ETIMEDOUT);
    CHECK(took(start, 20));
    CHECK(!is_held(peer));
    CHECK_IS(stop(peer), -EPERM);
}

static int
cannot_write(void *context)
{
    check_busy(context, true);
    return 0;
}

static int
cannot_read(void *context)
{
    check_busy(context, false);
    return 0;
}

static int
read_until_stopped(void *context)
{
    struct peer *peer = context;
    CHECK_IS(begin_to_read(peer), 0);
    (void)atomic_fetch_add(&peer->place->steps, 1);
    while (atomic_load(&peer->place->stopped) == 0) {
        (void)usleep(100);
    }
    CHECK_IS(stop(peer), 0);
    return 0;
}

static void
reader_waits_for_a_slot(void)
{
    struct peer peer = make();
    pid_t reader = child_start(read_until_stopped, &peer);
    await(&peer.place->steps, 1);
    for (int i = 1; i < PSHM_SLOTS; i++) {
        CHECK_IS(begin_to_read(&peer), 0);
    }
    CHECK_IS(acquire_until(&peer, false, in_ms(5)), -ETIMEDOUT);
    atomic_store(&peer.place->stopped, 1);
    CHECK_IS(begin_to_read(&peer), 0);
    CHECK_IS(child_wait(reader), 0);
    unmake(&peer);
}

static void
writer_that_waits_keeps_new_readers_out(void)
{
    struct peer peer = make();
    bool pending = false;
    pid_t reader = child_start(read_until_stopped, &peer);
    await(&peer.place->steps, 1);
    int64_t start = pshm_now();
    CHECK_IS(pshm_rw_acquire(peer.rw, &peer.state, true, &pending, PSHM_NEVER),
             -EINTR);
    CHECK(took(start, 50));
    CHECK(pending);
    CHECK(!pshm_rw_writes(&peer.state));
    CHECK_IS(child_run(cannot_read, &peer), 0);
    CHECK_IS(child_run(cannot_write, &peer), 0);
    /* the writer may stop waiting */
    pshm_rw_undo(peer.rw, &peer.state, &pending);
    CHECK(!pending);
    CHECK(!is_held(&peer));
    CHECK_IS(child_run(can_read, &peer), 0);
    /* or continue */
    CHECK_IS(pshm_rw_acquire(peer.rw, &peer.state, true, &pending, PSHM_NEVER),
             -EINTR);
    atomic_store(&peer.place->stopped, 1);
    CHECK_IS(acquire(&peer, true, &pending, before_long()), 0);
    CHECK_IS(stop(&peer), 0);
    CHECK_IS(child_wait(reader), 0);
    unmake(&peer);
}

/* ---- a reader and a writer that meet at each step ---- */

struct pair {
    struct peer reader, writer;
    int read, written;
};

static void
begin_pair(void *context)
{
    struct pair *pair = context;
    pair->read = pair->written = 1;
}

static void
try_to_read(void *context)
{
    struct pair *pair = context;
    pair->read = acquire_until(&pair->reader, false, PSHM_RW_TRY);
}

static void
try_to_write(void *context)
{
    struct pair *pair = context;
    pair->written = acquire_until(&pair->writer, true, PSHM_RW_TRY);
}

static void
one_at_most(void *context)
{
    struct pair *pair = context;
    CHECK(pair->read == 0 || pair->read == -EBUSY);
    CHECK(pair->written == 0 || pair->written == -EBUSY);
    CHECK(pair->read != 0 || pair->written != 0);
    CHECK_IS(stop(&pair->reader), pair->read == 0 ? 0 : -EPERM);
    CHECK_IS(stop(&pair->writer), pair->written == 0 ? 0 : -EPERM);
    CHECK_IS(child_run(can_write, &pair->writer), 0);
}

static void
reader_and_writer_exclude_each_other(void)
{
    struct pair pair = {.writer = make()};
    pair.reader = open_again(pair.writer.place);
    meet_at_each_step(&(struct meeting){begin_pair, try_to_read, try_to_write,
                                        one_at_most},
                      &pair);
    meet_at_each_step(&(struct meeting){begin_pair, try_to_write, try_to_read,
                                        one_at_most},
                      &pair);
    unmake(&pair.writer);
}

/* ---- a deallocated object ---- */

struct thread {
    struct peer peer;
    pthread_t thread;
    bool writes;
    atomic_uint state;
};

static void *
hold_it(void *context)
{
    struct thread *thread = context;
    intptr_t wrong = thread->writes ? begin_to_write(&thread->peer) != 0
                                    : begin_to_read(&thread->peer) != 0;
    atomic_store(&thread->state, 1);
    while (atomic_load(&thread->state) != 2) {
        (void)usleep(100);
    }
    return (void *)wrong;
}

static int
abandon_it(void *context)
{
    struct peer *peer = context;
    return pshm_rw_abandon(peer->rw, &peer->state);
}

/* Its own readers stop reading, but not those of another object or process. */
static void
readers_of_a_deallocated_object_stop(void)
{
    struct thread thread = {.peer = make()};
    struct peer *peer = &thread.peer, other = open_again(peer->place);
    void *wrong;
    pid_t reader = child_start(read_until_stopped, peer);
    await(&peer->place->steps, 1);
    CHECK(pthread_create(&thread.thread, NULL, hold_it, &thread) == 0);
    await(&thread.state, 1);
    CHECK_IS(begin_to_read(peer), 0);
    CHECK_IS(begin_to_read(&other), 0);
    CHECK_IS(child_run(abandon_it, peer), 0);
    CHECK_IS(pshm_rw_readers(peer->rw), 4);
    CHECK_IS(abandon_it(peer), 0);
    CHECK_IS(pshm_rw_readers(peer->rw), 2);
    CHECK_IS(stop(&other), 0);
    atomic_store(&thread.state, 2);
    CHECK(pthread_join(thread.thread, &wrong) == 0);
    CHECK(wrong == NULL);
    atomic_store(&peer->place->stopped, 1);
    CHECK_IS(child_wait(reader), 0);
    unmake(peer);
}

/* The turnstile is still in the list of the thread. */
static void
writer_of_a_deallocated_object_counts_as_dead(void)
{
    struct thread thread = {.peer = make(), .writes = true};
    struct peer *peer = &thread.peer, other = open_again(peer->place);
    void *wrong;
    CHECK(pthread_create(&thread.thread, NULL, hold_it, &thread) == 0);
    await(&thread.state, 1);
    CHECK_IS(abandon_it(peer), -EBUSY);
    CHECK_IS(acquire_until(&other, false, before_long()), -EINPROGRESS);
    CHECK_IS(acquire_until(&other, true, before_long()), -EINPROGRESS);
    atomic_store(&thread.state, 2);
    CHECK(pthread_join(thread.thread, &wrong) == 0);
    CHECK(wrong == NULL);
    CHECK_IS(acquire_until(&other, false, before_long()), -EOWNERDEAD);
    repair_it(&other);
    CHECK_IS(child_run(can_write, &other), 0);
    unmake(peer);
}

/* ---- a death ---- */

static int
read_and_die(void *context)
{
    CHECK_IS(begin_to_read(context), 0);
    (void)raise(SIGKILL);
    return 1;
}

static void
slot_of_a_dead_reader_is_free(void)
{
    struct peer peer = make();
    for (int i = 0; i < 2 * PSHM_SLOTS; i++) {
        struct peer other = open_again(peer.place);
        CHECK_IS(child_run(read_and_die, &other), -SIGKILL);
        CHECK_IS(child_run(can_read, &other), 0);
    }
    CHECK_IS(begin_to_write(&peer), 0);
    CHECK_IS(pshm_rw_readers(peer.rw), -1);
    CHECK_IS(stop(&peer), 0);
    CHECK_IS(pshm_rw_readers(peer.rw), 0);
    unmake(&peer);
}

/* The new program has the same thread id and start time. */
static int
read_and_exec(void *context)
{
    CHECK_IS(begin_to_read(context), 0);
    (void)execlp("sleep", "sleep", "60", NULL);
    return 1;
}

static void
slot_of_a_replaced_program_is_free(void)
{
    struct peer peer = make();
    pid_t child = child_start(read_and_exec, &peer);
    for (int64_t end = before_long();
         pshm_rw_readers(peer.rw) == 0 && pshm_now() < end;) {
        (void)usleep(100);
    }
    CHECK_IS(begin_to_write(&peer), 0);
    child_kill(child);
    CHECK_IS(stop(&peer), 0);
    unmake(&peer);
}

static void
reader_of_another_namespace_counts_as_alive(void)
{
    struct peer peer = make();
    CHECK_IS(child_run(read_and_die, &peer), -SIGKILL);
    atomic_store(&peer.rw->header.space, 1);
    CHECK_IS(acquire_until(&peer, true, in_ms(5)), -ETIMEDOUT);
    unmake(&peer);
}

static int
write_and_die(void *context)
{
    CHECK_IS(begin_to_write(context), 0);
    (void)raise(SIGKILL);
    return 1;
}

static int
get_ownerdead(void *context)
{
    struct peer *peer = context;
    const int64_t deadlines[] = {PSHM_RW_TRY, PSHM_RW_NOW, before_long()};
    for (size_t i = 0; i < COUNT(deadlines); i++) {
        CHECK_IS(acquire_until(peer, false, deadlines[i]), -EOWNERDEAD);
        CHECK_IS(acquire_until(peer, true, deadlines[i]), -EOWNERDEAD);
    }
    CHECK(!is_held(peer));
    return 0;
}

struct attempt {
    struct peer peer;
    bool pending;
};

/* A signal handler forked during the attempt to write. */
static int
go_on_in_a_child(void *context)
{
    struct attempt *attempt = context;
    struct peer *peer = &attempt->peer;
    bool pending = attempt->pending;
    pshm_rw_undo(peer->rw, &peer->state, &pending);
    CHECK(!pending);
    CHECK_IS(atomic_load(&peer->rw->entry), PSHM_ENTRY_CLOSED);
    CHECK_IS(acquire(peer, true, &attempt->pending, in_ms(5)), -ETIMEDOUT);
    return is_held(peer);
}

static void
child_forked_during_an_attempt_does_not_go_on_with_it(void)
{
    struct attempt attempt = {.peer = make()};
    struct peer *peer = &attempt.peer;
    _Atomic(uint64_t) *slot = &peer->rw->lines[5].slots[1].reader;
    atomic_store(slot, (uint64_t)getpid());
    CHECK_IS(pshm_rw_acquire(peer->rw, &peer->state, true, &attempt.pending,
                             PSHM_NEVER),
             -EINTR);
    CHECK(attempt.pending);
    atomic_store(slot, 0);              /* the reader left */
    CHECK_IS(child_run(go_on_in_a_child, &attempt), 0);
    CHECK_IS(acquire(peer, true, &attempt.pending, before_long()), 0);
    CHECK_IS(stop(peer), 0);
    unmake(peer);
}

/* A writer that cannot repair the data in time. */
static void
failed_attempt_to_repair_leaves_the_error(void)
{
    struct peer peer = make();
    bool pending = false;
    CHECK_IS(child_run(write_and_die, &peer), -SIGKILL);
    pid_t reader = child_start(stop_itself, NULL);
    child_wait_stopped(reader);
    CHECK_IS(acquire(&peer, true, &pending, before_long()), -EOWNERDEAD);
    atomic_store(&peer.rw->lines[5].slots[1].reader, (uint64_t)reader);
    CHECK_IS(pshm_rw_acquire(peer.rw, &peer.state, true, &pending, in_ms(5)),
             -ETIMEDOUT);
    CHECK(!pending);
    CHECK_IS(get_ownerdead(&peer), 0);
    child_kill(reader);
    repair_it(&peer);
    unmake(&peer);
}

#ifdef PSHM_ROBUST_LINKS

/* Other threads may have read or written at the same time. */
static void
overwritten_turnstile_becomes_inconsistent(void)
{
    struct peer peer = make();
    CHECK_IS(begin_to_write(&peer), 0);
    peer.rw->turnstile.mutex.mutex.__data.__kind ^= 2;
    CHECK_IS(stop(&peer), -EBADMSG);
    CHECK(!pshm_rw_writes(&peer.state));
    peer.rw->turnstile.mutex.mutex.__data.__kind ^= 2;
    repair_it(&peer);
    CHECK_IS(child_run(can_write, &peer), 0);
    unmake(&peer);
}

#endif

/* Words that another program has written neither end the process nor lock out
 * all threads, unless they name a living thread. */
static void
any_word_is_valid(void)
{
    static const uint64_t words[] = {1, 0x40000000, 0x80000000, 0x3fffffff,
                                     0x123456789, UINT64_MAX};
    for (size_t i = 0; i < COUNT(words); i++) {
        check_about("word %zu", i);
        struct peer peer = make();
        struct pshm_rw_line *lines = peer.rw->lines;
        uint64_t word = words[i] == 1 ? 0x3ffffff1 : words[i];
        for (int n = 0; n < PSHM_SLOTS; n++) {
            atomic_store(&lines[n / 2].slots[n % 2].reader, word);
            atomic_store(&lines[n / 2].slots[n % 2].object, (unsigned)word);
        }
        atomic_store(&peer.rw->entry, (unsigned)words[i] & 1);
        CHECK_IS(begin_to_write(&peer), 0);
        CHECK_IS(stop(&peer), 0);
        atomic_store(&peer.rw->entry, (unsigned)words[i] & 1);
        CHECK_IS(begin_to_read(&peer), 0);
        CHECK_IS(pshm_rw_abandon(peer.rw, &peer.state), 0);
        CHECK_IS(child_run(can_write, &peer), 0);
        unmake(&peer);
    }
}

/* ---- deaths at each step ---- */

static int
write_once(struct peer *peer)
{
    int rc = begin_to_write(peer);
    if (rc == 0) {
        peer->place->first = peer->place->first + 1;
        peer->place->second = peer->place->second + 1;
        rc = stop(peer);
    }
    return rc;
}

static int
read_once(struct peer *peer)
{
    int rc = begin_to_read(peer);
    return rc == 0 ? stop(peer) : rc;
}

/* As after the death of a writer that waited. */
static int
read_through_the_turnstile(struct peer *peer)
{
    atomic_store(&peer->rw->entry, PSHM_ENTRY_CLOSED);
    return read_once(peer);
}

static int
repair_once(struct peer *peer)
{
    int rc = begin_to_repair(peer);
    if (rc == -EOWNERDEAD) {
        peer->place->second = peer->place->first;
        pshm_lock_repair(&peer->rw->turnstile);
        rc = stop(peer);
    }
    return rc;
}

static int
release_unrepaired(struct peer *peer)
{
    int rc = begin_to_repair(peer);
    if (rc == -EOWNERDEAD) {
        pshm_rw_release_unrepaired(peer->rw, &peer->state);
    }
    return rc;
}

static int
abandon_once(struct peer *peer)
{
    (void)begin_to_read(peer);
    return pshm_rw_abandon(peer->rw, &peer->state);
}

struct death {
    struct peer *peer;
    int (*call)(struct peer *peer);
    int nth;
};

static int
die_in_call(void *context)
{
    struct death *death = context;
    pshm_fault_arm("atomic", death->nth, PSHM_FAULT_KILL_BEFORE, 0);
    (void)death->call(death->peer);
    return pshm_fault_disarm() >= death->nth;
}

/* The words are equal, or the next owners get the error. */
static void
check_after_a_death(struct peer *peer, bool must_be_error)
{
    struct place *place = peer->place;
    int rc = begin_to_read(peer);
    CHECK(rc == 0 || rc == -EOWNERDEAD);
    CHECK(rc != 0 || place->first == place->second);
    CHECK(rc == -EOWNERDEAD || !must_be_error);
    if (rc == 0) {
        CHECK_IS(stop(peer), 0);
    }
    else {
        CHECK_IS(get_ownerdead(peer), 0);
        repair_it(peer);
    }
    CHECK_IS(begin_to_write(peer), 0);
    CHECK_IS(stop(peer), 0);
    CHECK_IS(child_run(can_read, peer), 0);
    CHECK_IS(child_run(can_write, peer), 0);
}

static void
only_a_death_while_writing_is_an_error(void)
{
    static const struct {
        int (*call)(struct peer *peer);
        bool inconsistent;              /* before the death */
        bool repairs;
        bool writes;
    } cases[] = {
        {write_once, false, false, true},
        {read_once, false, false, false},
        {read_through_the_turnstile, false, false, false},
        {abandon_once, false, false, false},
        {write_once, true, false, false},
        {read_once, true, false, false},
        {release_unrepaired, true, false, false},
        {repair_once, true, true, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int errors = 0;
        bool killed = true;
        for (int nth = 1; killed; nth++) {
            check_about("case %zu, before atomic operation %d", i, nth);
            struct peer peer = make();
            struct death death = {&peer, cases[i].call, nth};
            if (cases[i].inconsistent) {
                CHECK_IS(child_run(write_and_die, &peer), -SIGKILL);
                peer.place->first = peer.place->second + 1;
            }
            killed = child_run(die_in_call, &death) == -SIGKILL;
            errors += atomic_load(&peer.rw->turnstile.inconsistent) != 0
                      || atomic_load(&peer.rw->entry) & PSHM_ENTRY_WRITING;
            check_after_a_death(&peer, cases[i].inconsistent
                                           && !cases[i].repairs);
            unmake(&peer);
        }
        CHECK((errors > 0) == (cases[i].inconsistent || cases[i].writes));
    }
}

/* ---- deaths at any time ---- */

static int
read_endlessly(void *context)
{
    struct peer *peer = context;
    while (atomic_load(&peer->place->stopped) == 0) {
        int rc = begin_to_read(peer);
        if (rc == -EOWNERDEAD) {
            (void)atomic_fetch_add(&peer->place->owner_deaths, 1);
            (void)sched_yield();
            continue;
        }
        if (!CHECK_IS(rc, 0)
            || !CHECK_IS(peer->place->first, peer->place->second)) {
            return 1;
        }
        (void)atomic_fetch_add(&peer->place->steps, 1);
        CHECK_IS(stop(peer), 0);
    }
    return 0;
}

/* Half of the owners that get -EOWNERDEAD repair the words. */
static int
write_endlessly(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    while (atomic_load(&place->stopped) == 0) {
        bool repairs = random_below(2) == 0;
        int rc = repairs ? begin_to_repair(peer) : begin_to_write(peer);
        if (rc == -EOWNERDEAD && repairs) {
            (void)atomic_fetch_add(&place->owner_deaths, 1);
            if (random_below(2) == 0) {
                pshm_rw_release_unrepaired(peer->rw, &peer->state);
                continue;
            }
            place->second = place->first;
            pshm_lock_repair(&peer->rw->turnstile);
        }
        else if (rc == -EOWNERDEAD) {
            continue;
        }
        else if (!CHECK_IS(rc, 0)
                 || !CHECK_IS(place->first, place->second)) {
            return 1;
        }
        place->first = place->first + 1;
        if (random_below(4) == 0) {
            (void)sched_yield();
        }
        place->second = place->first;
        (void)atomic_fetch_add(&place->writers, 1);
        CHECK_IS(stop(peer), 0);
        /* A mutex is not fair, so let the other threads run. */
        (void)usleep(random_below(100));
    }
    return 0;
}

static void
owner_without_an_error_finds_equal_words(void)
{
    struct peer peer = make();
    struct place *place = peer.place;
    pid_t steady[2] = {child_start(read_endlessly, &peer),
                       child_start(write_endlessly, &peer)};
    /* until a process has died while it wrote */
    for (int round = 0;
         round < ROUNDS(250) || atomic_load(&place->owner_deaths) == 0;
         round++) {
        pid_t writer = child_start(write_endlessly, &peer);
        pid_t reader = child_start(read_endlessly, &peer);
        await(&place->writers, atomic_load(&place->writers) + 2);
        kill_within(writer, 250);
        kill_within(reader, 250);
        await(&place->steps, atomic_load(&place->steps) + 1);
    }
    atomic_store(&place->stopped, 1);
    CHECK_IS(child_wait(steady[0]), 0);
    CHECK_IS(child_wait(steady[1]), 0);
    unmake(&peer);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(reader_waits_for_a_slot);
    RUN(writer_that_waits_keeps_new_readers_out);
    RUN(reader_and_writer_exclude_each_other);
    RUN(readers_of_a_deallocated_object_stop);
    RUN(writer_of_a_deallocated_object_counts_as_dead);
    RUN(slot_of_a_dead_reader_is_free);
    RUN(slot_of_a_replaced_program_is_free);
    RUN(reader_of_another_namespace_counts_as_alive);
    RUN(child_forked_during_an_attempt_does_not_go_on_with_it);
    RUN(failed_attempt_to_repair_leaves_the_error);
#ifdef PSHM_ROBUST_LINKS
    RUN(overwritten_turnstile_becomes_inconsistent);
#endif
    RUN(any_word_is_valid);
    RUN(only_a_death_while_writing_is_an_error);
    RUN(owner_without_an_error_finds_equal_words);
    return finish();
}
