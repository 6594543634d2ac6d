/*
 * One identity, two workers, one Redis that forgets nothing: events, gaps, looks.
 *
 * One process chooses one step after the other, so each step below is atomic, and any order of
 * steps is tried. Each step prints what it does: a counterexample reads as a story.
 *
 * Time. An age counts ticks; SETTLE ticks are the settle time, and an age stays there.
 * What is younger than SETTLE ticks is young. So what began earlier is never young for longer.
 *
 * A budget bounds each kind of trouble. What no step can change any more is the end:
 * there the tallies must equal PubNub's truth.
 */

#ifndef SETTLE
#define SETTLE 1
#endif
#define WORKERS 2
#ifndef SUBSCRIPTIONS
#define SUBSCRIPTIONS 2 /* how many of the workers poll */
#endif
#ifndef LOOKS
#define LOOKS 1         /* how many of the workers look */
#endif
#ifndef ACTS
#define ACTS 3          /* what the user does: adds and removes */
#endif
#ifndef OVERFLOWS
#define OVERFLOWS 0     /* events that PubNub drops, with a sign */
#endif
#ifndef LOSSES
#define LOSSES 0        /* events that PubNub drops, without a sign */
#endif
#ifndef REPEATS
#define REPEATS 0       /* events that PubNub delivers twice */
#endif
#ifndef OMISSIONS
#define OMISSIONS 0     /* times that PubNub's list leaves out an action, for less than a settle time */
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef WAITS
#define WAITS 0         /* answers that wait for a settle time */
#endif
#ifndef SLOW_PAGES
#define SLOW_PAGES 0    /* pages of history that are under way for a settle time */
#endif
#ifndef HOURS
#define HOURS 0         /* hours that pass: PubNub's cache and the tombstones end */
#endif
#ifndef ROUNDS
#define ROUNDS 0        /* looks that no mark asks for; with LAST_ROUND one more comes at the end */
#endif
#ifndef POSITIONS
#define POSITIONS 5     /* of PubNub's stream */
#endif

#define OVERFLOW 9      /* what the stream holds where an event was dropped with a sign */
#define REMOVED(a) ((a) + 2)

/* PubNub: the actions 1 and 2 of one identity; a larger number is a newer timetoken. */

mtype = { added, removed };

#define NOT_YET 0
#define STORED 1
#define GONE 2

byte action[3];
byte added_age[3], gone_age[3];
bool add_unsent[3], remove_unsent[3];
byte stream[POSITIONS + 1];
byte newest;            /* the newest position of the stream */
byte kept;              /* the cache has nothing up to here */
byte omitted;           /* the action that the list leaves out */
byte omitted_age;

byte acts = ACTS, overflows = OVERFLOWS, losses = LOSSES, repeats = REPEATS, omissions = OMISSIONS;
byte kills = KILLS, waits = WAITS, slow_pages = SLOW_PAGES, hours = HOURS, rounds = ROUNDS;
bool is_last_round, was_last_round;

/* Redis */

byte live, removed_through, count;
byte cursor;
bool has_cursor;
bool owed;
byte owed_age;
bool covered[POSITIONS + 1]; /* applied, or marked: what a cursor may pass. Nobody reads it but the check */

/* Workers: a subscription, and a look, side by side. */

#define START 0
#define HANDSHAKE 1
#define POLL 2
#define MARK 3
#define APPLY 4
#define SAVE 5
#define MARK_AT_LAST 6

byte at[WORKERS];
byte from[WORKERS], upto[WORKERS], answer_age[WORKERS];
bool has_gap[WORKERS];

#define IDLE 0
#define ASK 1
#define TAKE 2
#define COMPARE 3
#define AGAIN 4
#define PRUNE 5
#define READ 6
#define REVIVE 7
#define END 8

