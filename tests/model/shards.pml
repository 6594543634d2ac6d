/*
 * One channel, two workers with one cursor, and a Redis of shards that go back at any step.
 *
 * An event is a bit, as in rollback.pml. The channel is on shard 0; with SHARDS 2 the cursor is on shard 1.
 * A shard that goes back has another sign: it is a beginning of what it was. A planned failover is one that
 * goes back to all of it. No command tells the sign: a worker reads it in a step of its own, which may be late.
 */

#ifndef SHARDS
#define SHARDS 2
#endif
#ifndef EVENTS
#define EVENTS 1
#endif
#ifndef OVERFLOWS
#define OVERFLOWS 0     /* events that PubNub drops, with a sign */
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef BACKS
#define BACKS 1         /* how often shard 0 goes back */
#endif
#ifndef CURSOR_BACKS
#define CURSOR_BACKS 0  /* how often shard 1 goes back */
#endif
#ifndef LOOKS
#define LOOKS 1         /* how many of the workers repair */
#endif
#ifndef OTHERS
#define OTHERS 0        /* journal entries of other programs: a sweep, a user who is forgotten */
#endif
#define WORKERS 2
#define BIT(x) (1 << (x))

/* PubNub */

byte published;
byte gaps;              /* bits: the events that a full answer lacked */
byte overflows = OVERFLOWS, kills = KILLS, backs = BACKS, cursor_backs = CURSOR_BACKS, others = OTHERS;

/* Redis */

byte sign = 1;          /* of shard 0 */
byte applied;           /* bits */
byte owed;              /* the number of the mark, 0: none */
byte head;              /* the number of the newest journal entry */
short journal = 1;      /* bits: the entries; entry 0 is the empty journal */
byte cursor, saves;
byte saved_sign = 1;    /* of shard 0, saved with the cursor */

bool has_copy, has_cursor_copy;
byte kept_applied, kept_owed, kept_head, kept_cursor, kept_saves, kept_saved_sign;
short kept_journal;
byte entries;           /* numbers given: an id is never given twice */

/* Workers. Each does three things at the same time: live, look, watch. */

#define START 0         /* adoption of the cursor: */
#define SIGN 1
#define OWE 2
#define HEADS 3
#define MARKS 4
#define SIGN_AGAIN 5
#define POLL 6          /* live: */
#define MARK 7
#define APPLY 8
#define ANSWER 9
#define SAVE 10
byte at[WORKERS];
byte from[WORKERS], upto[WORKERS], known_saves[WORKERS];
byte found_sign[WORKERS], today[WORKERS];
byte sent_sign[WORKERS], sent_known[WORKERS], before[WORKERS], after[WORKERS];

#define IDLE 0
#define READ 1
#define WRITE 2
#define REPAY 3
#define FORGET 4
byte look[WORKERS], due[WORKERS], look_sign[WORKERS], lacking[WORKERS];
bool has_repaid[WORKERS];

#define CALM 0
#define REMARK 1
#define COMPARE 2
#define NEWEST 3
#define ACCEPT 4
byte watch[WORKERS], seen[WORKERS];

byte accepted[WORKERS];    /* the sign up to which everything is compared; 0: none yet */
short need[WORKERS];       /* bits: the entries that it relies on */
byte newest[WORKERS];      /* the newest of them */
bool has_mark[WORKERS];    /* a mark that it relies on */
bool is_suspect[WORKERS];  /* an answer that shows a loss */

bool is_last[WORKERS], was_last; /* the last poll of a worker has an empty answer: PubNub never stops to answer */
byte p;

#define ALL (BIT(published) - 1)
#define ANSWER_OF(x) ((BIT(upto[x]) - 1) & ~(BIT(from[x]) - 1))
#ifdef ONE_LACKS        /* worker 1 polls at other times: no answer of it is full; it alone is killed */
#define GAPS_OF(x) (gaps * (1 - x) & ANSWER_OF(x))
#define MAY_DIE(x) (x == 1 && kills > 0)
#else
#define MAY_DIE(x) (kills > 0)
#define GAPS_OF(x) (gaps & ANSWER_OF(x))
#endif
#define EVENTS_OF(x) (ANSWER_OF(x) & ~GAPS_OF(x))

inline mark(x) {
    /* a number that nobody knows */
    p = 1;
    do
    :: p == owed || p == kept_owed || p == due[0] || p == due[1] -> p++
    :: else -> break
    od;
    owed = p; p = 0;
    has_mark[x] = true
}

inline write_entry(bits) {
    if
    :: ((bits) & ~applied) != 0 ->
        applied = applied | (bits); entries++; head = entries; journal = journal | BIT(entries);
        assert(entries < 15)
    :: else
    fi
}

