// The sentence on top: may the counts be trusted?

import { count, many, rate, span } from "./words.js";

/** A symbol and a word for each state, so that it is not colour alone. */
export const STATES = {
  good: { symbol: "✓", word: "In order" },
  repairing: { symbol: "↻", word: "Repairing" },
  attention: { symbol: "!", word: "Look here" },
  unknown: { symbol: "?", word: "Unknown" },
};

function proof(summary, since) {
  if (summary.never_proven === undefined) return "nothing is known of the counts";
  const isNew = summary.never_proven >= summary.channels;
  if (isNew) return "no channel proven yet";
  if (summary.never_proven) return `${many(summary.never_proven, "channel")} not proven yet`;
  return `all counts proven ${span(summary.proven_seconds + since)} ago`;
}

/** Returns the facts of the sentence; `since` is how many seconds ago they were read. */
export function factsOf(summary, since, changesAMinute) {
  if (summary.channels === undefined) return proof(summary, since);
  const isKnown = summary.rate !== null;
  const pace = isKnown ? `${rate(summary.rate)} events/s` : `${rate(changesAMinute / 60)} changes/s`;
  const owed = summary.owed ? `${many(summary.owed, "channel")} owed a repair` : "no repair owed";
  return [proof(summary, since), many(summary.channels, "channel"), pace, owed].join(" · ");
}
