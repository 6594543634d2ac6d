// Three plots with one time axis, drawn by uPlot.

import { byId, element, setText, show } from "./dom.js";
import { lag, rate } from "./words.js";

const MINUTES_15 = 900;
const HEIGHT = 88;
const AXIS_HEIGHT = 22;
const GAP_SECONDS = 20; // no point for so long: the line is broken

// `least`: the scale reaches so far at least. A scale of almost nothing would say 0, 0, 0.
const PLOTS = [
  {
    title: "Events a second",
    least: 1,
    words: rate,
    series: [
      { name: "received", label: "in", color: "--accent" },
      { name: "applied", label: "applied", color: "--second", dash: [4, 3] },
    ],
  },
  {
    title: "Lag until counted",
    least: 0.01,
    words: lag,
    series: [
      { name: "lag_p50", label: "p50", color: "--accent" },
      { name: "lag_p99", label: "p99", color: "--second", dash: [4, 3] },
    ],
  },
  {
    title: "Requests a second",
    least: 1,
    words: rate,
    series: [
      { name: "requests", label: "sent", color: "--accent" },
      { name: "allowed", label: "budget", color: "--second", dash: [4, 3] },
    ],
  },
];

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Returns the columns of a plot, with a hole where no worker answered. */
function columns(plots, series) {
  const table = [[], ...series.map(() => [])];
  plots.times.forEach((time, place) => {
    const before = plots.times[place - 1] ?? time;
    if (time - before > GAP_SECONDS) {
      table[0].push(before + 1);
      for (const column of table.slice(1)) column.push(null);
    }
    table[0].push(time);
    series.forEach(({ name }, number) => table[number + 1].push(plots[name][place]));
  });
  return table;
}

class Plot {
  #kind;
  #place = element("div", "canvas");
  #values = [];
  #chart = null;
  #isLast;
  node;

  constructor(kind, isLast) {
    this.#kind = kind;
    this.#isLast = isLast;
    const keys = kind.series.map(({ label, dash }) => {
      const value = element("b");
      this.#values.push(value);
      return element("span", dash ? "key dashed" : "key", `${label} `, value);
    });
    const caption = element("figcaption", "", element("h3", "", kind.title), ...keys);
    this.node = element("figure", "", caption, this.#place);
    this.#place.setAttribute("role", "img");
    this.#place.setAttribute("aria-label", `${kind.title}, the last 15 minutes as lines`);
  }

  draw(plots) {
    const data = columns(plots, this.#kind.series);
    const width = this.#place.clientWidth;
    if (!width) return;
    if (this.#chart) this.#chart.setData(data);
    else this.#chart = new globalThis.uPlot(this.#options(width), data, this.#place);
    this.#say(data[0].length - 1);
  }

  resize() {
    const width = this.#place.clientWidth;
    if (this.#chart && width) this.#chart.setSize({ width, height: this.#height });
  }

  /** Lets the next drawing begin anew, with the colours of now. */
  forget() {
    this.#chart?.destroy();
    this.#chart = null;
  }

  get #height() {
    return HEIGHT + (this.#isLast ? AXIS_HEIGHT : 0);
  }

  #say(place) {
    const data = this.#chart.data;
    this.#values.forEach((value, number) => {
      setText(value, this.#kind.words(data[number + 1][place]));
    });
  }

  #options(width) {
    const soft = color("--soft");
    const grid = { stroke: color("--line"), width: 1 };
    const { words, series, least } = this.#kind;
    const axis = { stroke: soft, grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const clock = (_, times) => times.map((time) => new Date(time * 1000).toTimeString().slice(0, 5));
    return {
      width,
      height: this.#height,
      padding: [6, 16, 6, 0],
      legend: { show: false },
      cursor: { sync: { key: "board" }, y: false, drag: { x: false, y: false }, points: { size: 5 } },
      scales: {
        x: { range: (_, __, newest) => [(newest ?? 0) - MINUTES_15, newest ?? 0] },
        y: { range: (_, __, most) => [0, Math.max(most ?? 0, least) * 1.15] },
      },
      axes: [
        { ...axis, size: this.#isLast ? AXIS_HEIGHT : 0, values: this.#isLast ? clock : () => [], space: 60 },
        { ...axis, size: 52, space: 28, values: (_, values) => values.map(words) },
      ],
      series: [
        {},
        ...series.map((line) => ({
          label: line.label,
          stroke: color(line.color),
          width: 1.5,
          dash: line.dash,
          points: { show: false },
        })),
      ],
      hooks: {
        setCursor: [(chart) => this.#say(chart.cursor.idx ?? chart.data[0].length - 1)],
      },
    };
  }
}

export class Plots {
  #plots = PLOTS.map((kind, place) => new Plot(kind, place === PLOTS.length - 1));
  #drawn = null;

  constructor() {
    const place = byId("plots");
    place.append(...this.#plots.map((plot) => plot.node));
    new ResizeObserver(() => this.#plots.forEach((plot) => plot.resize())).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#plots.forEach((plot) => plot.forget());
      const { times } = this.#drawn ?? { times: [] };
      if (times.length > 0) this.#plots.forEach((plot) => plot.draw(this.#drawn));
    });
  }

  draw(plots, hasWorker) {
    const isAvailable = plots.times.length > 0;
    show(byId("plots"), isAvailable);
    show(byId("no-plots"), !isAvailable && !hasWorker);
    setText(byId("plots-note"), !isAvailable && hasWorker ? "the first points come in a few seconds" : "");
    if (!isAvailable || plots === this.#drawn) return;
    this.#drawn = plots;
    this.#plots.forEach((plot) => plot.draw(plots));
  }
}
