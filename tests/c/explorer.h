/* Every interleaving of the steps of some processes, with deaths between any
 * two.
 *
 * A step is what others may see at once.  A model says which steps a process
 * can make.  It is explored for states that are stuck: from which those who are
 * alive, without another death, never come to where they may stay. */
#ifndef PSHM_EXPLORER_H
#define PSHM_EXPLORER_H

#include "check.h"

enum { PROCESSES = 5, FREE = 0, DEAD_OWNER = 255 };

/* Where a process is at its end; all else are the model's own. */
enum { NOBODY_THERE, DEAD, ENDED, BEGIN };

/* A process: where it is, where it goes from there, and what it keeps. */
struct process {
    uint8_t at, then, later;
    uint8_t came, seen, round, again;
    uint8_t n, all, notifies;
};

/* All of it; the words are the model's. */
struct state {
    uint8_t owner;                      /* of the mutex: who + 1 */
    uint8_t deaths;                     /* that may happen yet */
    uint8_t words[4], items;
    uint8_t marks, well, badly;         /* bits of rounds */
    uint8_t arrived[4], acted[4];
    struct process p[PROCESSES];
};

_Static_assert(sizeof(struct state) == 18 + 10 * PROCESSES, "no padding");

struct model {
    void (*step)(const struct state *s, int who);
    bool (*may_stay)(const struct state *s);
};

/* By a step: this may come of it; and this always holds. */
void go(const struct state *s);
void rule(bool holds, const char *text);

bool lives(const struct process *p);

/* Returns how many states are stuck; *broken: a rule that does not hold, or
 * NULL. */
unsigned explore(const struct model *model, struct state start,
                 unsigned deaths, const char **broken);

/* Check that none is, and that all rules hold. */
void check_model(const struct model *model, struct state start,
                 unsigned deaths);

#endif