byte look[WORKERS];
bool due[WORKERS];      /* the mark is as it was when the look began, and was old enough */
bool judged1[WORKERS], judged2[WORKERS]; /* older than the horizon */
byte entry[WORKERS];    /* live at the scan */
bool seen[WORKERS];     /* and listed */
byte page[WORKERS];     /* the action that is asked for */
bool listed[WORKERS];   /* what the page says */
byte asked_age[WORKERS];
bool is_dead[WORKERS];  /* the page is so old that it is read again */
bool barred1[WORKERS], barred2[WORKERS]; /* listed, old enough, and not live */
byte pass_age[WORKERS]; /* since the first pass */
bool absent[WORKERS];
byte proof_age[WORKERS];
byte adding[WORKERS], restoring[WORKERS], barrier[WORKERS];
bool doubt[WORKERS];
#ifdef WITHOUT_ATOMIC_SCRIPT
byte read_live[WORKERS], read_count[WORKERS];
bool has_read[WORKERS];
#endif

byte w, a, p;           /* loops; back at 0 after each step */
bool yes, changed, late;

#define IS_OLD(age) ((age) >= SETTLE)
#define UNSENT (add_unsent[1] || add_unsent[2] || remove_unsent[1] || remove_unsent[2])

/* The rule: domain/entry.py and store/lua/apply.lua */

inline add(x) {
    changed = false; late = false;
    if
    :: x <= removed_through -> late = true
    :: else ->
        if
        :: live == 0 -> live = x; count++; changed = true
        :: live != 0 && live < x -> live = x
        :: live > x -> late = true
        :: else
        fi
    fi
}

inline remove(x) {
#ifndef WITHOUT_TOMBSTONE
    if :: x > removed_through -> removed_through = x :: else fi;
#endif
    if :: live != 0 && live <= x -> live = 0; count-- :: else fi
}

/* Each count equals the number of live entries under it, at every instant. */

#define CHECK_COUNT assert(count == (live != 0))

/* Marks: owe.lua. A look takes back a mark only if it is as it was. */

inline mark() {
    owed = true; owed_age = 0;
#ifndef WITHOUT_UNCHANGED_MARK
    for (p : 0 .. WORKERS - 1) { due[p] = false }
    p = 0;
#endif
}

/* What a list may show. */

#define MAY_SHOW(x) (action[x] == STORED || (action[x] == GONE && !IS_OLD(gone_age[x])))
#define MAY_HIDE(x) (action[x] != STORED || !IS_OLD(added_age[x]) \
    || (omitted == x && !IS_OLD(omitted_age)))

inline list(x) {
    if
    :: MAY_SHOW(x) -> yes = true
    :: MAY_HIDE(x) -> yes = false
    :: action[x] == STORED && omissions > 0 ->
        omissions--; omitted = x; omitted_age = 0; yes = false;
        printf("PubNub's list leaves out action %d for less than a settle time.\n", x)
    fi
}

inline forget_look(x) {
    look[x] = IDLE; due[x] = false; judged1[x] = false; judged2[x] = false; entry[x] = 0; seen[x] = false;
    page[x] = 0; listed[x] = false; asked_age[x] = SETTLE; is_dead[x] = false; barred1[x] = false;
    barred2[x] = false; pass_age[x] = SETTLE; absent[x] = false; proof_age[x] = SETTLE; adding[x] = 0;
    restoring[x] = 0; barrier[x] = 0; doubt[x] = false
}

inline forget_answer(x) {
    from[x] = 0; upto[x] = 0; answer_age[x] = SETTLE; has_gap[x] = false
}

inline begin_look(x) {
    judged1[x] = action[1] != NOT_YET && IS_OLD(added_age[1]);
    judged2[x] = action[2] != NOT_YET && IS_OLD(added_age[2]);
#ifdef WITHOUT_HORIZON
    judged1[x] = true; judged2[x] = true;
#endif
    if
    :: (live == 1 && judged1[x]) || (live == 2 && judged2[x]) -> entry[x] = live
    :: else
    fi;
    page[x] = 2; look[x] = ASK
}

inline apply_answer(x) {
    p = from[x] + 1;
    do
    :: p <= upto[x] ->
        if
        :: stream[p] == 1 || stream[p] == 2 -> add(stream[p]); covered[p] = true
        :: stream[p] == REMOVED(1) || stream[p] == REMOVED(2) -> remove(stream[p] - 2); covered[p] = true
        :: else
        fi;
        p++
    :: else -> break
    od;
    CHECK_COUNT;
    p = 0; changed = false; late = false
}

