#include "explorer.h"

static struct state *states;
static unsigned count, capacity, *table, table_size;
static unsigned (*edges)[2], edge_count, edge_capacity;
static unsigned from;
static const char *failed_rule;

static unsigned
hash(const struct state *s)
{
    const uint8_t *bytes = (const uint8_t *)s;
    uint64_t h = 1469598103934665603U;
    for (size_t i = 0; i < sizeof(*s); i++) {
        h = (h ^ bytes[i]) * 1099511628211U;
    }
    return (unsigned)(h ^ h >> 32);
}

static unsigned *
find(const struct state *s)
{
    unsigned i = hash(s) & (table_size - 1);
    while (table[i] != 0
           && memcmp(&states[table[i] - 1], s, sizeof(*s)) != 0) {
        i = (i + 1) & (table_size - 1);
    }
    return &table[i];
}

static void *
resized(void *memory, size_t size)
{
    void *larger = realloc(memory, size);
    if (larger == NULL) {
        (void)printf("no memory for so many states\n");
        exit(2);
    }
    return larger;
}

static void
grow(void)
{
    capacity = capacity == 0 ? 1024 : 2 * capacity;
    table_size = 4 * capacity;
    states = resized(states, capacity * sizeof(*states));
    free(table);
    table = calloc(table_size, sizeof(*table));
    for (unsigned i = 0; i < count; i++) {
        *find(&states[i]) = i + 1;
    }
}

/* Returns the number of the state. */
static unsigned
reach(const struct state *s)
{
    if (count == capacity) {
        grow();
    }
    unsigned *entry = find(s);
    if (*entry == 0) {
        states[count] = *s;
        *entry = ++count;
    }
    return *entry - 1;
}

void
go(const struct state *s)
{
    unsigned to = reach(s);
    if (edge_count == edge_capacity) {
        edge_capacity = edge_capacity == 0 ? 4096 : 2 * edge_capacity;
        edges = resized(edges, edge_capacity * sizeof(*edges));
    }
    edges[edge_count][0] = from;
    edges[edge_count++][1] = to;
}

void
rule(bool holds, const char *text)
{
    if (!holds) {
        failed_rule = text;
    }
}

bool
lives(const struct process *p)
{
    return p->at != UNUSED && p->at != DEAD && p->at != ENDED;
}

static void
kill_one(struct state s, int index)
{
    s.deaths--;
    s.p[index] = (struct process){.at = DEAD};
    if (s.owner == index + 1) {
        s.owner = DEAD_OWNER;
    }
    (void)reach(&s);
}

/* The number of states from which no state with an end can be reached. */
static unsigned
count_stuck(bool (*may_end)(const struct state *))
{
    bool *ends = resized(NULL, capacity * sizeof(bool)), more = true;
    unsigned stuck = 0;
    for (unsigned i = 0; i < count; i++) {
        ends[i] = may_end(&states[i]);
    }
    while (more) {
        more = false;
        for (unsigned i = edge_count; i-- > 0;) {
            if (ends[edges[i][1]]
                && !ends[edges[i][0]]) {
                ends[edges[i][0]] = more = true;
            }
        }
    }
    for (unsigned i = 0; i < count; i++) {
        stuck += !ends[i];
    }
    free(ends);
    return stuck;
}

unsigned
explore(const struct model *model, struct state start, unsigned deaths,
        const char **failed)
{
    start.deaths = (uint8_t)deaths;
    failed_rule = NULL;
    (void)reach(&start);
    for (from = 0; from < count; from++) {
        for (int index = 0; index < PROCESSES; index++) {
            struct state s = states[from];
            if (lives(&s.p[index])) {
                model->step(&s, index);
                if (s.deaths > 0) {
                    kill_one(s, index);
                }
            }
        }
    }
    unsigned stuck = count_stuck(model->may_end);
    free(states);
    free(table);
    free(edges);
    states = NULL;
    table = NULL;
    edges = NULL;
    count = capacity = edge_count = edge_capacity = 0;
    *failed = failed_rule;
    return stuck;
}

void
check_model(const struct model *model, struct state start, unsigned deaths)
{
    const char *failed;
    CHECK_IS(explore(model, start, deaths, &failed), 0);
    if (!CHECK(failed == NULL)) {
        (void)printf("    violated: %s\n", failed);
    }
}
