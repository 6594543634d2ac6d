// How the counts of one message came to be: who, what, when, and by which way.

import { read } from "./connection.js";
import { byId, cell, element, setText, tableRow } from "./dom.js";
import { route } from "./route.js";
import { count, many, moment, published, visible } from "./words.js";

const WAYS = {
  live: "live",
  backfill: "backfill, from history",
  reconcile: "reconcile, a repair",
  sweep: "sweep, by the retention",
};
const EVENTS = {
  "added applied": "added",
  "removed applied": "removed",
  "added superseded": "added anew",
  "removed early": "removed before it was added",
  "pruned applied": "pruned: PubNub no longer lists it",
  "restored applied": "restored: PubNub lists it",
  "expired applied": "expired",
  "rebuilt applied": "count corrected",
};

const reaction = (type, value) =>
  type === "reaction" ? visible(value) : `${visible(type)}: ${visible(value)}`;

function tally({ type, value, count: amount, users, more }) {
  const names = users.flatMap((user) => [", ", element("bdi", "", visible(user))]).slice(1);
  const who = element("span", "who", ...names, more ? ` and ${count(more)} more` : "");
  const chip = element("span", "chip");
  chip.append(element("bdi", "value", reaction(type, value)), element("b", "count", count(amount)));
  return element("li", "", chip, who);
}

function change(item) {
  const event = EVENTS[`${item.event} ${item.outcome}`] ?? `${item.event} ${item.outcome}`;
  const cells = [
    cell("cell", "time", moment(item.at)),
    cell("cell", "", element("bdi", "", visible(item.user) || "–")),
    cell("cell", "", event),
    cell("cell", "", element("bdi", "", item.value ? reaction(item.type, item.value) : "all")),
    cell("cell", "", WAYS[item.origin] ?? visible(item.origin)),
    cell("cell", "number", `→ ${count(item.count)}`),
  ];
  return tableRow(...cells);
}

function changesTable(changes) {
  const names = ["When", "Who", "What", "Reaction", "Origin", "Count"];
  const heads = names.map((name) => cell("columnheader", name === "Count" ? "number" : "", name));
  const table = element("table", "changes");
  table.setAttribute("role", "table");
  for (const [name, rows] of [["thead", [tableRow(...heads)]], ["tbody", changes.map(change)]]) {
    const group = element(name, "", ...rows);
    group.setAttribute("role", "rowgroup");
    table.append(group);
  }
  return table;
}

function reach(found) {
  if (found.is_whole) return "These are all changes since the channel was first counted.";
  if (found.reaches_back_to === null) return "The journal of this channel is empty.";
  return `Read back to ${moment(found.reaches_back_to)}. There may be older changes.`;
}

export class Explanation {
  #dialog = byId("explanation");
  #body = byId("explanation-body");
  #shown = "";
  #opener = null;
  /** The view that was there before. */
  #before = "#/";

  constructor() {
    byId("close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#leave());
  }

  /** Opens or closes the explanation, as the address says. */
  follow({ view, parts }) {
    const key = view === "message" ? parts.join("/") : "";
    if (!key) this.#before = location.hash || "#/";
    if (key === this.#shown) return;
    this.#shown = key;
    if (key) this.#open(...parts);
    else this.#dialog.close();
  }

  #leave() {
    if (route().view === "message") history.pushState(null, "", this.#before);
    this.#shown = "";
    dispatchEvent(new HashChangeEvent("hashchange"));
    this.#opener?.focus();
    this.#opener = null;
  }

  async #open(channel, message) {
    if (!this.#dialog.open) {
      this.#opener = document.activeElement;
      this.#dialog.showModal();
    }
    const title = `${visible(channel)}, message of ${published(message)}`;
    setText(byId("explanation-title"), title);
    byId("explanation-title").focus();
    this.#body.replaceChildren(element("p", "empty", "Reading the journal …"));
    const key = this.#shown;
    const found = await read("explain", { channel, message }).catch(() => null);
    if (key === this.#shown) this.#draw(found, channel, message);
  }

  #draw(found, channel, message) {
    if (!found) {
      const sentence = "This could not be read. Close, and try again.";
      this.#body.replaceChildren(element("p", "empty", sentence));
      return;
    }
    const now = element("ul", "tallies", ...found.tallies.map(tally));
    const rest = found.more_tallies ? `and ${many(found.more_tallies, "more value")}` : "";
    const command = `tally explain ${channel} ${message}`;
    this.#body.replaceChildren(
      element("h3", "", "Now"),
      found.tallies.length ? now : element("p", "empty", "No reactions."),
      element("p", "note", rest),
      element("h3", "", "Last changes"),
      found.changes.length ? changesTable(found.changes) : element("p", "empty", "None."),
      element("p", "note", reach(found)),
      element("p", "note", "In a terminal: ", element("code", "", visible(command))),
    );
  }
}
