/* Copies between an array in memory, whatever its strides, and its items one
 * after the other, the last index running fastest. */
#ifndef PSHM_STRIDED_H
#define PSHM_STRIDED_H

#include "posix/base.h"

#define PSHM_MAX_DIMENSIONS 64

/* ndim: 0 to PSHM_MAX_DIMENSIONS.  shape: items, >= 0.  strides: bytes, of
 * either sign.  itemsize: bytes, > 0.  Items * itemsize < 2**63. */
struct pshm_layout {
    int ndim;
    const ssize_t *shape;
    const ssize_t *strides;
    ssize_t itemsize;
};

ssize_t pshm_layout_items(const struct pshm_layout *layout);

/* Do the items lie one after the other without a gap, the last index running
 * fastest ('C') or the first ('F')?  Of an array without items they do. */
bool pshm_layout_is_contiguous(const struct pshm_layout *layout, char order);

/* data: the address of the item whose indexes are all 0.  The two must not
 * overlap. */
void pshm_gather(char *items, const char *data,
                 const struct pshm_layout *layout);
void pshm_scatter(char *data, const char *items,
                  const struct pshm_layout *layout);

#endif
