/* Copies between an array with any strides and a contiguous sequence of its
 * items in C order. */
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

/* Are the items contiguous, in C order ('C') or in Fortran order ('F')? True
 * for an array without items. */
bool pshm_layout_is_contiguous(const struct pshm_layout *layout, char order);

/* data: the address of the item whose indexes are all 0. The two memory areas
 * must not overlap. */
void pshm_gather(char *items, const char *data,
                 const struct pshm_layout *layout);
void pshm_scatter(char *data, const char *items,
                  const struct pshm_layout *layout);

#endif
