// Started in this folder: node main.cjs PORT. A chat page in Node, with ioredis.

'use strict';

const { createServer } = require('node:http');
const Redis = require('ioredis');

const redis = new Redis(process.env.REDIS_URL);

function keyOf(channel, message) {
  const encoded = channel.replace(/[%{}]/g, encodeURIComponent);
  return `tally:{${encoded}}:counts:${message}`;
}

// Answers /room?message=…&message=…
async function show(request, response) {
  const address = new URL(request.url, 'http://localhost');
  const channel = decodeURIComponent(address.pathname.slice(1));
  const messages = address.searchParams.getAll('message');
  const counts = await Promise.all(messages.map((message) => redis.hgetall(keyOf(channel, message))));
  response.end(JSON.stringify(counts));
}

createServer(show).listen(process.argv[2], '127.0.0.1');
