// What a chat screen needs, in Node, with ioredis:
//
//     npm install ioredis          in the folder of this file
//     node read.cjs redis://localhost:6379 room ben 17600000001728660 17600000002110345
//
// It prints the counts of the messages, which of them are ben's, and who chose each value of the
// first message. Then it prints each change. Every line is JSON.

'use strict';

const Redis = require('ioredis');

const NAMESPACE = 'tally';
const PAGE = 100;
const WAIT_MILLISECONDS = 1000;
const WHO_EPOCH = 17n * 10n ** 15n;

function keyOf(channel, name) {
  const encoded = channel.replace(/[%{}]/g, encodeURIComponent);
  return `${NAMESPACE}:{${encoded}}:${name}`;
}

// Returns a type, or a value of `actions`, as it stands in a field.
function encodedPart(text) {
  return text.replace(/[%:]/g, encodeURIComponent);
}

// The fields of `counts`: <type>:<value>. The value is raw.
function readTally(field) {
  const colon = field.indexOf(':');
  return [decodeURIComponent(field.slice(0, colon)), field.slice(colon + 1)];
}

// The fields of `actions`, and of the journal: <type>:<value>:<user>. The value is encoded.
function readAction(field) {
  const [type, value, ...user] = field.split(':');
  return [decodeURIComponent(type), decodeURIComponent(value), user.join(':')];
}

// Returns the replies of a MULTI.
async function atomically(redis, commands) {
  const replies = await redis.multi(commands).exec();
  return replies.map(([, reply]) => reply);
}

// Returns the counts of messages at one instant, and the position in the journal.
async function readPage(redis, channel, messages) {
  const [head, owed, ...hashes] = await atomically(redis, [
    ['get', keyOf(channel, 'head')],
    ['exists', keyOf(channel, 'owed')],
    ...messages.map((message) => ['hgetall', keyOf(channel, `counts:${message}`)]),
  ]);
  const page = { position: head ?? '0-0', in_doubt: owed === 1, counts: {} };
  messages.forEach((message, number) => {
    const counts = (page.counts[message] = {});
    for (const [field, count] of Object.entries(hashes[number])) {
      const [type, value] = readTally(field);
      (counts[type] ??= {})[value] = Number(count);
    }
  });
  return page;
}

// Returns which reactions of a message are a user's, and since when.
// Timetokens stay text: 17 digits do not fit a number.
async function readMine(redis, channel, message, counts, user) {
  const tallies = Object.entries(counts).flatMap(([type, values]) =>
    Object.keys(values).map((value) => ({ type, value })));
  if (!tallies.length) return [];
  const fields = tallies.map(({ type, value }) =>
    `${encodedPart(type)}:${encodedPart(value)}:${user}`);
  const times = await redis.hmget(keyOf(channel, `actions:${message}`), ...fields);
  return tallies
    .map((tally, number) => ({ ...tally, at: times[number] }))
    .filter(({ at }) => at !== null);
}

// Returns who chose a value, oldest first, a hundred at most.
async function readWho(redis, channel, message, type, value) {
  const prefix = `${encodedPart(type)}:${encodedPart(value)}:`;
  const who = keyOf(channel, `who:${message}:${prefix.slice(0, -1)}`);
  const [count, size, users] = await atomically(redis, [
    ['hget', keyOf(channel, `counts:${message}`), `${encodedPart(type)}:${value}`],
    ['zcard', who],
    ['zrange', who, 0, PAGE - 1, 'WITHSCORES'],
  ]);
  const found = [];
  if (size === Number(count)) {
    for (let at = 0; at < users.length; at += 2) {
      // The sum does not fit a number. The score does.
      const timetoken = BigInt(Number(users[at + 1])) + WHO_EPOCH;
      found.push({ user: users[at], at: String(timetoken) });
    }
    return found;
  }
  // Few have reacted, or the worker has not yet written all users.
  const actions = await redis.hgetall(keyOf(channel, `actions:${message}`));
  for (const [field, at] of Object.entries(actions)) {
    if (field.startsWith(prefix)) found.push({ user: field.slice(prefix.length), at });
  }
  found.sort((left, right) => left.at.length - right.at.length || (left.at < right.at ? -1 : 1));
  return found.slice(0, PAGE);
}

// Yields each change after a position; ends when the position is gone: read a new page then.
async function* changesAfter(redis, waiting, channel, position) {
  const [head, journal] = [keyOf(channel, 'head'), keyOf(channel, 'journal')];
  for (;;) {
    const [newest, entries] = await atomically(redis, [
      ['get', head],
      ['xrange', journal, `(${position}`, '+', 'COUNT', PAGE],
    ]);
    for (const [id, words] of entries) {
      const fields = {};
      for (let at = 0; at < words.length; at += 2) fields[words[at]] = words[at + 1];
      if (fields.after !== position) return; // an entry is missing
      for (let number = 0; String(number) in fields; number++) {
        yield readChange(fields[number]);
      }
      position = id;
    }
    if (entries.length) continue;
    if ((newest ?? '0-0') !== position) return; // Redis went back, or the journal expired
    await waiting.xread('BLOCK', WAIT_MILLISECONDS, 'STREAMS', journal, position);
  }
}

function readChange(text) {
  const [event, , , count, message, ...rest] = text.split(' ');
  if (event === 'expired') return { message, expired: true }; // all its counts are gone
  const [type, value] = readAction(rest.join(' '));
  return { message, type, value, count: Number(count) };
}

async function main(url, channel, user, ...messages) {
  const print = (line) => console.log(JSON.stringify(line));
  const redis = new Redis(url);
  if ((await redis.hget(`${NAMESPACE}:meta`, 'schema')) !== '1') {
    throw new Error(`There are no tallies of schema 1 at ${url}: check the database and the namespace.`);
  }
  const waiting = redis.duplicate(); // it waits for changes, and does nothing else
  for (;;) {
    const page = await readPage(redis, channel, messages);
    print(page);
    const [first] = messages;
    print({ mine: await readMine(redis, channel, first, page.counts[first], user) });
    for (const [type, values] of Object.entries(page.counts[first])) {
      for (const value of Object.keys(values)) {
        print({ type, value, who: await readWho(redis, channel, first, type, value) });
      }
    }
    for await (const change of changesAfter(redis, waiting, channel, page.position)) {
      print(change);
    }
  }
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
