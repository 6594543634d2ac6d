// What the board knows: the newest snapshot, and every update since.

const POINTS = 180;

/** Returns the plots with later points behind them: fifteen minutes at most. */
function joined(before, newer) {
  const last = before.times.at(-1) ?? 0;
  const first = newer.times.findIndex((time) => time > last);
  if (first < 0) return before;
  const names = Object.keys(before);
  const join = (name) => [...before[name], ...newer[name].slice(first)].slice(-POINTS);
  return Object.fromEntries(names.map((name) => [name, join(name)]));
}

export class BoardDocument {
  content = null;
  /** When the newest frame came, by the clock of this page that never goes back. */
  arrivedAt = 0;

  /** Takes a frame. Returns false if one is missing before it: then a snapshot is needed. */
  take(event, frame) {
    const before = this.content;
    if (event === "snapshot") {
      this.content = frame;
      // A worker that cannot read answers with the snapshot that it has: nothing new has come.
      if (before?.run === frame.run && before.sequence === frame.sequence) return true;
    } else {
      const follows = before?.run === frame.run && before.sequence + 1 === frame.sequence;
      if (!follows) return before?.run === frame.run && before.sequence >= frame.sequence;
      this.content = this.#merged(before, frame);
    }
    this.arrivedAt = performance.now();
    return true;
  }

  /** Seconds since the server made the newest frame, as far as this page knows. */
  get age() {
    return (performance.now() - this.arrivedAt) / 1000;
  }

  /** Milliseconds since 1970 by the server's clock. */
  get now() {
    return this.content.at + this.age * 1000;
  }

  /** Seconds since the facts of the sentence were read. */
  get readAge() {
    return (this.now - this.content.read_at) / 1000;
  }

  #merged(before, frame) {
    const merged = { ...before, ...frame };
    const rows = { ...before.rows, ...frame.rows };
    merged.rows = Object.fromEntries(merged.order.map((id) => [id, rows[id]]));
    merged.plots = frame.plots ? joined(before.plots, frame.plots) : before.plots;
    return merged;
  }
}
