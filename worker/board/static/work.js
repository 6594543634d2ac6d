// What the worker does: subscriptions, repairs, quarantine.

import { byId, element, Rows, setText, show } from "./dom.js";
import { causes, count, many, moment, span, visible } from "./words.js";

class Line {
  node = element("li");
  #subject = element("bdi", "subject");
  #text = element("span");
  #bar = element("progress");

  constructor() {
    this.#bar.setAttribute("aria-label", "How far this repair has come");
    this.node.append(this.#subject, " ", this.#text, this.#bar);
  }

  update({ subject, text, part = null }) {
    setText(this.#subject, subject);
    setText(this.#text, text);
    show(this.#bar, part !== null);
    if (part !== null) this.#bar.value = part;
  }
}

class Part {
  #sentence = element("p", "fact");
  #list = element("ul", "lines");
  #rows = new Rows(this.#list, () => new Line());

  constructor(parent, title) {
    parent.append(element("h3", "", title), this.#sentence, this.#list);
  }

  draw(sentence, lines) {
    setText(this.#sentence, sentence);
    this.#rows.draw(lines.map((line, place) => [place, line]));
  }
}

function subscriptionLine(item) {
  const others = item.names > 1 ? ` and ${count(item.names - 1)} more` : "";
  const silence = item.answered_seconds_ago;
  const answer = silence === null ? "no answer yet" : `answered ${span(silence)} ago`;
  const queued = item.queued ? `, ${many(item.queued, "answer")} waiting` : "";
  return { subject: visible(item.first) + others, text: `${item.state}, ${answer}${queued}` };
}

function subscriptionsOf(view) {
  if (!view) return ["No worker answers, so its subscriptions are unknown.", []];
  const states = Object.entries(view.states).map(([state, amount]) => `${count(amount)} ${state}`);
  const waiting = `${many(view.queued, "answer")} waiting`;
  const sentence = `${many(view.count, "subscription")}: ${states.join(", ")}; ${waiting}.`;
  return [sentence, view.items.map(subscriptionLine)];
}

const left = (seconds) => (seconds === null ? "" : `, about ${span(seconds)} to go`);

function repairLine(item) {
  const subject = visible(item.channel);
  if (item.causes) return { subject, text: `waits: ${causes(Object.keys(item.causes))}` };
  const reached = item.has_come_back_to ? `, back to ${moment(Date.parse(item.has_come_back_to))}` : "";
  const text = `${many(item.actions, "action")} read${reached}${left(item.seconds_left)}`;
  return { subject, text, part: item.part };
}

function repairsOf(view) {
  if (!view) return ["Redis does not answer.", []];
  if (!view.owed && !view.backfills) return ["No repair is owed.", []];
  const backfills = view.backfills ? `, ${many(view.backfills, "backfill")} under way` : "";
  const sentence = `${many(view.owed, "channel")} owed a repair${backfills}${left(view.seconds_left)}.`;
  return [sentence, view.items.map(repairLine)];
}

function quarantineOf(view) {
  if (!view) return ["Unknown: Redis does not answer, or does not show it to this user.", []];
  if (!view.count) return ["Empty: every event was understood.", []];
  const line = { subject: visible(view.channel), text: `${moment(view.at)}: ${visible(view.reason)}` };
  return [`${many(view.count, "event")} could not be understood or applied. The newest:`, [line]];
}

export class Work {
  #subscriptions = new Part(byId("work"), "Subscriptions");
  #repairs = new Part(byId("work"), "Repairs");
  #quarantine = new Part(byId("work"), "Quarantine");
  #drawn = null;

  draw(work) {
    if (work === this.#drawn) return;
    this.#drawn = work;
    this.#subscriptions.draw(...subscriptionsOf(work.subscriptions));
    this.#repairs.draw(...repairsOf(work.repairs));
    this.#quarantine.draw(...quarantineOf(work.quarantine));
    const version = work.version ? `version ${work.version}, up ${span(work.up_seconds)}` : "";
    setText(byId("work-note"), version);
  }
}
