/*
 * One channel, two workers, and a Redis that goes back: events, marks, cursors, repairs.
 *
 * The rule is a join (tallies.pml), so here an event is a bit that is applied or not.
 * Redis is one server (a cluster: shards.pml). It may keep a copy of itself once, and go back to it once:
 * what comes back is a beginning of what was there.
 *
 * Redis has a term (its run_id): another one after it went back. Every connection begins with it,
 * so a worker that meets another term recovers before its next command.
 */

#ifndef EVENTS
#define EVENTS 2
#endif
#ifndef OVERFLOWS
#define OVERFLOWS 0     /* events that PubNub drops, with a sign */
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef LOOKS
#define LOOKS 1         /* how many of the workers repair */
#endif
#define WORKERS 2
#define BIT(x) (1 << (x))

/* PubNub */

byte published;
byte gaps;              /* bits: the events that a full answer lacked */
byte overflows = OVERFLOWS, kills = KILLS;

/* Redis */

byte applied;           /* bits */
byte owed;              /* the number of the mark, 0: none */
byte head;              /* the number of the newest journal entry */
byte journal;           /* bits: the entries */
byte cursor, saves;

byte kept_applied, kept_owed, kept_head, kept_journal, kept_cursor, kept_saves;
byte term = 1;
bool has_copy;
byte entries;           /* numbers given: an id is never given twice */

/* Workers */

#define START 0
#define POLL 1
#define MARK 2
#define APPLY 3
#define SAVE 4
#define IDLE 0
#define CORRECT 1
#define REPAY 2

byte at[WORKERS];
byte from[WORKERS], upto[WORKERS], known_saves[WORKERS];
byte met[WORKERS];        /* the term that is trusted; 0: none yet */
byte look[WORKERS], due[WORKERS];

/* What Redis has acknowledged to a worker: store/acknowledged.py */

byte ack_head[WORKERS], ack_saves[WORKERS];
bool has_mark[WORKERS];   /* a mark that no save proves */
byte proven_by[WORKERS];  /* the save that proves the newest mark */
bool is_suspect[WORKERS]; /* a sign that Redis surely went back */

bool is_last[WORKERS], was_last; /* the last poll of a worker has an empty answer: PubNub never stops to answer */

byte p;

#define ALL (BIT(published) - 1)

/* Before a command the worker must trust Redis. */
#ifdef WITHOUT_ROLLBACK_SIGN
#define MAY_CALL(x) true
#define MUST_RECOVER(x) false
#else
#define MAY_CALL(x) (!is_suspect[x] && met[x] == term)
#define MUST_RECOVER(x) (met[x] != 0 && !MAY_CALL(x))
#endif

inline mark(x) {
    /* a number that nobody knows */
    p = 1;
    do
    :: p == owed || p == kept_owed || p == due[0] || p == due[1] -> p++
    :: else -> break
    od;
    owed = p; p = 0;
#ifndef WITHOUT_MARK_AGAIN
    has_mark[x] = true
#endif
}

inline acknowledge_head(x) {
    skip;
#ifndef WITHOUT_ROLLBACK_SIGN
    if
    :: head < ack_head[x] -> is_suspect[x] = true; printf("Worker %d meets an older journal.\n", x)
    :: else -> ack_head[x] = head
    fi
#endif
}

inline write_entry(bits) {
    if
    :: ((bits) & ~applied) != 0 ->
        applied = applied | (bits); entries++; head = entries; journal = journal | BIT(entries)
    :: else
    fi
}

inline forget_worker(x) {
    at[x] = START; from[x] = 0; upto[x] = 0; known_saves[x] = 0; look[x] = IDLE; due[x] = 0;
    ack_head[x] = 0; ack_saves[x] = 0; has_mark[x] = false; proven_by[x] = 0; is_suspect[x] = false;
    met[x] = 0
}

/* Recovery: applying/rollback.py */

#define HAS_LOST_HEAD(x) (ack_head[x] != 0 && (journal & BIT(ack_head[x])) == 0)
#define IS_DATA_LOST(x) (is_suspect[x] || HAS_LOST_HEAD(x))
#define IS_CURSOR_LOST(x) (is_suspect[x] || saves < ack_saves[x])

inline recover(x) {
    if :: has_mark[x] -> mark(x) :: else fi;
    if
    :: IS_DATA_LOST(x) || IS_CURSOR_LOST(x) ->
        if :: proven_by[x] > saves -> mark(x) :: else fi;
        if :: IS_DATA_LOST(x) -> mark(x) :: else fi;
        ack_head[x] = 0; ack_saves[x] = 0;
        upto[x] = 0; at[x] = START; from[x] = 0;
        look[x] = IDLE; due[x] = 0;
        printf("Worker %d finds a loss.\n", x)
    :: else -> printf("Worker %d finds no loss.\n", x)
    fi;
    is_suspect[x] = false; met[x] = term
}

