/*
 * One channel that no list names, two workers with one cursor, and three shards that go back at any step:
 * its data on shard 0, the set of all names on shard 1, the cursor on shard 2 (which keeps all).
 *
 * Data, mark and name are a bit each. What is asked: does somebody always know the name of a channel that
 * may lack something? Signs, adoption and recovery are those of shards.pml, each in one step.
 */

#ifndef KILLS
#define KILLS 1
#endif
#ifndef DATA_BACKS
#define DATA_BACKS 1
#endif
#ifndef NAME_BACKS
#define NAME_BACKS 1
#endif

bool has_event, is_applied, is_owed, is_named;
bool is_past;               /* the cursor has passed the event */
bool kept_applied, kept_owed, kept_named, has_data_copy, has_name_copy;
byte data_sign = 1, name_sign = 1, saved_data = 1, saved_names = 1;
byte kills = KILLS, data_backs = DATA_BACKS, name_backs = NAME_BACKS;

#define ADOPT 0
#define POLL 1
#define NAME 2
#define APPLY 3
#define SAVE 4
byte at[2], met_data[2], met_names[2];
bool knows[2], knows_head[2], has_read[2];

/* The set, and where it may lack names, a scan of heads and owed keys. */
#ifdef WITHOUT_SCAN
#define IS_FOUND(other) is_named
#else
#define IS_FOUND(other) (is_named || ((other) && (is_applied || is_owed)))
#endif
#ifdef WITHOUT_ADOPTED_NAMES
#define LEARN(x, other) skip
#else
#define LEARN(x, other) if :: IS_FOUND(other) -> knows[x] = true; is_named = true :: else fi
#endif
#ifdef WITHOUT_NAME_AGAIN
#define NAME_AGAIN(x) skip
#else
#define NAME_AGAIN(x) if :: knows[x] -> is_named = true :: else fi
#endif

#define WORKER(x) \
    :: atomic { at[x] == ADOPT -> \
        met_data[x] = data_sign; met_names[x] = name_sign; \
        LEARN(x, saved_names != name_sign); \
        if :: saved_data != data_sign && (knows[x] || IS_FOUND(saved_names != name_sign)) -> is_owed = true :: else fi; \
        knows_head[x] = is_applied; has_read[x] = is_past; at[x] = POLL; \
        printf("Worker %d adopts the cursor; it knows the name: %d.\n", x, knows[x]) } \
    :: atomic { at[x] == POLL && has_event && !has_read[x] -> \
        knows[x] = true; at[x] = NAME; printf("Worker %d gets the event.\n", x) } \
    :: atomic { at[x] == NAME -> is_named = true; at[x] = APPLY; printf("Worker %d names the channel.\n", x) } \
    :: atomic { at[x] == APPLY -> \
        is_applied = true; knows_head[x] = true; at[x] = SAVE; printf("Worker %d applies the event.\n", x) } \
    :: atomic { at[x] == SAVE -> \
        is_past = true; has_read[x] = true; saved_data = met_data[x]; saved_names = met_names[x]; at[x] = POLL; \
        printf("Worker %d saves the cursor.\n", x) } \
    :: atomic { at[x] != ADOPT && (met_data[x] != data_sign || met_names[x] != name_sign) -> \
        NAME_AGAIN(x); LEARN(x, met_names[x] != name_sign); \
        if :: knows_head[x] && !is_applied -> is_owed = true :: else fi; \
        knows_head[x] = is_applied; met_data[x] = data_sign; met_names[x] = name_sign; \
        printf("Worker %d compares, and accepts.\n", x) } \
    :: atomic { kills > 0 && at[x] != ADOPT -> \
        kills--; at[x] = ADOPT; met_data[x] = 0; met_names[x] = 0; \
        knows[x] = false; knows_head[x] = false; has_read[x] = false; printf("Worker %d is killed.\n", x) }

active proctype world() {
    do
    :: atomic { !has_event -> has_event = true; printf("PubNub publishes the event.\n") }
    :: atomic { !has_data_copy && data_backs > 0 ->
        has_data_copy = true; kept_applied = is_applied; kept_owed = is_owed; printf("A replica keeps the data as it is.\n") }
    :: atomic { has_data_copy ->
        has_data_copy = false; data_backs--; data_sign++; is_applied = kept_applied; is_owed = kept_owed;
        printf("The data goes back.\n") }
    :: atomic { !has_name_copy && name_backs > 0 ->
        has_name_copy = true; kept_named = is_named; printf("A replica keeps the names as they are.\n") }
    :: atomic { has_name_copy ->
        has_name_copy = false; name_backs--; name_sign++; is_named = kept_named; printf("The names go back.\n") }
    WORKER(0)
    WORKER(1)
    :: else -> break
    od;
    /* A round goes over all names: it mends nothing whose name nobody knows. */
    assert(is_named);
    assert(is_applied || is_owed)
}