inline mark_answer(x) {
    mark();
    p = 1;
    do
    :: p <= upto[x] ->
        if :: stream[p] == OVERFLOW || p <= from[x] -> covered[p] = true :: else fi;
        p++
    :: else -> break
    od;
    p = 0
}

inline save_cursor(x) {
    cursor = upto[x]; has_cursor = true;
    p = 1;
    do
    :: p <= upto[x] -> assert(covered[p]); p++ /* a cursor passes only what is applied or marked */
    :: else -> break
    od;
    p = 0; from[x] = upto[x]; upto[x] = 0; answer_age[x] = SETTLE
}

inline send(event, unsent) {
    newest++; stream[newest] = event; unsent = false
}

#define HAS_PAGE(x) (look[x] == TAKE)
#define HAS_PROOF(x) (look[x] >= PRUNE && look[x] <= REVIVE)
#define HAS_ANSWER(x) (at[x] == MARK || at[x] == APPLY)
#define MUST_HURRY(x) ((HAS_ANSWER(x) && answer_age[x] == SETTLE - 1 && waits == 0) \
    || (HAS_PAGE(x) && asked_age[x] == SETTLE - 1 && slow_pages == 0) \
    || (HAS_PROOF(x) && proof_age[x] == SETTLE - 1 && waits == 0))
#define YOUNG_WORKER(x) (!IS_OLD(answer_age[x]) || !IS_OLD(asked_age[x]) || !IS_OLD(pass_age[x]) \
    || !IS_OLD(proof_age[x]))
#define YOUNG_PUBNUB (!IS_OLD(added_age[1]) || !IS_OLD(added_age[2]) || !IS_OLD(gone_age[1]) \
    || !IS_OLD(gone_age[2]) || !IS_OLD(omitted_age))
#define HURRY (MUST_HURRY(0) || MUST_HURRY(1))
#define YOUNG (YOUNG_PUBNUB || !IS_OLD(owed_age) || YOUNG_WORKER(0) || YOUNG_WORKER(1))
#define HAS_READ_ALL(x) (at[x] == POLL && from[x] == newest)
#define ARE_DONE (look[0] == IDLE && look[1] == IDLE && HAS_READ_ALL(0) \
    && (SUBSCRIPTIONS == 1 || HAS_READ_ALL(1)))
#ifdef PROMPT           /* no event waits while time passes */
#define IS_PROMPT (HAS_READ_ALL(0) && (SUBSCRIPTIONS == 1 || HAS_READ_ALL(1)))
#else
#define IS_PROMPT true
#endif
#ifdef LATE
#define MAY_SEND_LATER true
#else
#define MAY_SEND_LATER (!UNSENT)
#endif

inline grow(age) {
    if :: age < SETTLE -> age++ :: else fi
}

inline pass_time() {
    grow(added_age[1]); grow(added_age[2]); grow(gone_age[1]); grow(gone_age[2]);
    grow(owed_age); grow(omitted_age);
    if :: IS_OLD(omitted_age) -> omitted = 0 :: else fi;
    for (p : 0 .. WORKERS - 1) {
        if
        :: HAS_ANSWER(p) && answer_age[p] == SETTLE - 1 && waits > 0 -> waits--
        :: else
        fi;
        if :: HAS_PAGE(p) && asked_age[p] == SETTLE - 1 && slow_pages > 0 -> slow_pages-- :: else fi;
        if :: HAS_PROOF(p) && proof_age[p] == SETTLE - 1 && waits > 0 -> waits-- :: else fi;
        grow(answer_age[p]); grow(asked_age[p]); grow(pass_age[p]); grow(proof_age[p])
    }
    p = 0
}

/* The steps. */

