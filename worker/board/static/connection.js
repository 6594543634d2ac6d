// One stream for all tabs of a browser: a browser has six connections to a server over HTTP/1.1.
//
// The tab that holds a lock has the stream, and tells the others what it receives. A tab that is
// hidden lets the lock go. Where a proxy keeps the stream back, or locks are missing (plain HTTP
// from another machine), tabs ask for a snapshot every few seconds.

const QUIET_MS = 8_000; // the server sends something each second
const POLL_MS = 2_000;
const POLLS = 30; // then the stream is tried again
const RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 8_000;
const TOKEN = "tally-token";

export class RefusedError extends Error {
  /** 401: a token is needed. 403: this machine may not look at all. */
  constructor(status) {
    super(`${status}`);
    this.state = status === 401 ? "refused" : "forbidden";
  }
}

/** The token stands in the address once, after the #, which no server and no proxy sees. */
function takeToken() {
  const [, token] = /^#token=(.+)$/.exec(location.hash) ?? [];
  if (!token) return;
  try {
    sessionStorage.setItem(TOKEN, decodeURIComponent(token));
  } catch {
    sessionStorage.setItem(TOKEN, token); // it has a % of its own
  }
  history.replaceState(null, "", location.pathname + location.search);
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

async function ask(path, signal) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(new URL(`board/${path}`, document.baseURI), {
    headers,
    signal,
    cache: "no-store",
    credentials: "omit",
  });
  if (answer.status === 401 || answer.status === 403) throw new RefusedError(answer.status);
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer;
}

/** Returns the JSON of a page of the board. */
export async function read(path, parameters = {}) {
  const query = new URLSearchParams(parameters);
  const answer = await ask(`${path}?${query}`);
  return answer.json();
}

/** Yields [event, data] of a stream of server-sent events. */
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    if (blocks.length === 0) yield ["part", null];
    for (const block of blocks) {
      const lines = block.split("\n").map((line) => line.split(/: ?(.*)/s, 2));
      const fields = Object.fromEntries(lines);
      yield [fields.event ?? "", fields.data ? JSON.parse(fields.data) : null];
    }
  }
}

const pause = (milliseconds, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });

export class Connection {
  #document;
  #listener;
  #tabs = new BroadcastChannel(`tally-board ${location.pathname}`);
  #stop = new AbortController();
  #leads = false;
  state = "connecting";

  /** `listener` is called after each frame, and after each change of the state. */
  constructor(boardDocument, listener) {
    this.#document = boardDocument;
    this.#listener = listener;
    takeToken();
    this.#tabs.onmessage = ({ data }) => this.#hear(data);
    document.addEventListener("visibilitychange", () => this.#turn());
    this.#turn();
  }

  /** Begins anew, for example with another token. */
  restart() {
    this.#stop.abort();
    this.#start();
  }

  #turn() {
    if (document.visibilityState === "hidden") {
      this.#stop.abort();
      this.#become("paused");
    } else if (this.state === "paused" || this.state === "connecting") {
      this.#start();
    }
  }

  #start() {
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    this.#become("connecting");
    if (!navigator.locks) {
      this.#lead(signal, () => this.#poll(signal, Infinity));
      return;
    }
    this.#tabs.postMessage({ kind: "hello" });
    navigator.locks
      .request(`tally-board ${location.pathname}`, { signal }, () =>
        this.#lead(signal, () => this.#stream(signal)),
      )
      .catch((error) => {
        if (error.name !== "AbortError") throw error;
      });
  }

  /** Keeps frames coming until this tab is hidden. */
  async #lead(signal, work) {
    this.#leads = true;
    let wait = RETRY_MS;
    while (!signal.aborted) {
      try {
        await work();
        wait = RETRY_MS;
      } catch (error) {
        if (signal.aborted) break;
        if (error instanceof RefusedError) {
          this.#tell(error.state);
          break;
        }
      }
      if (signal.aborted) break;
      this.#tell("lost");
      await pause(wait * (0.75 + Math.random() / 2), signal);
      wait = Math.min(2 * wait, LONGEST_RETRY_MS);
    }
    this.#leads = false;
  }

  /** Receives the stream until it ends. If nothing arrives, asks for snapshots for a minute. */
  async #stream(signal) {
    const own = new AbortController();
    const end = () => own.abort();
    signal.addEventListener("abort", end);
    let isQuiet = false;
    const quiet = () => {
      isQuiet = true;
      own.abort();
    };
    let timer = setTimeout(quiet, QUIET_MS);
    try {
      const { body } = await ask("stream", own.signal);
      for await (const [event, data] of eventsOf(body)) {
        clearTimeout(timer);
        timer = setTimeout(quiet, QUIET_MS);
        if (data) this.#receive(event, data);
      }
    } catch (error) {
      if (!isQuiet) throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      own.abort();
    }
    if (isQuiet) await this.#poll(signal, POLLS);
  }

  async #poll(signal, times) {
    for (let number = 0; number < times && !signal.aborted; number++) {
      const answer = await ask("snapshot", AbortSignal.any([signal, AbortSignal.timeout(QUIET_MS)]));
      this.#receive("snapshot", await answer.json(), "polling");
      await pause(POLL_MS, signal);
    }
  }

  #receive(event, frame, state = "live") {
    this.#take(event, frame, state);
    this.#tabs.postMessage({ kind: "frame", event, frame, state });
  }

  #take(event, frame, state) {
    if (!this.#document.take(event, frame)) {
      if (this.#leads) this.restart();
      else this.#tabs.postMessage({ kind: "hello" });
      return;
    }
    this.state = state;
    this.#listener();
  }

  #tell(state) {
    this.#become(state);
    this.#tabs.postMessage({ kind: "state", state });
  }

  #become(state) {
    this.state = state;
    this.#listener();
  }

  #hear(message) {
    if (this.#leads) {
      const { content } = this.#document;
      const isAsked = message.kind === "hello" && content;
      const frame = { kind: "frame", event: "snapshot", frame: content, state: this.state };
      if (isAsked) this.#tabs.postMessage(frame);
      return;
    }
    if (document.visibilityState === "hidden") return;
    if (message.kind === "frame") this.#take(message.event, message.frame, message.state);
    if (message.kind === "state") this.#become(message.state);
  }
}
