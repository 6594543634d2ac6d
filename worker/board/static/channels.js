// Channels, found by a part of their names.

import { read } from "./connection.js";
import { byId, cell, element, Rows, setText, tableRow } from "./dom.js";
import { address } from "./route.js";
import { causes, count, many, moment, span, visible } from "./words.js";

const UNASKED = 8; // channels that are shown without a search
const TYPING_MS = 250;

class ChannelRow {
  #link = element("a");
  #minute = cell("cell", "number");
  #owed = cell("cell", "owed");
  #looked = cell("cell", "looked");
  #name = element("bdi");

  constructor() {
    this.#link.append(this.#name);
    const head = cell("rowheader", "", this.#link);
    this.node = tableRow(head, this.#minute, this.#owed, this.#looked);
  }

  update(row) {
    setText(this.#name, visible(row.channel));
    this.#link.href = address("channel", row.channel);
    setText(this.#minute, count(row.minute));
    const names = Object.keys(row.owed);
    const since = Math.min(...Object.values(row.owed));
    setText(this.#owed, names.length ? `${causes(names)}, since ${moment(since)}` : "nothing");
    this.#owed.classList.toggle("is-owed", names.length > 0);
    const age = (row.at - row.looked_at) / 1000;
    setText(this.#looked, row.looked_at ? `${span(age)} ago` : "never");
  }
}

export class Channels {
  #rows = new Rows(byId("channel-table").tBodies[0], () => new ChannelRow());
  #input = byId("search-text");
  #timer = 0;
  #number = 0;

  constructor() {
    this.#input.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#go(), TYPING_MS);
    });
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#go();
    });
  }

  /** Shows what the address searches for. */
  follow({ view, parts }) {
    if (view === "search" && this.#input.value !== parts[0]) this.#input.value = parts[0] ?? "";
    this.refresh();
  }

  #go() {
    const text = this.#input.value;
    history.replaceState(null, "", text ? address("search", text) : "#/");
    dispatchEvent(new HashChangeEvent("hashchange"));
  }

  /** Asks again. An answer that comes after a newer one is not shown. */
  async refresh() {
    const number = ++this.#number;
    const search = this.#input.value;
    const found = await read("channels", { search }).catch(() => null);
    if (found && number === this.#number) this.#draw(found, search);
  }

  #draw(found, search) {
    const shown = search ? found.channels : found.channels.slice(0, UNASKED);
    this.#rows.draw(shown.map((row) => [row.channel, { ...row, at: found.at }]));
    setText(byId("channels-note"), this.#note(found, shown.length, search));
  }

  #note(found, shown, search) {
    if (search && found.matching === 0) return `none of ${many(found.all, "channel")}`;
    if (search && shown === found.matching) return `${count(shown)} of ${count(found.all)} found`;
    if (search) return `${count(shown)} of ${count(found.matching)} found: type more`;
    return shown < found.all ? `the busiest of ${count(found.all)}` : "";
  }
}
