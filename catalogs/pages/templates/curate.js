"use strict";
const picks = JSON.parse(document.getElementById("picks").textContent);
const [TOMOGRAM, CLASS, LABEL, X, Y, Z, SCORE, KEPT, NEAR] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const WORDS = { a: "accepted", r: "rejected", ".": "" };
const PAGE = 120; // picks on the screen at a time: more would make the browser slow
const $ = id => document.getElementById(id);
const grid = $("grid");

// Sheets of pictures are decoded once, after the page is there; then any page of picks is drawn at once.
const sheets = JSON.parse($("sheets").textContent).map((data, s) => {
  const image = new Image();
  image.onload = async () => {
    sheets[s] = image;
    for (const each of grid.querySelectorAll(`[data-sheet="${s}"]`)) paint(each);
    sheets[s] = await createImageBitmap(image);
  };
  image.src = `data:image/jpeg;base64,${data}`;
  return null;
});

let verdicts = Array(picks.length).fill(".");
let undone = []; // [pick, verdict before] of every decision, the last one last
let order = [], first = 0, here = 0;

try {
  const kept = localStorage.getItem(KEY);
  if (kept && kept.length === picks.length) verdicts = [...kept];
} catch { $("counts").title = "This browser keeps nothing: download before you leave the page."; }

function remember() {
  try { localStorage.setItem(KEY, verdicts.join("")); } catch { /* said above */ }
}

function sorted() {
  const by = $("order").value, what = $("shown").value;
  const wanted = k => what === "all" || (what === "open" && verdicts[k] === ".") || WORDS[verdicts[k]] === what
    || (what === "kept" && picks[k][KEPT]) || (what === "weak" && !picks[k][KEPT]);
  order = [...picks.keys()].filter(wanted);
  if (by === "near") order.sort((a, b) => picks[a][NEAR] - picks[b][NEAR]);
  if (by === "tomogram") order.sort((a, b) => picks[a][TOMOGRAM].localeCompare(picks[b][TOMOGRAM]) || a - b);
  first = 0;
  here = 0;
  draw();
}

function paint(canvas) {
  const picture = sheets[canvas.dataset.sheet], place = Number(canvas.dataset.place);
  if (!picture) return; // painted as soon as it is there
  const x = 3 * EDGE * (place % COLUMNS), y = EDGE * Math.floor(place / COLUMNS);
  canvas.getContext("2d").drawImage(picture, x, y, 3 * EDGE, EDGE, 0, 0, 3 * EDGE, EDGE);
}

function card(k) {
  const pick = picks[k], sheet = Math.floor(k / (COLUMNS * ROWS)), place = k % (COLUMNS * ROWS);
  const button = document.createElement("button");
  button.className = `pick ${WORDS[verdicts[k]]}`;
  button.dataset.pick = k;
  const picture = document.createElement("canvas");
  Object.assign(picture, { width: 3 * EDGE, height: EDGE });
  Object.assign(picture.dataset, { sheet, place });
  paint(picture);
  const words = document.createElement("span");
  const score = pick[SCORE] === null ? "" : `${pick[SCORE].toFixed(3)}  `;
  words.textContent = `${score}${pick[CLASS]}  ${pick[TOMOGRAM]}`;
  button.title = `${pick[TOMOGRAM]}: ${pick[CLASS]} at (${pick[X]}, ${pick[Y]}, ${pick[Z]}) Å`
    + (pick[KEPT] ? "" : ", left out by the run");
  button.append(picture, words);
  return button;
}

function draw() {
  grid.replaceChildren(...order.slice(first, first + PAGE).map(card));
  const pages = Math.max(1, Math.ceil(order.length / PAGE));
  $("where").textContent = `${Math.floor(first / PAGE) + 1} of ${pages}`;
  $("before").disabled = first === 0;
  $("after").disabled = first + PAGE >= order.length;
  mark();
  count();
}

function mark() {
  for (const each of grid.querySelectorAll(".here")) each.classList.remove("here");
  const now = grid.children[here - first];
  if (now) { now.classList.add("here"); now.scrollIntoView({ block: "nearest" }); }
}

function count() {
  const n = { a: 0, r: 0, ".": 0 };
  for (const verdict of verdicts) n[verdict] += 1;
  $("counts").textContent = `${n.a} accepted, ${n.r} rejected, ${n["."]} undecided`;
  $("undo").disabled = !undone.length;
  $("save").disabled = n.a + n.r === 0;
}

function decide(k, verdict, step = true) {
  if (step) undone.push([k, verdicts[k]]);
  verdicts[k] = verdict;
  const shown = grid.querySelector(`[data-pick="${k}"]`);
  if (shown) {
    shown.classList.remove("accepted", "rejected");
    if (WORDS[verdict]) shown.classList.add(WORDS[verdict]);
  }
  remember();
  count();
}

function move(by) {
  here = Math.min(Math.max(here + by, 0), Math.max(order.length - 1, 0));
  const page = PAGE * Math.floor(here / PAGE);
  if (page !== first) { first = page; draw(); } else mark();
}

function turn(by) { move(PAGE * by + first - here); }

function undo() {
  if (!undone.length) return;
  const [k, before] = undone.pop();
  decide(k, before, false);
}

function across() {
  return Math.max(1, getComputedStyle(grid).gridTemplateColumns.split(" ").length);
}

function cell(value) {
  const text = String(value ?? "nan");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function list() {
  const rows = [["tomogram", "class_name", "label", "x", "y", "z", "score", "verdict"]];
  picks.forEach((pick, k) => {
    if (verdicts[k] !== ".") rows.push([...pick.slice(TOMOGRAM, SCORE + 1), WORDS[verdicts[k]]]);
  });
  return rows.map(row => row.map(cell).join(",")).join("\n") + "\n";
}

grid.addEventListener("click", event => {
  const button = event.target.closest(".pick");
  if (!button) return;
  const k = Number(button.dataset.pick);
  here = order.indexOf(k);
  mark();
  decide(k, { ".": "a", a: "r", r: "." }[verdicts[k]]);
});
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  const acts = {
    a: () => { if (order.length) { decide(order[here], "a"); move(1); } },
    r: () => { if (order.length) { decide(order[here], "r"); move(1); } },
    u: undo, ArrowRight: () => move(1), ArrowLeft: () => move(-1),
    ArrowDown: () => move(across()), ArrowUp: () => move(-across()),
    PageDown: () => turn(1), PageUp: () => turn(-1),
  };
  const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) { event.preventDefault(); act(); }
});
$("order").addEventListener("change", sorted);
$("shown").addEventListener("change", sorted);
$("before").addEventListener("click", () => turn(-1));
$("after").addEventListener("click", () => turn(1));
$("undo").addEventListener("click", undo);
$("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([list()], { type: "text/csv" }));
  link.download = "curated.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});
sorted();
