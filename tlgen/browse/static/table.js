// The table of samples; only the visible rows are in the page, however many samples there are.

import { make, shown } from "./page.js";

const ROW = 56, HEAD = 44, BEYOND = 6; // pixels, pixels, extra rows above and below the visible ones

export class Table {
  /** @param {HTMLElement} box  @param {object} data from /api/table  @param {(i: number) => string} link */
  constructor(box, data, link) {
    this.box = box;
    this.link = link;
    this.data = data;
    this.columns = new Map(data.columns.map((column) => [column.name, column]));
    this.names = [];
    this.rows = [];
    this.sorted = { name: "name", down: false };
    this.head = make("div", { class: "head", role: "row" });
    this.body = make("div", { role: "rowgroup" });
    this.body.style.position = "relative";
    box.replaceChildren(this.head, this.body);
    this.drawn = new Map();
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(box);
  }

  /** The value of a column in a row, as text or a number. */
  value(name, row) {
    return valueOf(this.columns.get(name), row);
  }

  show(names) {
    this.names = names.filter((name) => this.columns.has(name));
    this.widths = this.names.map((name) => this.width(name));
    this.total = 60 + this.widths.reduce((a, b) => a + b, 0);
    this.head.replaceChildren(cell("", 60), ...this.names.map((name, k) => this.title(name, this.widths[k])));
    this.head.style.width = this.body.style.width = `max(100%, ${this.total}px)`;
    this.redraw();
  }

  choose(rows) {
    this.rows = rows;
    this.sort();
    this.box.scrollTop = 0;
    this.redraw();
  }

  sort() {
    const { name, down } = this.sorted, column = this.columns.get(name), sign = down ? -1 : 1;
    const keys = this.rows.map((row) => valueOf(column, row));
    const compare = (a, b) => (a === b ? 0 : a === null ? 1 : b === null ? -1 : a < b ? -sign : sign);
    const order = keys.map((_, k) => k).sort((a, b) => compare(keys[a], keys[b]) || this.rows[a] - this.rows[b]);
    this.rows = order.map((k) => this.rows[k]);
  }

  title(name, width) {
    const column = this.columns.get(name);
    const mark = this.sorted.name === name ? (this.sorted.down ? " ↓" : " ↑") : "";
    const button = make("button", { type: "button", title: column.about }, name + mark);
    button.addEventListener("click", () => {
      this.sorted = { name, down: this.sorted.name === name && !this.sorted.down };
      this.show(this.names);
      this.choose(this.rows);
    });
    const made = cell(button, width, column.values ? "number" : "");
    made.append(make("small", {}, column.unit));
    made.setAttribute("role", "columnheader");
    return made;
  }

  width(name) {
    const column = this.columns.get(name);
    const words = column.words ?? (column.values ? ["0000.000"] : [shown(column.value)]);
    const longest = words.reduce((n, word) => Math.max(n, String(word).length), name.length + 2);
    return Math.min(260, 24 + 8 * longest);
  }

  redraw() {
    this.body.replaceChildren();
    this.drawn.clear();
    this.draw();
  }

  draw() {
    this.body.style.height = `${this.rows.length * ROW}px`;
    const top = this.box.scrollTop, high = this.box.clientHeight - HEAD;
    const first = Math.max(0, Math.floor(top / ROW) - BEYOND);
    const last = Math.min(this.rows.length, Math.ceil((top + high) / ROW) + BEYOND);
    for (const [place, element] of this.drawn) {
      if (place < first || place >= last) {
        element.remove();
        this.drawn.delete(place);
      }
    }
    for (let place = first; place < last; place++) {
      if (this.drawn.has(place)) continue;
      const element = this.row(this.rows[place]);
      element.style.top = `${place * ROW}px`;
      element.style.width = "100%";
      element.setAttribute("aria-rowindex", String(place + 1));
      this.drawn.set(place, element);
      this.body.append(element);
    }
  }

  row(row) {
    const id = this.value("sample_id", row);
    const picture = make("img", { src: `/thumbnail/${id}.png`, alt: "", loading: "lazy", decoding: "async" });
    picture.addEventListener("error", () => picture.removeAttribute("src"));
    const cells = this.names.map((name, k) => {
      const text = shown(this.value(name, row));
      const content = name === "name" ? make("a", { href: this.link(id) }, text) : text;
      return cell(content, this.widths[k], this.columns.get(name).values ? "number" : "");
    });
    const link = make("a", { href: this.link(id), tabindex: "-1" }, picture);
    return make("div", { class: "row", role: "row" }, cell(link, 60, "picture"), ...cells);
  }
}

export function valueOf(column, row) {
  if (column.values) return column.values[row];
  if (column.codes) return column.words[column.codes[row]];
  return column.value;
}

function cell(content, width, kind = "") {
  const made = make("span", { class: `cell ${kind}`, role: "cell" }, content);
  made.style.width = `${width}px`;
  return made;
}
