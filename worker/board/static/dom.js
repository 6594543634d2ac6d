// Small tools for elements. Text is always text: nothing here reads HTML.

export const byId = (id) => document.getElementById(id);

/** Returns a new element with classes and children; a text is a text node. */
export function element(name, classes = "", ...children) {
  const node = document.createElement(name);
  if (classes) node.className = classes;
  node.append(...children);
  return node;
}

/** Returns a new cell of a table. Its role is said, because a phone shows rows as lines of text. */
export function cell(role, classes = "", ...children) {
  const node = element(role === "cell" ? "td" : "th", classes, ...children);
  node.setAttribute("role", role);
  if (role !== "cell") node.scope = role === "rowheader" ? "row" : "col";
  return node;
}

/** Returns a new row of a table. */
export function tableRow(...cells) {
  const node = element("tr", "", ...cells);
  node.setAttribute("role", "row");
  return node;
}

/** Sets a text, unless it stands there already. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows or hides an element. */
export function show(node, isShown) {
  if (node.hidden === isShown) node.hidden = !isShown;
}

const focused = (list) => [...list.children].find((node) => node.contains(document.activeElement));

function placeBefore(list, nodes, anchor) {
  for (const node of nodes.reverse()) {
    if (node.nextSibling !== anchor || node.parentNode !== list) list.insertBefore(node, anchor);
    anchor = node;
  }
}

function placeAfter(list, nodes, anchor) {
  for (const node of nodes) {
    if (anchor.nextSibling !== node) list.insertBefore(node, anchor.nextSibling);
    anchor = node;
  }
}

/**
 * Brings rows into an order. The row that has the focus is never moved, because a browser takes
 * the focus from what is moved: the other rows are moved around it.
 */
export function arrange(list, nodes) {
  const wanted = new Set(nodes);
  for (const node of [...list.children]) if (!wanted.has(node)) node.remove();
  const fixed = focused(list);
  if (!fixed) {
    placeBefore(list, [...nodes], null);
    return;
  }
  const place = nodes.indexOf(fixed);
  placeBefore(list, nodes.slice(0, place), fixed);
  placeAfter(list, nodes.slice(place + 1), fixed);
}

/** Rows by their key. A row that is no longer needed is used again for another key. */
export class Rows {
  #rows = new Map();
  #spare = [];

  /** `create` returns a row: an object with `node` and `update(data)`. */
  constructor(list, create) {
    this.list = list;
    this.create = create;
  }

  /** Shows these [key, data] pairs in their order. Data that is the same object is not drawn. */
  draw(pairs) {
    const keys = new Set(pairs.map(([key]) => key));
    for (const [key, row] of this.#rows) {
      if (keys.has(key) || row.node.contains(document.activeElement)) continue;
      this.#rows.delete(key);
      this.#spare.push(row);
    }
    const nodes = pairs.map(([key, data]) => this.#row(key, data).node);
    const kept = [...this.#rows.entries()].filter(([key]) => !keys.has(key));
    arrange(this.list, [...nodes, ...kept.map(([, row]) => row.node)]);
  }

  /** Keeps the elements, and nothing of what they showed. */
  forget() {
    this.#spare.push(...this.#rows.values());
    this.#rows.clear();
  }

  #row(key, data) {
    let row = this.#rows.get(key);
    if (!row) {
      row = this.#spare.pop() ?? this.create();
      row.data = undefined;
      this.#rows.set(key, row);
      row.isNew = true;
    }
    if (row.data !== data) row.update(data, row.isNew);
    row.data = data;
    row.isNew = false;
    return row;
  }
}