#define USERS \
    :: atomic { acts > 0 && action[1] == NOT_YET -> \
        acts--; action[1] = STORED; added_age[1] = 0; add_unsent[1] = true; \
        printf("The user adds action 1.\n") } \
    :: atomic { acts > 0 && action[2] == NOT_YET && MAY_ADD_AGAIN -> \
        acts--; action[2] = STORED; added_age[2] = 0; add_unsent[2] = true; \
        printf("The user adds action 2 of the same identity.\n") } \
    :: atomic { acts > 0 && action[1] == STORED -> REMOVE(1) } \
    :: atomic { acts > 0 && action[2] == STORED -> REMOVE(2) } \
    :: atomic { acts > 0 && action[1] != NOT_YET -> acts = 0; printf("The user does no more.\n") }
#define REMOVE(x) \
    acts--; action[x] = GONE; gone_age[x] = 0; remove_unsent[x] = true; \
    printf("The user removes action %d.\n", x)
#ifdef TWINS
#define MAY_ADD_AGAIN (action[1] != NOT_YET)  /* both may be stored at once */
#else
#define MAY_ADD_AGAIN (action[1] == GONE)
#endif

#define SEND(event, unsent, name, x) \
    :: atomic { unsent -> send(event, unsent); printf("PubNub publishes that action %d was %e.\n", x, name) } \
    :: atomic { unsent && repeats > 0 -> repeats--; newest++; stream[newest] = event; \
        printf("PubNub publishes that action %d was %e, and will once more.\n", x, name) } \
    :: atomic { unsent && overflows > 0 && MAY_OVERFLOW(event) -> overflows--; send(OVERFLOW, unsent); \
        printf("A full answer lacks the event that action %d was %e.\n", x, name) } \
    :: atomic { unsent && losses > 0 -> losses--; unsent = false; \
        printf("PubNub never publishes that action %d was %e.\n", x, name) }

/* Without LATE no event comes after a gap that dropped a newer event of its identity. */
#ifdef LATE
#define MAY_OVERFLOW(event) true
#else
#define MAY_OVERFLOW(event) \
    (event == 1 || (!add_unsent[1] && (event == REMOVED(1) || (!remove_unsent[1] && (event == 2 || !add_unsent[2])))))
#endif

#define TIME \
    :: atomic { YOUNG && !HURRY && MAY_SEND_LATER && IS_PROMPT -> pass_time(); printf("Time passes.\n") } \
    :: atomic { hours > 0 && !YOUNG && !UNSENT && removed_through != 0 -> \
        hours--; kept = newest; removed_through = 0; HOUR_OLD_PAGES; \
        printf("An hour passes: PubNub's cache and the tombstones are gone.\n") }
#ifdef WITHOUT_STALE_DROP
#define HOUR_OLD_PAGES skip
#else
#define HOUR_OLD_PAGES for (p : 0 .. WORKERS - 1) { is_dead[p] = HAS_PAGE(p) } p = 0
#endif

#ifdef WITHOUT_STALE_DROP
#define IS_FRESH(x) true
#else
#define IS_FRESH(x) (!IS_OLD(answer_age[x]))
#endif

#ifdef WITHOUT_MARK_BEFORE_CURSOR
#define AFTER_POLL(x) APPLY
#define AFTER_SAVE(x) (has_gap[x] -> MARK_AT_LAST : POLL)
#else
#ifdef WITHOUT_MARKS
#define AFTER_POLL(x) APPLY
#else
#define AFTER_POLL(x) (has_gap[x] -> MARK : APPLY)
#endif
#define AFTER_SAVE(x) POLL
#endif
#ifdef WITHOUT_APPLY_BEFORE_CURSOR
#define FIRST_WRITE SAVE
#else
#define FIRST_WRITE APPLY
#endif

#define RESTART(x) \
    forget_answer(x); from[x] = cursor; \
    if :: has_cursor -> at[x] = POLL :: else -> at[x] = START fi

