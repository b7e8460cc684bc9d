#include "explorer.h"

static struct state *states;
static unsigned count, room, *table, table_size;
static unsigned (*edges)[2], edge_count, edge_room;
static unsigned from;
static const char *broken_rule;

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
    room = room == 0 ? 1024 : 2 * room;
    table_size = 4 * room;
    states = resized(states, room * sizeof(*states));
    free(table);
    table = calloc(table_size, sizeof(*table));
    for (unsigned i = 0; i < count; i++) {
        *find(&states[i]) = i + 1;
    }
}

/* Returns its number. */
static unsigned
reach(const struct state *s)
{
    if (count == room) {
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
    if (edge_count == edge_room) {
        edge_room = edge_room == 0 ? 4096 : 2 * edge_room;
        edges = resized(edges, edge_room * sizeof(*edges));
    }
    edges[edge_count][0] = from;
    edges[edge_count++][1] = to;
}

void
rule(bool holds, const char *text)
{
    if (!holds) {
        broken_rule = text;
    }
}

bool
lives(const struct process *p)
{
    return p->at != NOBODY_THERE && p->at != DEAD && p->at != ENDED;
}

static void
kill_one(struct state s, int who)
{
    s.deaths--;
    s.p[who] = (struct process){.at = DEAD};
    if (s.owner == who + 1) {
        s.owner = DEAD_OWNER;
    }
    (void)reach(&s);
}

/* How many of the states have no way to one where all may stay as they are. */
static unsigned
count_stuck(bool (*may_stay)(const struct state *))
{
    bool *comes_to_an_end = resized(NULL, room * sizeof(bool)), more = true;
    unsigned stuck = 0;
    for (unsigned i = 0; i < count; i++) {
        comes_to_an_end[i] = may_stay(&states[i]);
    }
    while (more) {
        more = false;
        for (unsigned i = edge_count; i-- > 0;) {
            if (comes_to_an_end[edges[i][1]]
                && !comes_to_an_end[edges[i][0]]) {
                comes_to_an_end[edges[i][0]] = more = true;
            }
        }
    }
    for (unsigned i = 0; i < count; i++) {
        stuck += !comes_to_an_end[i];
    }
    free(comes_to_an_end);
    return stuck;
}

unsigned
explore(const struct model *model, struct state start, unsigned deaths,
        const char **broken)
{
    start.deaths = (uint8_t)deaths;
    broken_rule = NULL;
    (void)reach(&start);
    for (from = 0; from < count; from++) {
        for (int who = 0; who < PROCESSES; who++) {
            struct state s = states[from];
            if (lives(&s.p[who])) {
                model->step(&s, who);
                if (s.deaths > 0) {
                    kill_one(s, who);
                }
            }
        }
    }
    unsigned stuck = count_stuck(model->may_stay);
    free(states);
    free(table);
    free(edges);
    states = NULL;
    table = NULL;
    edges = NULL;
    count = room = edge_count = edge_room = 0;
    *broken = broken_rule;
    return stuck;
}

void
check_model(const struct model *model, struct state start, unsigned deaths)
{
    const char *broken;
    CHECK_IS(explore(model, start, deaths, &broken), 0);
    if (!CHECK(broken == NULL)) {
        (void)printf("    not so: %s\n", broken);
    }
}
