# The same with redis-cli, line by line. Quotes keep the braces from the shell.
# Without --raw, redis-cli writes escapes for emoji on a terminal.

# Are these tallies? It must be 1. If it is missing, every other answer would be empty.
redis-cli --raw HGET 'tally:meta' schema

# The counts of a message: a field is <type>:<value>, then comes its count.
redis-cli --raw HGETALL 'tally:{room}:counts:17600000001728660'

# Is 👍 ben's, and since when? In `actions` the value is encoded: ':' is %3A, '%' is %25.
redis-cli --raw HGET 'tally:{room}:actions:17600000001728660' 'reaction:👍:ben'

# Who reacted: <type>:<value>:<user>, then the action timetoken.
redis-cli --raw HGETALL 'tally:{room}:actions:17600000001728660'

# Who reacted with 👍. MATCH reads * ? [ ] and \ as a pattern: put a \ before each of them.
redis-cli --raw HSCAN 'tally:{room}:actions:17600000001728660' 0 MATCH 'reaction:👍:*' COUNT 1000

# The first 50 who reacted with 👍 to a message with more than 128 actions: a user, then a score.
# The score plus 17000000000000000 is the action timetoken. All users are there if ZCARD is the count.
redis-cli --raw ZCARD 'tally:{room}:who:17600000001728660:reaction:👍'
redis-cli --raw ZRANGE 'tally:{room}:who:17600000001728660:reaction:👍' 0 49 WITHSCORES

# Which messages changed last, and when: milliseconds since 1970.
redis-cli --raw ZREVRANGE 'tally:{room}:messages' 0 49 WITHSCORES

# The position in the journal, and whether the channel is in doubt (1).
redis-cli --raw GET 'tally:{room}:head'
redis-cli --raw EXISTS 'tally:{room}:owed'

# The newest changes. XREAD waits for later ones.
redis-cli --raw XREVRANGE 'tally:{room}:journal' + - COUNT 10
redis-cli --raw XREAD BLOCK 1000 STREAMS 'tally:{room}:journal' '$'