#define SUBSCRIPTION(x) \
    :: atomic { at[x] == START && MAY_SEND_LATER -> \
        from[x] = newest; upto[x] = newest; answer_age[x] = 0; has_gap[x] = true; at[x] = AFTER_POLL(x); \
        printf("Worker %d starts for the first time, at cursor %d.\n", x, newest) } \
    :: atomic { at[x] == POLL && from[x] < newest -> \
        upto[x] = newest; answer_age[x] = 0; has_gap[x] = from[x] < kept; \
        if :: from[x] < kept -> from[x] = kept :: else fi; \
        p = from[x] + 1; \
        do \
        :: p <= upto[x] -> if :: stream[p] == OVERFLOW -> has_gap[x] = true :: else fi; p++ \
        :: else -> break \
        od; \
        p = 0; at[x] = AFTER_POLL(x); \
        printf("Worker %d polls, and gets the events %d to %d.\n", x, from[x] + 1, upto[x]) } \
    :: atomic { at[x] == MARK -> \
        mark_answer(x); has_gap[x] = false; at[x] = APPLY; \
        printf("Worker %d marks the channel as owed.\n", x) } \
    :: atomic { at[x] == APPLY && !IS_FRESH(x) -> \
        RESTART(x); \
        printf("Worker %d drops an answer that waited too long; it goes on from cursor %d.\n", x, from[x]) } \
    APPLY_AND_SAVE(x) \
    :: atomic { at[x] == MARK_AT_LAST -> \
        upto[x] = from[x]; mark_answer(x); has_gap[x] = false; upto[x] = 0; at[x] = POLL; \
        printf("Worker %d marks the channel as owed, after the cursor.\n", x) }

#if defined(WITHOUT_ATOMIC_SCRIPT)
#define APPLY_AND_SAVE(x) \
    :: atomic { at[x] == APPLY && IS_FRESH(x) && !has_read[x] -> \
        read_live[x] = live; read_count[x] = count; has_read[x] = true; \
        printf("Worker %d reads entry %d and count %d.\n", x, live, count) } \
    :: atomic { at[x] == APPLY && IS_FRESH(x) && has_read[x] -> \
        p = live; live = read_live[x]; count = read_count[x]; \
        apply_answer(x); has_read[x] = false; read_live[x] = 0; read_count[x] = 0; at[x] = SAVE; \
        printf("Worker %d writes entry %d and count %d.\n", x, live, count) } \
    SAVE_AFTER(x)
#elif defined(WITHOUT_APPLY_BEFORE_CURSOR)
#define APPLY_AND_SAVE(x) \
    :: atomic { at[x] == APPLY && IS_FRESH(x) -> \
        cursor = upto[x]; has_cursor = true; at[x] = SAVE; \
        printf("Worker %d saves cursor %d.\n", x, upto[x]) } \
    :: atomic { at[x] == SAVE -> \
        apply_answer(x); save_cursor(x); at[x] = AFTER_SAVE(x); \
        printf("Worker %d applies the events: entry %d, tombstone %d.\n", x, live, removed_through) }
#else
#define APPLY_AND_SAVE(x) \
    :: atomic { at[x] == APPLY && IS_FRESH(x) -> \
        apply_answer(x); at[x] = SAVE; \
        printf("Worker %d applies the events: entry %d, tombstone %d.\n", x, live, removed_through) } \
    SAVE_AFTER(x)
#endif
#define SAVE_AFTER(x) \
    :: atomic { at[x] == SAVE -> \
        save_cursor(x); at[x] = AFTER_SAVE(x); printf("Worker %d saves cursor %d.\n", x, cursor) }

#ifdef WITHOUT_MARK_AGE
#define IS_RIPE true
#else
#define IS_RIPE IS_OLD(owed_age)
#endif
#ifdef WITHOUT_PAUSE
#define HAS_PAUSED(x) true
#else
#define HAS_PAUSED(x) IS_OLD(pass_age[x])
#endif

