/* Between mapping an object and shrinking it, in one process.
 *
 * Who maps looks at the object's size and then maps that much; who shrinks looks
 * what is mapped and then cuts off what is not.  Neither may happen in the
 * middle of the other, or a mapping would reach past the end, and a bus error
 * be its user's next access.
 *
 * The one piece of state that is the process's and nobody's else, as the address
 * space is: threads of all interpreters pass the same gate.  In a forked child
 * it is open, whatever other threads of the parent were doing. */
#ifndef PSHM_GATE_H
#define PSHM_GATE_H

#include "base.h"

/* To map, or to grow.  Any number of threads may be inside, and one may be more
 * than once.  Waits while somebody shrinks, which is short. */
void pshm_gate_enter(void);
void pshm_gate_leave(void);

/* To shrink.  Never waits: 0, or -EBUSY where somebody is inside. */
int pshm_gate_close(void);
void pshm_gate_open(void);

#endif