inline rely_on(x, entry) {
    if
    :: entry > newest[x] -> newest[x] = entry
    :: else
    fi;
#ifdef WITHOUT_OLDER_HEADS
    need[x] = BIT(newest[x])
#else
    need[x] = need[x] | BIT(entry)
#endif
}

/* the answer of a script: the heads before and after it */
inline take_answer(x, known, head_before, head_after) {
    if
    :: head_before < known -> is_suspect[x] = true; printf("Worker %d meets an older journal.\n", x)
    :: else ->
        if
        :: head_before == newest[x] && watch[x] == CALM -> need[x] = need[x] & ~BIT(head_before)
        :: else
        fi;
        rely_on(x, head_after)
    fi
}

inline forget_worker(x) {
    at[x] = START; from[x] = 0; upto[x] = 0; known_saves[x] = 0; found_sign[x] = 0; today[x] = 0;
    sent_sign[x] = 0; sent_known[x] = 0; before[x] = 0; after[x] = 0;
    look[x] = IDLE; due[x] = 0; look_sign[x] = 0; lacking[x] = 0; has_repaid[x] = false;
    watch[x] = CALM; seen[x] = 0;
    accepted[x] = 0; need[x] = 0; newest[x] = 0; has_mark[x] = false; is_suspect[x] = false
}

inline end_look(x) { look[x] = IDLE; due[x] = 0; look_sign[x] = 0; lacking[x] = 0; has_repaid[x] = false }

#ifdef WITHOUT_SHARD_SIGN
#define IS_OTHER_SIGN(x) false
#define IS_NEWS(x) is_suspect[x]
#define MAY_ADOPT(x) (watch[x] == CALM && !is_suspect[x])
#else
#define MAY_ADOPT(x) (accepted[x] == 0 || (watch[x] == CALM && !is_suspect[x] && accepted[x] == sign))
#ifdef WITHOUT_DURABLE_SIGN
#define IS_OTHER_SIGN(x) false
#else
#define IS_OTHER_SIGN(x) (found_sign[x] != today[x])
#endif
#define IS_NEWS(x) (is_suspect[x] || sign != accepted[x])
#endif

#ifdef WITHOUT_SECOND_LOOK_AT_SIGN
#define IS_SAME_SIGN(x) (accepted[x] == 0 || accepted[x] == today[x])
#else
#define IS_SAME_SIGN(x) (sign == today[x] && (accepted[x] == 0 || accepted[x] == today[x]))
#endif

#ifdef WITHOUT_ADOPTED_MARKS
#define HAS_FOUND_MARK false
#else
#define HAS_FOUND_MARK (owed != 0)
#endif
#ifdef WITHOUT_ADOPTED_HEADS
#define ADOPT_HEADS(x) skip
#else
#define ADOPT_HEADS(x) rely_on(x, head)
#endif
#define IS_OF_THIS_SIGN(x) (sent_sign[x] == accepted[x])
#ifdef WITHOUT_SIGN_OF_LOOK
#define IS_LOOK_OF_THIS_SIGN(x) true
#else
#define IS_LOOK_OF_THIS_SIGN(x) (look_sign[x] == sign && look_sign[x] == accepted[x])
#endif
#ifdef WITHOUT_HEAD_OF_LOOK
#define RELY_ON_LOOK(x) skip
#else
#define RELY_ON_LOOK(x) rely_on(x, head)
#endif
#ifdef WITHOUT_MARK_AGAIN_OF_SHARD
#define MUST_MARK_AGAIN(x) false
#else
#define MUST_MARK_AGAIN(x) has_mark[x]
#endif
#ifdef WITHOUT_ACCEPTED_SIGN
#define SIGN_TO_SAVE(x) sign
#else
#define SIGN_TO_SAVE(x) accepted[x]
#endif
#ifdef WITHOUT_FIRST_SIGN
#define ACCEPTABLE(x) sign
#else
#define ACCEPTABLE(x) seen[x]
#endif

#define MAY_CALL(x) (watch[x] == CALM && !is_suspect[x])
#ifdef WITHOUT_DROPPED_ANSWERS
#define DROP_ANSWERS(x) skip
#else
#define DROP_ANSWERS(x) sent_sign[x] = 0; look_sign[x] = 0
#endif

#ifdef NOTHING_LOST
#define NEVER_NEEDLESS assert(false)    /* a living worker owes nothing after a planned failover */
#else
#define NEVER_NEEDLESS skip
#endif