#define LOOK(x) \
    :: atomic { look[x] == IDLE && owed && IS_RIPE -> \
        begin_look(x); due[x] = true; printf("Worker %d begins a look at what is owed.\n", x) } \
    :: atomic { look[x] == IDLE && rounds > 0 -> \
        rounds--; begin_look(x); printf("Worker %d begins the look of a round.\n", x) } \
    :: atomic { look[x] == IDLE && is_last_round && x == 0 -> \
        is_last_round = false; begin_look(x); printf("Worker %d begins the look of the last round.\n", x) } \
    :: atomic { look[x] == ASK -> \
        list(page[x]); \
        printf("Worker %d asks for the page of action %d: listed %d.\n", x, page[x], yes); \
        if \
        :: yes -> listed[x] = true; asked_age[x] = 0; look[x] = TAKE \
        :: else -> NEXT_PAGE(x) \
        fi; \
        yes = false } \
    :: atomic { look[x] == TAKE && is_dead[x] -> \
        is_dead[x] = false; asked_age[x] = SETTLE; listed[x] = false; look[x] = ASK; \
        printf("Worker %d reads an old page again.\n", x) } \
    :: atomic { look[x] == TAKE && !is_dead[x] -> \
        add(page[x]); CHECK_COUNT; \
        if :: entry[x] == page[x] -> seen[x] = true :: else fi; \
        if \
        :: late && live != page[x] && page[x] == 1 && judged1[x] -> barred1[x] = true \
        :: late && live != page[x] && page[x] == 2 && judged2[x] -> barred2[x] = true \
        :: else \
        fi; \
        MARK_LATE(x); \
        changed = false; late = false; asked_age[x] = SETTLE; listed[x] = false; \
        printf("Worker %d takes the page: entry %d.\n", x, live); \
        NEXT_PAGE(x) } \
    :: atomic { look[x] == COMPARE -> \
        if :: seen[x] || live != entry[x] -> entry[x] = 0 :: else fi; \
        seen[x] = false; judged1[x] = false; judged2[x] = false; \
        if \
        :: entry[x] != 0 || barred1[x] || barred2[x] -> pass_age[x] = 0; look[x] = AGAIN \
        :: else -> look[x] = END \
        fi; \
        printf("Worker %d compares: candidate %d, listed but not live %d %d.\n", \
            x, entry[x], barred1[x], barred2[x]) } \
    :: atomic { look[x] == AGAIN && HAS_PAUSED(x) -> \
        pass_age[x] = SETTLE; proof_age[x] = 0; SECOND_PASS(x); look[x] = PRUNE; \
        printf("Worker %d makes the second pass: absent %d, listed but not live %d %d.\n", \
            x, absent[x], barred1[x], barred2[x]) } \
    :: atomic { look[x] == PRUNE -> \
        if \
        :: absent[x] && IS_UNCHANGED(x) -> \
            assert(action[IS_PRUNED(x)] != STORED); /* nothing is pruned that PubNub holds */ \
            live = 0; count--; CHECK_COUNT; printf("Worker %d prunes action %d.\n", x, entry[x]) \
        :: absent[x] && !(IS_UNCHANGED(x)) -> \
            doubt[x] = true; printf("Worker %d does not prune: the entry has changed.\n", x) \
        :: else \
        fi; \
        absent[x] = false; entry[x] = 0; look[x] = READ } \
    :: atomic { look[x] == READ -> \
        if \
        :: live == 0 && barred1[x] && removed_through < 1 -> adding[x] = 1 \
        :: live == 0 && barred1[x] && removed_through >= 1 -> RESTORE(x, 1) \
        :: else \
        fi; \
        if \
        :: live == 0 && barred2[x] && removed_through < 2 -> adding[x] = 2 \
        :: live == 0 && barred2[x] && removed_through >= 2 -> RESTORE(x, 2) \
        :: else \
        fi; \
        if \
        :: adding[x] || restoring[x] -> look[x] = REVIVE \
        :: else -> look[x] = END; proof_age[x] = SETTLE \
        fi } \
    :: atomic { look[x] == REVIVE && IS_OLD(proof_age[x]) -> \
        adding[x] = 0; restoring[x] = 0; barrier[x] = 0; look[x] = AGAIN; \
        printf("Worker %d looks once more at what was listed.\n", x) } \
    :: atomic { look[x] == REVIVE && !IS_OLD(proof_age[x]) -> \
        if \
        :: restoring[x] != 0 && live == 0 && removed_through == barrier[x] -> \
            removed_through = 0; live = restoring[x]; count++; CHECK_COUNT; MARK_RESTORED(x); \
            printf("Worker %d restores action %d.\n", x, restoring[x]) \
        :: restoring[x] != 0 && (live != 0 || removed_through != barrier[x]) -> doubt[x] = true \
        :: else \
        fi; \
        if :: adding[x] != 0 -> add(adding[x]); changed = false; late = false :: else fi; \
        proof_age[x] = SETTLE; look[x] = END } \
    :: atomic { look[x] == END -> \
        if \
        :: doubt[x] -> mark(); printf("Worker %d ends in doubt, and marks the channel.\n", x) \
        :: !doubt[x] && due[x] -> owed = false; owed_age = SETTLE; printf("Worker %d takes the mark back.\n", x) \
        :: else -> printf("Worker %d ends its look; no mark is taken back.\n", x) \
        fi; \
        forget_look(x) }

