#include "check.h"
#include "posix/object/strided.h"

#define N(array) ((int)COUNT(array))

static void
order_is_detected(void)
{
    static const struct {
        int ndim;
        ssize_t shape[3], strides[3];
        bool c, fortran;
    } cases[] = {
        {0, {0}, {0}, true, true},
        {1, {5}, {2}, true, true},
        {1, {5}, {4}, false, false},
        {1, {5}, {-2}, false, false},
        {1, {1}, {77}, true, true},
        {2, {3, 4}, {8, 2}, true, false},
        {2, {3, 4}, {2, 6}, false, true},
        {2, {1, 4}, {99, 2}, true, true},
        {2, {0, 4}, {7, 7}, true, true},
        {3, {2, 1, 3}, {6, 1, 2}, true, false},
        {3, {2, 1, 3}, {2, 9, 4}, false, true},
        {2, {3, 4}, {0, 2}, false, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct pshm_layout layout = {cases[i].ndim, cases[i].shape,
                                     cases[i].strides, 2};
        check_about("case %zu", i);
        CHECK_IS(pshm_layout_is_contiguous(&layout, 'C'), cases[i].c);
        CHECK_IS(pshm_layout_is_contiguous(&layout, 'F'), cases[i].fortran);
    }
    check_about(NULL);
}

static void
items_are_gathered_in_c_order(void)
{
    const char data[] = "abcdefghijkl";
    char items[13] = {0};
    ssize_t shape[] = {4, 3}, strides[] = {1, 4};
    struct pshm_layout layout = {N(shape), shape, strides, 1};
    CHECK_IS(pshm_layout_items(&layout), 12);
    pshm_gather(items, data, &layout);
    CHECK(strcmp(items, "aeibfjcgkdhl") == 0);

    ssize_t backwards[] = {-3, -1};
    layout.strides = backwards;
    pshm_gather(items, data + 11, &layout);
    CHECK(strcmp(items, "lkjihgfedcba") == 0);

    ssize_t again[] = {0, 1};
    layout.strides = again;
    pshm_gather(items, data, &layout);
    CHECK(strcmp(items, "abcabcabcabc") == 0);
}

static void
stride_of_a_single_item_is_ignored(void)
{
    const char data[] = "abcdef";
    char items[7] = {0};
    ssize_t shape[] = {3, 2, 1}, strides[] = {2, 1, 77};
    struct pshm_layout layout = {N(shape), shape, strides, 1};
    pshm_gather(items, data, &layout);
    CHECK(strcmp(items, data) == 0);
}

static void
items_are_scattered(void)
{
    char data[] = "............";
    ssize_t shape[] = {2, 3}, strides[] = {6, 2};
    struct pshm_layout layout = {N(shape), shape, strides, 1};
    pshm_scatter(data, "uvwxyz", &layout);
    CHECK(strcmp(data, "u.v.w.x.y.z.") == 0);
}

static void
empty_copy_accesses_no_memory(void)
{
    ssize_t shape[] = {4, 0}, strides[] = {SSIZE_MAX, SSIZE_MAX};
    struct pshm_layout layout = {N(shape), shape, strides, 8};
    CHECK_IS(pshm_layout_items(&layout), 0);
    pshm_gather(NULL, NULL, &layout);
    pshm_scatter(NULL, NULL, &layout);
}

static void
a_single_item_is_copied(void)
{
    char item[3] = {0};
    struct pshm_layout layout = {0, NULL, NULL, 2};
    CHECK_IS(pshm_layout_items(&layout), 1);
    pshm_gather(item, "xyz", &layout);
    CHECK(strcmp(item, "xy") == 0);
}

int
main(void)
{
    RUN(order_is_detected);
    RUN(items_are_gathered_in_c_order);
    RUN(stride_of_a_single_item_is_ignored);
    RUN(items_are_scattered);
    RUN(empty_copy_accesses_no_memory);
    RUN(a_single_item_is_copied);
    return finish();
}
