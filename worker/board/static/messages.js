// The busiest messages: a row each, with its reactions as chips and a spark line.

import { byId, element, Rows, setText, show } from "./dom.js";
import { address } from "./route.js";
import { count, many, published, visible } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const NOTHING = "No message has changed yet. The next reaction shows here at once.";
const NOTHING_HERE = "Nothing is counted in this channel. The next reaction shows here at once.";
const WIDTH = 90;
const HEIGHT = 22;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** Returns the outline of the bars of a spark line. */
function outline(counts) {
  const step = WIDTH / counts.length;
  const most = Math.max(4, ...counts);
  const parts = counts.map((value, place) => {
    if (!value) return "";
    const height = Math.max(2, (value / most) * HEIGHT);
    return `M${place * step} ${HEIGHT}v${-height}h${step - 1}v${height}z`;
  });
  return parts.join("");
}

class Chip {
  node = element("li", "chip");
  #value = element("bdi", "value");
  #count = element("b", "count");

  constructor() {
    this.node.append(this.#value, this.#count);
  }

  update([type, value, amount], isNew) {
    const label = type === "reaction" ? visible(value) : `${visible(type)}: ${visible(value)}`;
    setText(this.#value, label);
    this.#value.title = `${visible(type)}: ${visible(value)}`;
    const text = count(amount);
    if (!isNew && this.#count.textContent !== text) this.#flash();
    setText(this.#count, text);
  }

  #flash() {
    if (calm.matches) return;
    this.node.animate([{ backgroundColor: "var(--flash)" }, {}], { duration: 900 });
  }
}

class MessageRow {
  node = element("li", "message");
  #link = element("a", "open");
  #channel = element("bdi", "channel");
  #when = element("span", "when");
  #chips = element("ul", "chips");
  #more = element("span");
  #others;
  #minute = element("span", "minute");
  #path = document.createElementNS(SVG, "path");
  #reactions = new Rows(this.#chips, () => new Chip());
  #order = [];

  constructor() {
    const spark = document.createElementNS(SVG, "svg");
    spark.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    spark.setAttribute("class", "spark");
    spark.setAttribute("aria-hidden", "true");
    spark.append(this.#path);
    const spoken = (text) => element("span", "spoken", text);
    this.#link.append(this.#channel, spoken(", message of "), this.#when, spoken(": last changes"));
    this.#others = element("span", "more", "+", this.#more, spoken(" more values"));
    const reactions = element("div", "reactions", this.#chips, this.#others);
    const pace = element("div", "pace", spark, this.#minute);
    this.node.append(this.#link, reactions, pace);
  }

  update(row, isNew) {
    this.#link.href = address("message", row.channel, row.message);
    setText(this.#channel, visible(row.channel));
    this.#channel.title = visible(row.channel);
    setText(this.#when, published(row.message));
    if (isNew) {
      this.#reactions.forget();
      this.#order = [];
    }
    this.#reactions.draw(this.#inPlace(row.reactions));
    show(this.#others, row.more > 0);
    setText(this.#more, count(row.more));
    setText(this.#minute, row.minute ? `${count(row.minute)} a minute` : "");
    this.#path.setAttribute("d", outline(row.spark));
  }

  /** Returns the reactions by their keys. A chip keeps its place while its counts change. */
  #inPlace(reactions) {
    const found = new Map(reactions.map((item) => [JSON.stringify(item.slice(0, 2)), item]));
    const kept = this.#order.filter((key) => found.has(key));
    this.#order = [...new Set([...kept, ...found.keys()])];
    return this.#order.map((key) => [key, found.get(key)]);
  }
}

export class Messages {
  #list = byId("message-list");
  #rows = new Rows(this.#list, () => new MessageRow());
  #order = [];

  /** Shows the busiest messages of all channels, or those of one. */
  draw(content, channel, held) {
    this.#order = this.#arranged(content.order);
    const pairs = this.#order.map((id) => [id, content.rows[id]]);
    this.#rows.draw(pairs);
    const title = channel === null ? "Busiest messages" : `Messages of ${visible(channel)}`;
    setText(byId("messages-title"), title);
    show(byId("all-channels"), channel !== null);
    show(byId("no-messages"), pairs.length === 0 && !content.isReading);
    setText(byId("no-messages"), channel === null ? NOTHING : NOTHING_HERE);
    const note = pairs.length < held ? `${count(pairs.length)} of ${many(held, "message")}` : "";
    setText(byId("messages-note"), channel === null ? note : "");
  }

  /** While the pointer is over the list, no row moves from under it. */
  #arranged(order) {
    if (!this.#list.matches(":hover")) return order;
    const present = new Set(order);
    return [...new Set([...this.#order.filter((id) => present.has(id)), ...order])];
  }
}