#define WORKER(x) \
    :: atomic { at[x] == START && watch[x] == CALM && !is_suspect[x] -> \
        from[x] = cursor; known_saves[x] = saves; found_sign[x] = saved_sign; at[x] = SIGN; \
        printf("Worker %d reads cursor %d, saved with sign %d.\n", x, cursor, saved_sign) } \
    :: atomic { at[x] == SIGN && MAY_ADOPT(x) -> \
        today[x] = sign; at[x] = (IS_OTHER_SIGN(x) -> OWE : HEADS); \
        printf("Worker %d reads sign %d.\n", x, sign) } \
    :: atomic { at[x] == OWE -> mark(x); at[x] = HEADS; printf("Worker %d owes all.\n", x) } \
    :: atomic { at[x] == HEADS -> \
        ADOPT_HEADS(x); at[x] = MARKS; printf("Worker %d reads head %d.\n", x, head) } \
    :: atomic { at[x] == MARKS -> \
        if :: HAS_FOUND_MARK -> has_mark[x] = true :: else fi; \
        at[x] = SIGN_AGAIN; printf("Worker %d reads mark %d.\n", x, owed) } \
    :: atomic { at[x] == SIGN_AGAIN -> \
        if \
        :: IS_SAME_SIGN(x) -> \
            accepted[x] = today[x]; at[x] = POLL; printf("Worker %d begins under sign %d.\n", x, today[x]) \
        :: else -> at[x] = START; from[x] = 0; printf("Worker %d begins again.\n", x) \
        fi; \
        found_sign[x] = 0; today[x] = 0 } \
    :: atomic { at[x] == POLL && from[x] < published -> \
        upto[x] = published; at[x] = (GAPS_OF(x) != 0 -> MARK : APPLY); \
        printf("Worker %d gets the events %d to %d.\n", x, from[x] + 1, upto[x]) } \
    :: atomic { at[x] == POLL && is_last[x] -> \
        is_last[x] = false; upto[x] = from[x]; at[x] = SAVE; printf("Worker %d gets an empty answer.\n", x) } \
    :: atomic { at[x] == POLL && from[x] < cursor && watch[x] == CALM -> \
        at[x] = START; printf("Worker %d adopts the cursor of the other one.\n", x) } \
    :: atomic { at[x] == MARK -> \
        mark(x); at[x] = APPLY; printf("Worker %d marks the channel.\n", x) } \
    :: atomic { at[x] == APPLY && MAY_CALL(x) -> \
        sent_sign[x] = accepted[x]; sent_known[x] = newest[x]; before[x] = head; \
        write_entry(EVENTS_OF(x)); after[x] = head; at[x] = ANSWER; \
        printf("Redis applies the events of worker %d: journal entry %d.\n", x, head) } \
    :: atomic { at[x] == ANSWER -> \
        if \
        :: IS_OF_THIS_SIGN(x) -> take_answer(x, sent_known[x], before[x], after[x]); \
            at[x] = SAVE; printf("Worker %d gets the answer: head %d.\n", x, after[x]) \
        :: else -> at[x] = APPLY; printf("Worker %d drops an answer of an earlier sign.\n", x) \
        fi; \
        sent_sign[x] = 0; sent_known[x] = 0; before[x] = 0; after[x] = 0 } \
    :: atomic { at[x] == SAVE && MAY_CALL(x) && saves < known_saves[x] -> \
        is_suspect[x] = (SHARDS == 1); at[x] = START; from[x] = 0; upto[x] = 0; known_saves[x] = 0; \
        printf("Worker %d cannot save its cursor: Redis has forgotten a save.\n", x) } \
    :: atomic { at[x] == SAVE && MAY_CALL(x) && saves >= known_saves[x] -> \
        cursor = upto[x]; saves++; saved_sign = SIGN_TO_SAVE(x); \
        from[x] = upto[x]; upto[x] = 0; known_saves[x] = saves; at[x] = POLL; \
        printf("Worker %d saves cursor %d with sign %d.\n", x, cursor, saved_sign) } \
    \
    :: atomic { look[x] == IDLE && x < LOOKS && at[x] >= POLL && owed != 0 && MAY_CALL(x) -> \
        due[x] = owed; look_sign[x] = accepted[x]; look[x] = READ; \
        printf("Worker %d begins a repair.\n", x) } \
    :: atomic { look[x] == READ -> \
        lacking[x] = ALL & ~applied; look[x] = WRITE; printf("Worker %d compares tallies with PubNub.\n", x) } \
    :: atomic { look[x] == WRITE -> \
        if \
        :: lacking[x] != 0 -> p = head; write_entry(lacking[x]); take_answer(x, newest[x], p, head); p = 0; \
            printf("Worker %d corrects the tallies: head %d.\n", x, head) \
        :: else \
        fi; \
        look[x] = REPAY } \
    :: atomic { look[x] == REPAY -> \
        if \
        :: owed == due[x] -> owed = 0; has_repaid[x] = true; printf("Worker %d takes the mark back.\n", x) \
        :: else -> has_repaid[x] = (owed == 0); printf("Worker %d leaves a mark that has changed.\n", x) \
        fi; \
        look[x] = FORGET; RELY_ON_LOOK(x) } \
    :: atomic { look[x] == FORGET -> \
        if \
        :: has_repaid[x] && IS_LOOK_OF_THIS_SIGN(x) -> \
            has_mark[x] = false; printf("Worker %d forgets its mark.\n", x) \
        :: else \
        fi; \
        end_look(x) } \
    \
    :: atomic { watch[x] == CALM && accepted[x] != 0 && IS_NEWS(x) -> \
        seen[x] = sign; watch[x] = REMARK; DROP_ANSWERS(x); printf("Worker %d sees sign %d.\n", x, sign) } \
    :: atomic { watch[x] == CALM && accepted[x] == sign && need[x] != BIT(newest[x]) && at[x] >= POLL -> \
        need[x] = BIT(newest[x]) } \
    :: atomic { watch[x] == REMARK -> \
        if :: MUST_MARK_AGAIN(x) -> mark(x); printf("Worker %d marks again.\n", x) :: else fi; \
        watch[x] = COMPARE } \
    :: atomic { watch[x] == COMPARE -> \
        if \
        :: is_suspect[x] || (need[x] & ~journal) != 0 -> \
            NEVER_NEEDLESS; mark(x); need[x] = 0; newest[x] = 0; is_suspect[x] = false; watch[x] = NEWEST; \
            printf("Worker %d finds a loss, and owes all.\n", x) \
        :: else -> watch[x] = ACCEPT; printf("Worker %d finds no loss.\n", x) \
        fi } \
    :: atomic { watch[x] == NEWEST -> rely_on(x, head); watch[x] = ACCEPT } \
    :: atomic { watch[x] == ACCEPT -> \
        accepted[x] = ACCEPTABLE(x); seen[x] = 0; watch[x] = CALM; printf("Worker %d accepts sign %d.\n", x, accepted[x]) } \
    :: atomic { MAY_DIE(x) && accepted[x] != 0 -> \
        kills--; forget_worker(x); printf("Worker %d is killed.\n", x) }

