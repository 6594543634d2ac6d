// The day's work in Node: undici polls, ioredis calls ../days_work.lua once an answer.
// It leaves out what ../days_work.py does.

import { readFileSync } from 'node:fs';

import Redis from 'ioredis';
import { Client } from 'undici';

const CURSOR = 'bench:cursor';
const ACTION = 3;
const SCRIPT = new URL('../days_work.lua', import.meta.url);

// Returns keys and arguments of one call.
function wholeAnswer(cursor, messages) {
  const keys = [CURSOR];
  const args = [cursor];
  for (const message of messages) {
    if (message.e !== ACTION) continue;
    const { event, data } = message.d;
    const place = `tally:{${message.c}}`;
    const tally = `${data.type}:${data.value}`;
    keys.push(`${place}:actions:${data.messageTimetoken}`);
    keys.push(`${place}:counts:${data.messageTimetoken}`);
    args.push(event, `${tally}:${message.i}`, tally, data.actionTimetoken);
  }
  return [keys.length, ...keys, ...args];
}

// Returns the clock that all processes of a machine have.
function seconds() {
  return Number(process.hrtime.bigint()) / 1e9;
}

async function contend(order) {
  const redis = new Redis(order.redis);
  redis.defineCommand('count', { lua: readFileSync(SCRIPT, 'utf8') });
  await redis.script('LOAD', readFileSync(SCRIPT, 'utf8'));
  const pubnub = new Client(`http://${order.origin}`);
  const path = `/v2/subscribe/demo/${order.names.join(',')}/0`;

  const began = seconds();
  const cpuBefore = process.cpuUsage();
  let cursor = order.first;
  let region = 1;
  while (cursor !== order.last) {
    const query = `?tt=${cursor}&tr=${region}&uuid=bench`;
    const response = await pubnub.request({ method: 'GET', path: path + query });
    const answer = await response.body.json();
    ({ t: cursor, r: region } = answer.t);
    await redis.count(...wholeAnswer(cursor, answer.m));
  }
  const spent = seconds() - began;
  const cpu = process.cpuUsage(cpuBefore);

  redis.disconnect();
  await pubnub.close();
  return { seconds: spent, cpu: (cpu.user + cpu.system) / 1e6, began };
}

const order = JSON.parse(readFileSync(0, 'utf8'));
process.stdout.write(JSON.stringify(await contend(order)));
