/* Between mapping an object and shrinking it, in one process.
 *
 * Who maps looks at the object's size and then maps that much; who shrinks looks
 * what is mapped and then cuts off what is not.  Neither may happen in the
 * middle of the other, or a mapping would reach past the end, and a bus error
 * be its user's next access.
 *
 * Each process has one state of its own, as it has one address space:
 * threads of all interpreters pass the same gate.  In a forked child it is
 * open, whatever other threads of the parent were doing. */
#ifndef PSHM_GATE_H
#define PSHM_GATE_H

#include "posix/base.h"

/* To map, or to grow.  Any number of threads may be inside, and one may be
 * more than once.  Waits while somebody shrinks, or is about to, which is
 * short; but not to go inside once more. */
void pshm_gate_enter(void);
void pshm_gate_leave(void);

/* To shrink.  Waits until nobody is inside, for 50 ms at most, and keeps those
 * back who come meanwhile: 0, or -EBUSY where somebody still is; at once where
 * that is this thread.  The caller holds nothing that those inside need. */
int pshm_gate_close(void);
void pshm_gate_open(void);

#endif
