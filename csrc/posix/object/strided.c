#include "posix/object/strided.h"

#include <string.h>

ssize_t
pshm_layout_items(const struct pshm_layout *layout)
{
    ssize_t items = 1;
    for (int i = 0; i < layout->ndim; i++) {
        if (layout->shape[i] == 0) {
            return 0;
        }
        items *= layout->shape[i];
    }
    return items;
}

/* A dimension of one item may have any stride. */
bool
pshm_layout_is_contiguous(const struct pshm_layout *layout, char order)
{
    ssize_t step = layout->itemsize;
    if (pshm_layout_items(layout) == 0) {
        return true;
    }
    for (int i = 0; i < layout->ndim; i++) {
        int at = order == 'F' ? i : layout->ndim - 1 - i;
        if (layout->shape[at] != 1 && layout->strides[at] != step) {
            return false;
        }
        step *= layout->shape[at];
    }
    return true;
}

struct copy {
    const struct pshm_layout *layout;
    int outer;                          /* number of dimensions that are
                                           iterated */
    size_t run;                         /* bytes of a contiguous run inside of
                                           them */
    bool gather;
    char *items;                        /* the next item */
};

static void
walk(struct copy *copy, int dimension, char *data)
{
    if (dimension == copy->outer) {
        if (copy->gather) {
            memcpy(copy->items, data, copy->run);
        }
        else {
            memcpy(data, copy->items, copy->run);
        }
        copy->items += copy->run;
        return;
    }
    ssize_t stride = copy->layout->strides[dimension];
    for (ssize_t i = 0; i < copy->layout->shape[dimension]; i++) {
        walk(copy, dimension + 1, data + i * stride);
    }
}

static void
copy_items(struct copy *copy, char *data)
{
    const struct pshm_layout *layout = copy->layout;
    ssize_t run = layout->itemsize;
    if (pshm_layout_items(layout) == 0) {
        return;
    }
    copy->outer = layout->ndim;
    while (copy->outer > 0
           && (layout->shape[copy->outer - 1] == 1
               || layout->strides[copy->outer - 1] == run)) {
        run *= layout->shape[--copy->outer];
    }
    copy->run = (size_t)run;
    walk(copy, 0, data);
}

void
pshm_gather(char *items, const char *data, const struct pshm_layout *layout)
{
    struct copy copy = {.layout = layout, .gather = true, .items = items};
    copy_items(&copy, (char *)(uintptr_t)data);
}

void
pshm_scatter(char *data, const char *items, const struct pshm_layout *layout)
{
    struct copy copy = {.layout = layout,
                        .items = (char *)(uintptr_t)items};
    copy_items(&copy, data);
}
