#include "check.h"
#include "peers.h"
#include "posix/host.h"
#include "posix/lease.h"
#include "posix/renew.h"

/* An object with a cell that processes of an ended container have left. */
struct place {
    int fd;
    struct pshm_name name;
    struct pshm_cell *cell;
};

static int
fill(struct pshm_cell *cell, const void *how)
{
    memset(cell->payload, *(const char *)how, sizeof(cell->payload));
    return 0;
}

static int
refuse(struct pshm_cell *cell, const void *how)
{
    (void)fill(cell, how);
    return -ENOTSUP;
}

static const struct pshm_cell_spec spec = {
    .kind = PSHM_CELL_EVENT, .size = sizeof(struct pshm_cell), .owned = true,
    .flags = 5, .init = fill, .how = "x"};
static const struct pshm_cell_spec renewed = {
    .kind = PSHM_CELL_EVENT, .size = sizeof(struct pshm_cell), .owned = true,
    .flags = 6, .init = fill, .how = "y"};

static struct place
leave_one(void)
{
    struct place place = {.name = name_of("left")};
    (void)make_plain(&place.name, (off_t)PAGE, 0600, 0);
    place.fd = open(place.name.path, O_RDWR | O_CLOEXEC);
    void *base = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
                      place.fd, 0);
    CHECK(base != MAP_FAILED);
    place.cell = base;
    CHECK_IS(pshm_cell_make(place.cell, &spec, before_long(), NULL), 0);
    place.cell->tag.space++;
    CHECK_IS(pshm_cell_look(place.cell, &spec, NULL), -EXDEV);
    CHECK_IS(pshm_lease_take(place.fd), 0);
    return place;
}

static void
remove_one(struct place *place)
{
    CHECK(munmap(place->cell, PAGE) == 0);
    CHECK(close(place->fd) == 0);
    remove_plain(&place->name);
}

/* Another process's descriptor of the object, with the use lock or not. */
static int
open_it(const struct place *place, bool uses)
{
    int fd = open(place->name.path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_IS(uses ? pshm_lease_take(fd) : 0, 0);
    return fd;
}

static void
check_lease_kept(const struct place *place)
{
    int fd = open_it(place, true);
    CHECK_IS(pshm_lease_seize(fd), -EAGAIN);
    CHECK(close(fd) == 0);
}

static int
renew(struct place *place, int64_t until)
{
    return pshm_renew(place->fd, place->cell, &renewed, until);
}

static void
check_as_left(const struct place *place)
{
    CHECK_IS(pshm_cell_look(place->cell, &spec, NULL), -EXDEV);
    CHECK_IS(place->cell->tag.flags, 5);
    CHECK_IS(place->cell->payload[0], 'x');
}

static void
cell_that_no_process_uses_is_made_anew(void)
{
    struct place place = leave_one();
    CHECK_IS(renew(&place, 0), 0);
    CHECK_IS(pshm_cell_look(place.cell, &spec, NULL), 0);
    CHECK_IS(place.cell->tag.flags, 6);
    CHECK_IS(place.cell->payload[63], 'y');
    check_lease_kept(&place);
    remove_one(&place);
}

static void
cell_of_a_kind_without_init_is_all_zeros(void)
{
    struct place place = leave_one();
    struct pshm_cell_spec plain = renewed;
    plain.init = NULL;
    CHECK_IS(pshm_renew(place.fd, place.cell, &plain, 0), 0);
    CHECK_IS(pshm_cell_look(place.cell, &spec, NULL), 0);
    CHECK_IS(place.cell->payload[0], 0);
    remove_one(&place);
}

static void
cell_in_order_stays_as_it_is(void)
{
    struct place place = leave_one();
    place.cell->tag.space--;
    CHECK_IS(renew(&place, 0), 0);
    CHECK_IS(place.cell->tag.flags, 5);
    CHECK_IS(place.cell->payload[0], 'x');
    remove_one(&place);
}

static void
cell_of_another_kind_is_told(void)
{
    struct place place = leave_one();
    place.cell->tag.kind = PSHM_CELL_BARRIER;
    CHECK_IS(renew(&place, 0), -EPROTOTYPE);
    CHECK_IS(place.cell->payload[0], 'x');
    remove_one(&place);
}

static void
cell_that_a_process_uses_stays_as_it_is(void)
{
    struct place place = leave_one();
    int other = open_it(&place, true);
    CHECK_IS(renew(&place, 0), -EXDEV);
    int64_t start = pshm_now();
    CHECK_IS(renew(&place, start + 20 * MS), -EXDEV);
    CHECK(took(start, 20));
    check_as_left(&place);
    check_lease_kept(&place);
    CHECK(close(other) == 0);
    CHECK_IS(renew(&place, 0), 0);
    remove_one(&place);
}

/* Another process that tried had the lock for a moment. */
static void
release_it(void *context)
{
    CHECK(close(*(int *)context) == 0);
}

static void
user_that_leaves_is_waited_for(void)
{
    struct place place = leave_one();
    int other = open_it(&place, true);
    pshm_fault_hook(release_it, &other);
    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_HOOK_AFTER, 0);
    CHECK_IS(renew(&place, before_long()), 0);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(place.cell->payload[0], 'y');
    remove_one(&place);
}

