#include "check.h"

#include <ctype.h>

static const char *
parse(const char *text, struct pshm_name *out)
{
    return pshm_name_parse(text, strlen(text), out);
}

static void
valid_names_are_parsed(void)
{
    struct pshm_name name;
    CHECK(parse("seg", &name) == NULL);
    CHECK(strcmp(name.path, "/dev/shm/seg") == 0);
    CHECK(strcmp(pshm_name_posix(&name), "/seg") == 0);
    CHECK(strcmp(pshm_name_plain(&name), "seg") == 0);
    CHECK(parse("/seg", &name) == NULL);
    CHECK(strcmp(name.path, "/dev/shm/seg") == 0);
    CHECK(parse("...", &name) == NULL);
    CHECK(parse(".a", &name) == NULL);
    CHECK(parse("..a", &name) == NULL);
    CHECK(parse(" \n~", &name) == NULL);
    CHECK(parse("\xff", &name) == NULL);
    /* only the first len bytes are read */
    CHECK(pshm_name_parse("seg/ment", 3, &name) == NULL);
    CHECK(strcmp(pshm_name_plain(&name), "seg") == 0);
}

static bool
ends_with_digits(const char *text)
{
    size_t length = strlen(text);
    for (size_t i = length - 16; i < length; i++) {
        if (!isxdigit((unsigned char)text[i])) {
            return false;
        }
    }
    return true;
}

static void
random_names_differ(void)
{
    struct pshm_name first, second;
    CHECK_IS(pshm_name_random(&first), 0);
    CHECK_IS(pshm_name_random(&second), 0);
    CHECK(strcmp(first.path, second.path) != 0);
    CHECK(strncmp(pshm_name_plain(&first), "psm_", 4) == 0);
    CHECK_IS(strlen(pshm_name_plain(&first)), 4 + 16);
    CHECK(ends_with_digits(first.path));
}

static void
beside_starts_with_the_name(void)
{
    struct pshm_name name, beside, again;
    CHECK(parse("seg", &name) == NULL);
    CHECK_IS(pshm_name_beside(&name, &beside), 0);
    CHECK_IS(pshm_name_beside(&name, &again), 0);
    CHECK(strncmp(pshm_name_plain(&beside), "seg~", 4) == 0);
    CHECK_IS(strlen(pshm_name_plain(&beside)), 4 + 16);
    CHECK(ends_with_digits(beside.path));
    CHECK(strcmp(beside.path, again.path) != 0);
}

/* For a name of any bytes, the temporary name is a valid name in PSHM_DIR. It
 * starts with as many whole characters of the name as fit. */
static void
check_beside(const char *unit, size_t length)
{
    struct pshm_name name, beside, parsed;
    char text[PSHM_NAME_MAX];
    for (size_t i = 0; i < length; i++) {
        text[i] = unit[i % strlen(unit)];
    }
    check_about("%zu bytes, the first %#x", length, (unsigned char)*unit);
    CHECK(pshm_name_parse(text, length, &name) == NULL);
    CHECK_IS(pshm_name_beside(&name, &beside), 0);
    CHECK(strncmp(beside.path, PSHM_DIR "/", sizeof(PSHM_DIR)) == 0);
    const char *plain = pshm_name_plain(&beside);
    CHECK(parse(plain, &parsed) == NULL);
    size_t most = PSHM_NAME_MAX - 17;
    size_t kept = length < most ? length : most;
    const char *mark = strrchr(plain, '~');
    if (CHECK(mark != NULL)) {
        size_t before = (size_t)(mark - plain);
        CHECK(before <= kept && kept - before <= 3);
        CHECK(memcmp(plain, text, before) == 0);
        CHECK_IS(strlen(mark), 17);
    }
    CHECK(ends_with_digits(plain));
}

static void
beside_of_any_name_is_valid(void)
{
    static const char *const units[] = {
        "a", "~", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x90\x8d", "\x80",
        "\xbf\x80", "\xff",
    };
    for (size_t i = 0; i < COUNT(units); i++) {
        for (size_t length = 1; length <= PSHM_NAME_MAX; length++) {
            check_beside(units[i], length);
        }
    }
}

static void
beside_cuts_between_characters(void)
{
    struct pshm_name name, beside;
    static const char snake[4] = {'\xf0', '\x9f', '\x90', '\x8d'};
    char text[PSHM_NAME_MAX];
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'a', sizeof(text));
        for (size_t i = shift; i + 4 <= sizeof(text); i += 4) {
            memcpy(text + i, snake, sizeof(snake));
        }
        CHECK(pshm_name_parse(text, sizeof(text), &name) == NULL);
        CHECK_IS(pshm_name_beside(&name, &beside), 0);
        const char *plain = pshm_name_plain(&beside);
        size_t kept = (size_t)(strrchr(plain, '~') - plain);
        CHECK_IS((kept - shift) % 4, 0);
    }
}

static void
lack_of_randomness_is_an_error(void)
{
    struct pshm_name name = name_of("x"), out;
    pshm_fault_arm("getrandom", 1, PSHM_FAULT_FAIL, EINTR);
    CHECK_IS(pshm_name_random(&out), -EINTR);
    pshm_fault_arm("getrandom", 1, PSHM_FAULT_FAIL, EAGAIN);
    CHECK_IS(pshm_name_beside(&name, &out), -EAGAIN);
    (void)pshm_fault_disarm();
}

int
main(void)
{
    RUN(valid_names_are_parsed);
    RUN(random_names_differ);
    RUN(beside_starts_with_the_name);
    RUN(beside_of_any_name_is_valid);
    RUN(beside_cuts_between_characters);
    RUN(lack_of_randomness_is_an_error);
    return finish();
}
