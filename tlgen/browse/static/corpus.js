// The page of a corpus: a condition selects samples, and the table and the charts show them.

import { condition, matrix, pair, varying } from "./charts.js";
import { ask, make, painted } from "./page.js";
import { Table } from "./table.js";

const ALWAYS = ["name", "split"], LAST = ["n_particles", "occupancy", "cpu_seconds"], MOST = 8;
const at = (id) => document.getElementById(id);

let data, table, parameters, all, some, box, grid, times = 0;

async function start() {
  data = await ask("/api/table");
  document.title = data.name;
  at("name").textContent = data.name;
  at("url").textContent = data.url;
  all = Array.from({ length: data.rows }, (_, i) => i);
  const where = () => at("where").value.trim();
  table = new Table(at("table"), data, (id) => `/sample/${id}${where() && `?where=${encodeURIComponent(where())}`}`);
  parameters = data.rows ? varying(data.columns) : [];
  const names = parameters.map((each) => each.name).filter((name) => name !== "split").slice(0, MOST);
  chooseColumns([...ALWAYS, ...names, ...LAST]);
  choosePair();
  at("where").value = new URLSearchParams(location.search).get("where") ?? "";
  await filter();
}

function chooseColumns(names) {
  table.show(names);
  at("columns").replaceChildren(
    ...data.columns.map((column) => {
      const box = make("input", { type: "checkbox", checked: names.includes(column.name), value: column.name });
      box.addEventListener("change", () => {
        const wanted = [...at("columns").querySelectorAll("input:checked")].map((each) => each.value);
        table.show([...table.names.filter((name) => wanted.includes(name)), ...wanted.filter((name) => !table.names.includes(name))]);
      });
      return make("label", { title: column.about }, box, ` ${column.name}`);
    }),
  );
}

function choosePair() {
  const enough = parameters.length > 1;
  at("pairs").hidden = !enough;
  const why = data.rows ? "Fewer than two parameters vary: there are no pairs to draw." : "The corpus has no samples yet.";
  at("constant").textContent = enough ? "" : why;
  if (!enough) return;
  for (const [id, k] of [["across", 0], ["up", 1]]) {
    at(id).replaceChildren(...parameters.map((each) => make("option", { title: each.about }, each.name)));
    const numbers = parameters.filter((each) => each.values);
    at(id).value = (numbers[k] ?? parameters[k]).name;
    at(id).addEventListener("change", drawPair);
  }
}

const named = (id) => parameters.find((each) => each.name === at(id).value);

function drawPair() {
  if (parameters.length > 1) box = pair(at("pair"), named("across"), named("up"), all, some);
}

function drawCharts() {
  if (parameters.length < 2) return;
  drawPair();
  grid = matrix(at("matrix"), parameters, all, some);
}

/** Ask the server which samples meet the condition, and show them. */
async function filter() {
  const started = performance.now(), where = at("where").value.trim();
  at("error").textContent = "";
  let found;
  try {
    found = where ? await ask(`/api/select?where=${encodeURIComponent(where)}`) : { rows: all, version: data.version };
  } catch (error) {
    at("error").textContent = error.message;
    found = some ? null : { rows: all, version: data.version };
    if (!found) return;
  }
  if (found.version !== data.version) return location.reload(); // samples were added or removed
  some = found.rows;
  history.replaceState(null, "", where ? `?where=${encodeURIComponent(where)}` : "/");
  table.choose(some);
  at("count").textContent = some.length === all.length ? `${all.length} samples` : `${some.length} of ${all.length} samples`;
  drawCharts();
  painted(() => {
    performance.measure("filter", { start: started, end: performance.now() });
    document.body.dataset.painted = ++times; // for scripts that wait for the page or measure it
  });
}

/** Select samples by dragging a rectangle over the points. */
function drag() {
  const canvas = at("pair");
  let from = null;
  const place = (event) => {
    const edge = canvas.getBoundingClientRect();
    const inside = (value) => Math.min(1, Math.max(0, value));
    return [inside((event.clientX - edge.left - box.x) / box.width), inside(1 - (event.clientY - edge.top - box.y) / box.height)];
  };
  canvas.addEventListener("pointerdown", (event) => {
    from = place(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!from) return;
    drawPair();
    const to = place(event), context = canvas.getContext("2d");
    context.strokeRect(box.x + from[0] * box.width, box.y + (1 - from[1]) * box.height, (to[0] - from[0]) * box.width, (from[1] - to[1]) * box.height);
  });
  canvas.addEventListener("pointerup", (event) => {
    const [a, b] = [from, place(event)];
    from = null;
    if (!a || Math.abs(a[0] - b[0]) + Math.abs(a[1] - b[1]) < 0.02) return drawPair();
    const range = (k) => [Math.min(a[k], b[k]), Math.max(a[k], b[k])];
    const parts = [condition(named("across"), ...range(0)), condition(named("up"), ...range(1))].filter(Boolean);
    const before = at("where").value.trim();
    if (before) parts.unshift(/\bor\b|\|/.test(before) ? `(${before})` : before);
    at("where").value = parts.join(" and ");
    filter();
  });
}

at("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  filter();
});
at("clear").addEventListener("click", () => {
  at("where").value = "";
  filter();
});
at("matrix").addEventListener("click", (event) => {
  const edge = at("matrix").getBoundingClientRect();
  const column = Math.floor((event.clientX - edge.left - grid.left) / grid.step), row = Math.floor((event.clientY - edge.top) / grid.step);
  if (column < 0 || column >= row || row >= parameters.length) return;
  at("across").value = parameters[column].name;
  at("up").value = parameters[row].name;
  drawPair();
  at("pair").scrollIntoView({ block: "nearest" });
});
let resizing;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(drawCharts, 120);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
drag();
start().catch((error) => (at("error").textContent = error.message));
