// Numbers, times and strangers' texts in words.

const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const dayOfYear = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" });
const DAY = 86_400;

// Control characters, and those that turn or hide a text. The joiner and the tags of emoji stay.
const HIDDEN = /[\p{Cc}\p{Zl}\p{Zp}\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u2800\u3164\uffa0\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

const escaped = (character) => `\\u{${character.codePointAt(0).toString(16)}}`;

/** Returns a text that others chose with an escape for what would not be seen. */
export const visible = (text) => text.replace(HIDDEN, escaped);

export function count(value) {
  return number.format(value);
}

/** Returns "3 channels", or "1 channel". */
export function many(value, word) {
  return `${count(value)} ${word}${value === 1 ? "" : "s"}`;
}

/** Returns a number of three digits or so. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  return number.format(value >= 10 ? Math.round(value) : Math.round(value * 10) / 10);
}

/** Returns milliseconds or seconds, from seconds. */
export function lag(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  return seconds < 1 ? `${count(Math.round(seconds * 1000))} ms` : `${rate(seconds)} s`;
}

/** Returns a time that has passed: "41 s", "12 min", "3 h", "6 d". */
export function span(seconds) {
  if (seconds < 100) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 2 * DAY) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / DAY)} d`;
}

/** Returns a moment: its time, and its day and year if they are others. */
export function moment(milliseconds) {
  const then = new Date(milliseconds);
  if (Number.isNaN(then.getTime())) return "an unknown time";
  const now = new Date();
  if (then.toDateString() === now.toDateString()) return clock.format(then);
  const date = then.getFullYear() === now.getFullYear() ? day : dayOfYear;
  return `${date.format(then)}, ${clock.format(then)}`;
}

/** Returns when a message was published. A timetoken of PubNub has 17 digits. */
export function published(timetoken) {
  if (!/^\d{17}$/.test(timetoken)) return visible(timetoken);
  return moment(Number(timetoken.slice(0, 13)));
}

const CAUSES = {
  first_start: "first start",
  stale_cursor: "worker was away",
  overflow: "too many at once",
  forbidden: "PubNub refuses it",
  new_channel: "new channel",
  quarantined: "an event was refused",
  redis_went_back: "Redis went back",
  unproven: "not proven",
  half_applied: "script was refused",
  damaged_key: "damaged key",
};

/** Returns causes of a gap in words. */
export function causes(names) {
  return names.map((name) => CAUSES[name] ?? visible(name)).join(", ");
}
