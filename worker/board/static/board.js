// The board: takes what the connection brings, and draws it once a frame.

import { Channels } from "./channels.js";
import { Connection, keepToken, read } from "./connection.js";
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
const CHANNELS_MS = 5_000;
const CHANNEL_MS = 2_000;
const BANNERS = {
  lost: "The stream has stopped. What you see is old. Trying again.",
  late: "Nothing new arrives. What you see is old.",
  refused: "The worker refuses: a token is missing or wrong.",
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
    this.#channel = channel === null ? null : { channel, order: [], rows: {} };
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
    const { content, age } = this.#document;
    const { state } = this.#connection;
    this.#drawBanner(state, content !== null && age > LATE_SECONDS);
    show(byId("token"), state === "refused");
    if (content) this.#drawSentence(content, state);
  }

  #drawBanner(state, isLate) {
    const text = BANNERS[state] ?? (isLate && state !== "paused" ? BANNERS.late : "");
    show(byId("banner"), text !== "");
    setText(byId("banner"), text);
    document.body.classList.toggle("is-old", text !== "" && state !== "refused");
  }

  #drawSentence(content, state) {
    const { summary } = content;
    const { symbol, word } = STATES[summary.state] ?? STATES.unknown;
    const badge = byId("sentence").querySelector(".state");
    badge.dataset.state = summary.state;
    setText(badge.querySelector(".symbol"), symbol);
    setText(badge.querySelector(".word"), word);
    const since = (this.#document.now - content.read_at) / 1000;
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