#define NEXT_PAGE(x) \
    page[x]--; if :: page[x] == 0 -> look[x] = COMPARE :: else -> look[x] = ASK fi

#ifdef WITHOUT_LATE_MARK
#define MARK_LATE(x) skip
#else
#define MARK_LATE(x) \
    if :: changed && IS_OLD(asked_age[x]) -> mark(); printf("The page is late: worker %d marks the channel.\n", x) :: else fi
#endif
#ifdef WITHOUT_MARK_AFTER_RESTORE
#define MARK_RESTORED(x) skip
#else
#define MARK_RESTORED(x) doubt[x] = true
#endif
#ifdef WITHOUT_RESTORE
#define RESTORE(x, y) skip
#else
#define RESTORE(x, y) restoring[x] = y; barrier[x] = removed_through
#endif
#ifdef WITHOUT_CAS_PRUNE
#define IS_UNCHANGED(x) (live != 0)
#define IS_PRUNED(x) live
#else
#define IS_UNCHANGED(x) (live == entry[x])
#define IS_PRUNED(x) entry[x]
#endif
#ifdef WITHOUT_SECOND_PASS
#define SECOND_PASS(x) absent[x] = entry[x] != 0
#else
#define SECOND_PASS(x) \
    if :: entry[x] != 0 -> list(entry[x]); absent[x] = !yes; yes = false :: else fi; \
    if :: barred1[x] -> list(1); barred1[x] = yes; yes = false :: else fi; \
    if :: barred2[x] -> list(2); barred2[x] = yes; yes = false :: else fi
#endif

#define KILL(x) \
    :: atomic { kills > 0 && (at[x] >= MARK || look[x] != IDLE) -> \
        kills--; forget_look(x); RESTART(x); \
        printf("Worker %d is killed, and goes on from cursor %d.\n", x, from[x]) }

active proctype world() {
    atomic {
        added_age[1] = SETTLE; added_age[2] = SETTLE; gone_age[1] = SETTLE; gone_age[2] = SETTLE;
        owed_age = SETTLE; omitted_age = SETTLE;
#ifndef FIRST_START
        has_cursor = true;
#endif
        for (w : 0 .. WORKERS - 1) { forget_look(w); RESTART(w) }
        w = 0
    }
    do
    USERS
    SEND(1, add_unsent[1], added, 1)
    SEND(2, add_unsent[2], added, 2)
    SEND(REMOVED(1), remove_unsent[1], removed, 1)
    SEND(REMOVED(2), remove_unsent[2], removed, 2)
    TIME
    SUBSCRIPTION(0)
    LOOK(0)
    KILL(0)
#if SUBSCRIPTIONS == 2
    SUBSCRIPTION(1)
#endif
#if LOOKS == 2
    LOOK(1)
#endif
#if SUBSCRIPTIONS == 2 || LOOKS == 2
    KILL(1)
#endif
    :: else ->
#ifdef LAST_ROUND
        if
        :: !was_last_round ->
            if
            :: LOSSES == 0 -> assert(count == 0 || action[1] == STORED || action[2] == STORED)
            :: else
            fi;
            was_last_round = true; is_last_round = true
        :: else -> break
        fi
#else
        break
#endif
    od;
    /* Nothing can happen any more. */
    assert(ARE_DONE && !owed && cursor == newest);  /* every repair ends, and takes its mark back */
    assert(live == 0 || action[live] == STORED);
    assert(count == (action[1] == STORED || action[2] == STORED)) /* the tallies equal PubNub's truth */
}
