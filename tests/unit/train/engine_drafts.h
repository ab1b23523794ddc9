/* engine_drafts.h: a part of test_engine.c: texts that are guessed ahead. */

/* Guesses that are right up to some place, as one that knows the answers makes them. */
static const struct sequence *answered;
static i64 guess(const struct ids *ids, u32 *to, i64 most) {
    for (int n = 0; n < TEXTS; n++) {
        const struct sequence *q = &answered[n];
        const i64 at = ids->count - q->count;
        if (at < 0 || at >= q->out.count ||
            memcmp(ids->item, q->prompt, (size_t)q->count * sizeof *to) ||
            memcmp(ids->item + q->count, q->out.item, (size_t)at * sizeof *to))
            continue;
        const i64 count = i64_min(most, q->out.count - at), wrong = ids->count * 7 % 4;
        memcpy(to, q->out.item + at, (size_t)count * sizeof *to);
        if (wrong < count) to[wrong] = to[wrong] ? 0 : 1;
        return count;
    }
    return 0;
}

/* With guesses the ids are the same. */
static void drafts_case(struct engine *g, const struct sequence *list) {
    struct sequence again[TEXTS];
    struct sampling how[TEXTS];
    struct err e = {0};
    draft_guess *const usual = draft_guesser;
    const struct engine_count before = engine_counted(g);
    memcpy(again, list, sizeof again), answered = list, draft_guesser = guess;
    for (int n = 0; n < TEXTS; n++) {
        how[n] = *list[n].how, how[n].draft = 1 + 2 * n;
        again[n].how = &how[n], again[n].out = (struct ids){0};
    }
    ok(!engine_generate(g, again, TEXTS, NULL, &e), &e);
    const struct engine_count after = engine_counted(g);
    for (int n = 0; n < TEXTS; n++) {
        assert_int_equal(again[n].out.count, NEW);
        assert_memory_equal(list[n].out.item, again[n].out.item, NEW * sizeof(u32));
        ids_free(&again[n].out);
    }
    draft_guesser = usual;
    struct states states = {0};
    ok(!states_describe(&states, &model, false, &e), &e);
    const bool slots = states_have(&states, STATE_SEQUENCE);
    states_free(&states);
    if (slots) /* which cannot go back so cheaply */
        assert_int_equal(after.drafted, before.drafted);
    else
        assert_true(after.accepted > before.accepted &&
                    after.drafted - before.drafted > after.accepted - before.accepted);
}