#ifdef WITHOUT_CURSOR_NUMBER
#define IS_FORGOTTEN(x) false
#else
#define IS_FORGOTTEN(x) (saves < known_saves[x])
#endif
/* A cursor passes only what is applied or marked. */
#define CHECK_CURSOR assert(owed != 0 || ((BIT(cursor) - 1) & ~applied) == 0)
#ifdef WITHOUT_MARK_BEFORE_CURSOR
#define AFTER_POLL APPLY
#define AFTER_SAVE(x) if :: (gaps & (BIT(from[x]) - 1)) != 0 -> mark(x) :: else fi
#else
#define AFTER_POLL MARK
#define AFTER_SAVE(x) skip
#endif
#define GAPS_OF(x) (gaps & (BIT(upto[x]) - 1) & ~(BIT(from[x]) - 1))
#define EVENTS_OF(x) ((BIT(upto[x]) - 1) & ~(BIT(from[x]) - 1) & ~gaps)

#define WORKER(x) \
    :: atomic { MUST_RECOVER(x) -> printf("Worker %d compares Redis with what it knows.\n", x); recover(x) } \
    :: atomic { at[x] == START && (met[x] == 0 || MAY_CALL(x)) -> \
        met[x] = term; \
        from[x] = cursor; known_saves[x] = saves; at[x] = POLL; \
        printf("Worker %d begins at cursor %d, save %d.\n", x, cursor, saves) } \
    :: atomic { at[x] == POLL && from[x] < published -> \
        upto[x] = published; at[x] = (GAPS_OF(x) != 0 -> AFTER_POLL : APPLY); \
        printf("Worker %d gets the events %d to %d.\n", x, from[x] + 1, upto[x]) } \
    :: atomic { at[x] == POLL && is_last[x] -> \
        is_last[x] = false; upto[x] = from[x]; at[x] = SAVE; printf("Worker %d gets an empty answer.\n", x) } \
    :: atomic { at[x] == MARK && MAY_CALL(x) -> \
        mark(x); at[x] = APPLY; printf("Worker %d marks the channel.\n", x) } \
    :: atomic { at[x] == APPLY && MAY_CALL(x) -> \
        write_entry(EVENTS_OF(x)); acknowledge_head(x); at[x] = SAVE; \
        printf("Worker %d applies its events: journal entry %d.\n", x, head) } \
    :: atomic { at[x] == SAVE && MAY_CALL(x) && IS_FORGOTTEN(x) -> \
        is_suspect[x] = true; at[x] = START; from[x] = 0; upto[x] = 0; known_saves[x] = 0; \
        printf("Worker %d cannot save its cursor: Redis has forgotten a save.\n", x) } \
    :: atomic { at[x] == SAVE && MAY_CALL(x) && !IS_FORGOTTEN(x) -> \
        cursor = upto[x]; saves++; CHECK_CURSOR; \
        from[x] = upto[x]; upto[x] = 0; known_saves[x] = saves; ack_saves[x] = saves; at[x] = POLL; \
        if :: has_mark[x] -> has_mark[x] = false; proven_by[x] = saves :: else fi; \
        AFTER_SAVE(x); \
        printf("Worker %d saves cursor %d, save %d.\n", x, cursor, saves) } \
    :: atomic { look[x] == IDLE && x < LOOKS && at[x] != START && owed != 0 && MAY_CALL(x) -> \
        due[x] = owed; look[x] = CORRECT; printf("Worker %d begins a repair.\n", x) } \
    :: atomic { look[x] == CORRECT && MAY_CALL(x) -> \
        write_entry(ALL); acknowledge_head(x); look[x] = REPAY; \
        printf("Worker %d corrects the tallies: journal entry %d.\n", x, head) } \
    :: atomic { look[x] == REPAY && MAY_CALL(x) -> \
        if \
        :: owed == due[x] -> \
            owed = 0; has_mark[x] = false; proven_by[x] = 0; \
            printf("Worker %d takes the mark back.\n", x) \
        :: else -> printf("Worker %d leaves a mark that has changed.\n", x) \
        fi; \
        look[x] = IDLE; due[x] = 0 } \
    :: atomic { kills > 0 && met[x] != 0 -> \
        kills--; forget_worker(x); printf("Worker %d is killed.\n", x) }

active proctype world() {
    do
    :: atomic { published < EVENTS ->
        published++; printf("PubNub publishes event %d.\n", published) }
    :: atomic { published < EVENTS && overflows > 0 ->
        overflows--; gaps = gaps | BIT(published); published++;
        printf("A full answer lacks event %d.\n", published) }
    :: atomic { !has_copy && term == 1 ->
        has_copy = true;
        kept_applied = applied; kept_owed = owed; kept_head = head; kept_journal = journal;
        kept_cursor = cursor; kept_saves = saves;
        printf("A replica keeps Redis as it is.\n") }
    :: atomic { has_copy ->
        has_copy = false; term++;
        applied = kept_applied; owed = kept_owed; head = kept_head; journal = kept_journal;
        cursor = kept_cursor; saves = kept_saves;
        kept_applied = 0; kept_owed = 0; kept_head = 0; kept_journal = 0;
        kept_cursor = 0; kept_saves = 0;
        printf("Redis goes back.\n") }
    WORKER(0)
    WORKER(1)
    :: else ->
        if
        :: !was_last -> was_last = true; is_last[0] = true; is_last[1] = true
        :: else -> break
        fi
    od;
    /* Nothing can happen any more. */
    assert(at[0] == POLL && at[1] == POLL && from[0] == published && from[1] == published);
    assert(owed == 0 && look[0] == IDLE && look[1] == IDLE);
    assert(applied == ALL)  /* every event is applied, or was repaired */
}
