// The board: takes what the connection brings, and draws it once a frame.

import { Channels } from "./channels.js";
import { Connection, hasToken, keepToken, read } from "./connection.js";
import { byId, setText, show } from "./dom.js";
import { BoardDocument } from "./document.js";
import { Explanation } from "./explanation.js";
import { Messages } from "./messages.js";
import { Plots } from "./plots.js";
import { route } from "./route.js";
import { factsOf, STATES } from "./sentence.js";
import { span } from "./words.js";
import { Work } from "./work.js";

const LATE_SECONDS = 8; // then a banner says that nothing arrives
const STALE_SECONDS = 120; // a worker with 100,000 channels reads the facts once a minute
const CHANNELS_MS = 5_000;
const CHANNEL_MS = 2_000;
const BANNERS = {
  lost: "The connection is lost. What you see is old. The page tries again by itself.",
  late: "Nothing new arrives. What you see is old.",
  stale: "Nothing new is read from Redis. What you see is old.",
  refused: "This token is wrong.",
  forbidden: "Without TALLY_API_TOKEN the board opens on its own machine only, as localhost.",
};

class Board {
  #document = new BoardDocument();
  #messages = new Messages();
  #channels = new Channels();
  #explanation = new Explanation();
  #plots = new Plots();
  #work = new Work();
  #connection;
  #isDue = false;
  /** When somebody last came to look. What a hidden page holds is old for a moment then. */
  #seenAt = performance.now();
  /** The messages of one channel, if the address names one. */
  #channel = null;

  constructor() {
    this.#connection = new Connection(this.#document, () => this.#ask());
    byId("token").addEventListener("submit", (event) => {
      event.preventDefault();
      keepToken(byId("token-text").value);
      this.#connection.restart();
      this.#follow();
    });
    document.addEventListener("visibilitychange", () => {
      this.#seenAt = performance.now();
    });
    addEventListener("hashchange", () => this.#follow());
    setInterval(() => this.#drawTimes(), 1_000);
    setInterval(() => this.#repeat(() => this.#channels.refresh()), CHANNELS_MS);
    setInterval(() => this.#repeat(() => this.#readChannel()), CHANNEL_MS);
    this.#follow();
  }

  #repeat(work) {
    const isOpen = ["live", "polling"].includes(this.#connection.state);
    if (document.visibilityState === "visible" && isOpen) work();
  }

  /** Shows what the address says. */
  #follow() {
    const here = route();
    this.#explanation.follow(here);
    this.#channels.follow(here);
    if (here.view === "message" && this.#channel) return;
    const channel = here.view === "channel" ? here.parts[0] : null;
    if (channel === (this.#channel?.channel ?? null)) return;
    // The row with the focus would stay, and it may be one of another channel.
    if (byId("message-list").contains(document.activeElement)) byId("messages").focus();
    this.#channel = channel === null ? null : { channel, order: [], rows: {}, isReading: true };
    this.#readChannel();
    this.#ask();
  }

  async #readChannel() {
    const channel = this.#channel?.channel;
    if (channel === undefined) return;
    const found = await read("messages", { channel }).catch(() => null);
    if (found && this.#channel?.channel === channel) this.#channel = found;
    this.#ask();
  }

  /** Draws in the browser's next frame, once, however much has come. */
  #ask() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#draw();
    });
  }

  #draw() {
    const { content } = this.#document;
    this.#drawTimes();
    if (!content) return;
    show(byId("main"), true);
    const { summary } = content;
    this.#messages.draw(this.#channel ?? content, this.#channel?.channel ?? null, content.held);
    this.#plots.draw(content.plots, summary.has_worker);
    this.#work.draw(content.work);
  }

  /** Draws what changes by itself: ages, and the banner. */
  #drawTimes() {
    const { content } = this.#document;
    const { state } = this.#connection;
    const trouble = this.#trouble(state);
    const text = BANNERS[trouble] ?? "";
    show(byId("banner"), text !== "");
    setText(byId("banner"), text);
    document.body.classList.toggle("is-old", content !== null && text !== "");
    show(byId("token"), state === "refused");
    if (content) this.#drawSentence(content, state, text !== "");
  }

  /** Returns why the page is not of now, or "". */
  #trouble(state) {
    if (state === "refused") return hasToken() ? "refused" : "";
    if (state in BANNERS) return state;
    if (!this.#document.content || state === "paused") return "";
    const seen = (performance.now() - this.#seenAt) / 1000;
    if (Math.min(this.#document.age, seen) > LATE_SECONDS) return "late";
    return Math.min(this.#document.readAge, seen) > STALE_SECONDS ? "stale" : "";
  }

  #drawSentence(content, state, isOld) {
    const { summary } = content;
    // What is old says nothing about now.
    const name = isOld ? "unknown" : summary.state;
    const { symbol, word } = STATES[name] ?? STATES.unknown;
    const badge = byId("sentence").querySelector(".state");
    badge.dataset.state = name;
    setText(badge.querySelector(".symbol"), symbol);
    setText(badge.querySelector(".word"), word);
    const since = this.#document.readAge;
    setText(byId("sentence").querySelector(".facts"), factsOf(summary, since, content.changes));
    show(byId("reason"), Boolean(summary.reason));
    setText(byId("reason"), summary.reason ?? "");
    setText(byId("spoken"), `${word}. ${summary.reason ?? ""}`);
    const way = { polling: ", asked for every 2 s", paused: ", paused", lost: ", old" }[state] ?? "";
    const age = `messages ${span(this.#document.age)} old, the rest ${span(since)}${way}`;
    setText(byId("age"), age);
  }
}

new Board();