static void
renew_for_all(void *context)
{
    struct place *place = context;
    CHECK_IS(pshm_cell_renew(place->cell, &renewed), 0);
}

static void
cell_that_another_process_renews_meanwhile_is_in_order(void)
{
    struct place place = leave_one();
    int other = open_it(&place, true);
    pshm_fault_hook(renew_for_all, &place);
    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_HOOK_AFTER, 0);
    CHECK_IS(renew(&place, before_long()), 0);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK(close(other) == 0);
    remove_one(&place);
}

static void
failure_leaves_it_as_it_was_to_others(void)
{
    static const struct {
        const char *call;
        int err;
    } failures[] = {
        {"flock", ENOLCK}, {"clock_nanosleep", EINTR},
        {"pthread_mutex_init", ENOTSUP},
    };
    for (size_t i = 0; i < COUNT(failures); i++) {
        check_about("%s", failures[i].call);
        struct place place = leave_one();
        bool waits = failures[i].err == EINTR;
        int other = open_it(&place, waits);
        /* The look at the cell makes no model of its guard. */
        pshm_fault_arm(failures[i].call, 1, PSHM_FAULT_FAIL, failures[i].err);
        CHECK_IS(renew(&place, before_long()), -failures[i].err);
        CHECK(pshm_fault_disarm() >= 1);
        CHECK_IS(pshm_cell_look(place.cell, &spec, NULL), -EXDEV);
        check_lease_kept(&place);
        CHECK(close(other) == 0);
        CHECK_IS(renew(&place, 0), 0);
        remove_one(&place);
    }
}

static void
failed_init_leaves_it_to_the_next_one(void)
{
    struct place place = leave_one();
    struct pshm_cell_spec failing = renewed;
    failing.init = refuse;
    CHECK_IS(pshm_renew(place.fd, place.cell, &failing, 0), -ENOTSUP);
    CHECK_IS(pshm_cell_look(place.cell, &spec, NULL), -EXDEV);
    CHECK_IS(place.cell->payload[0], 0);
    CHECK_IS(renew(&place, 0), 0);
    CHECK_IS(place.cell->payload[0], 'y');
    remove_one(&place);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(cell_that_no_process_uses_is_made_anew);
    RUN(cell_of_a_kind_without_init_is_all_zeros);
    RUN(cell_in_order_stays_as_it_is);
    RUN(cell_of_another_kind_is_told);
    RUN(cell_that_a_process_uses_stays_as_it_is);
    RUN(user_that_leaves_is_waited_for);
    RUN(cell_that_another_process_renews_meanwhile_is_in_order);
    RUN(failure_leaves_it_as_it_was_to_others);
    RUN(failed_init_leaves_it_to_the_next_one);
    return finish();
}
