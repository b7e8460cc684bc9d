/* Explores every interleaving of the steps of some processes, with deaths
 * between any two steps.
 *
 * A step is a change that other processes can see at once. A model defines the
 * steps of a process. The exploration searches for stuck states: states from
 * which the living processes, without another death, never reach a state in
 * which they may stay. It also checks the rules of the model. */
#ifndef PSHM_EXPLORER_H
#define PSHM_EXPLORER_H

#include "check.h"

enum { PROCESSES = 5, FREE = 0, DEAD_OWNER = 255 };

/* The steps of a process that all models share. Each model defines its own
 * after them. */
enum { UNUSED, DEAD, ENDED, BEGIN };

/* A process: its next step, the steps after that, and its variables. */
struct process {
    uint8_t at, then, later;
    uint8_t arrived, seen, generation, again;
    uint8_t n, all, notifies;
};

/* The state of a model, which defines the meaning of the words. */
struct state {
    uint8_t owner;                      /* owner of the mutex: index + 1 */
    uint8_t deaths;                     /* number of deaths that may still
                                           happen */
    uint8_t words[4], items;
    uint8_t resets, passed, broken;     /* one bit for each generation */
    uint8_t arrived[4], acted[4];
    struct process p[PROCESSES];
};

_Static_assert(sizeof(struct state) == 18 + 10 * PROCESSES, "no padding");

struct model {
    void (*step)(const struct state *s, int index);
    bool (*may_end)(const struct state *s);
};

/* For a step: add a possible next state; and check a rule that must always
 * hold. */
void go(const struct state *s);
void rule(bool holds, const char *text);

bool lives(const struct process *p);

/* Returns the number of stuck states. *failed: a rule that does not hold, or
 * NULL. */
unsigned explore(const struct model *model, struct state start,
                 unsigned deaths, const char **failed);

/* Check that no state is stuck and that all rules hold. */
void check_model(const struct model *model, struct state start,
                 unsigned deaths);

#endif