#if SHARDS == 1
#define KEEP_CURSOR kept_cursor = cursor; kept_saves = saves; kept_saved_sign = saved_sign
#define BACK_CURSOR cursor = kept_cursor; saves = kept_saves; saved_sign = kept_saved_sign; \
    kept_cursor = 0; kept_saves = 0; kept_saved_sign = 0
#else
#define KEEP_CURSOR skip
#define BACK_CURSOR skip
#endif

active proctype world() {
    do
    :: atomic { published < EVENTS ->
        published++; printf("PubNub publishes event %d.\n", published) }
    :: atomic { published < EVENTS && overflows > 0 ->
        overflows--; gaps = gaps | BIT(published); published++;
        printf("A full answer lacks event %d.\n", published) }
    :: atomic { others > 0 ->
        others--; entries++; head = entries; journal = journal | BIT(entries);
        printf("Another program writes journal entry %d.\n", head) }
#ifdef NOTHING_LOST
    :: atomic { backs > 0 -> backs--; sign++; printf("A replica takes the place of shard 0; nothing is lost.\n") }
#else
    :: atomic { !has_copy && backs > 0 ->
        has_copy = true;
        kept_applied = applied; kept_owed = owed; kept_head = head; kept_journal = journal; KEEP_CURSOR;
        printf("A replica keeps shard 0 as it is.\n") }
    :: atomic { has_copy ->
        has_copy = false; backs--; sign++;
        applied = kept_applied; owed = kept_owed; head = kept_head; journal = kept_journal; BACK_CURSOR;
        kept_applied = 0; kept_owed = 0; kept_head = 0; kept_journal = 0;
        printf("Shard 0 goes back: sign %d.\n", sign) }
#endif
#if SHARDS == 2
    :: atomic { !has_cursor_copy && cursor_backs > 0 ->
        has_cursor_copy = true; kept_cursor = cursor; kept_saves = saves; kept_saved_sign = saved_sign;
        printf("A replica keeps shard 1 as it is.\n") }
    :: atomic { has_cursor_copy ->
        has_cursor_copy = false; cursor_backs--;
        cursor = kept_cursor; saves = kept_saves; saved_sign = kept_saved_sign;
        kept_cursor = 0; kept_saves = 0; kept_saved_sign = 0;
        printf("Shard 1 goes back.\n") }
#endif
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
    assert(look[0] == IDLE && look[1] == IDLE);
#if LOOKS
    assert(owed == 0);
#endif
    assert(applied == ALL || owed != 0)  /* every event is applied, or was repaired */
}
