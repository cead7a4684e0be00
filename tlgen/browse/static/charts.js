// Plots of parameters against each other: one large plot with histograms, and small plots of all pairs.

import { colour, shown, sized } from "./page.js";

const BINS = 40, FEW = 12, NONE = 255; // bins of a large and of a small histogram; the bin of missing values

/** A parameter that varies, prepared for drawing: a position from 0 to 1 and a bin for each sample. */
export function parameter(column) {
  let low = Infinity, high = -Infinity;
  if (column.values) {
    for (const value of column.values) {
      if (value !== null && value < low) low = value;
      if (value !== null && value > high) high = value;
    }
  } else {
    low = -0.5;
    high = column.words.length - 0.5;
  }
  const wide = high - low || 1;
  const bins = column.words ? Math.min(BINS, column.words.length) : BINS;
  return { ...column, ...binned(column, bins, low, wide), few: binned(column, Math.min(bins, FEW), low, wide), low, high: low + wide };
}

function binned(column, bins, low, wide) {
  const n = (column.values ?? column.codes).length, place = new Float32Array(n), bin = new Uint8Array(n);
  for (let i = 0; i < n; i++) {
    const value = column.values ? column.values[i] : column.codes[i];
    place[i] = value === null ? NaN : (value - low) / wide;
    bin[i] = value === null ? NONE : Math.min(bins - 1, Math.floor(place[i] * bins));
  }
  return { place, bin, bins };
}

/** Parameters that vary and can be drawn: numbers, and words if there are few different ones. */
export function varying(columns) {
  return columns.filter((c) => (c.parameter || c.name === "split") && (c.values || c.words?.length <= BINS)).map(parameter);
}

function counts(parameter, rows) {
  const found = new Uint32Array(parameter.bins);
  for (const i of rows) if (parameter.bin[i] !== NONE) found[parameter.bin[i]]++;
  return found;
}

function bars(context, parameter, all, some, box, upright) {
  const a = counts(parameter, all), s = counts(parameter, some);
  const most = Math.max(1, ...a);
  const step = (upright ? box.width : box.height) / parameter.bins;
  for (const [found, fill] of [[a, colour("line")], [s, colour("accent")]]) {
    context.fillStyle = fill;
    for (let k = 0; k < parameter.bins; k++) {
      const long = found[k] / most;
      if (upright) context.fillRect(box.x + k * step, box.y + box.height * (1 - long), Math.max(1, step - 1), box.height * long);
      else context.fillRect(box.x, box.y + box.height - (k + 1) * step, box.width * long, Math.max(1, step - 1));
    }
  }
}

function label(parameter) {
  return parameter.unit ? `${parameter.name} (${parameter.unit})` : parameter.name;
}

/** Values of the tick marks of an axis, and their labels. */
function marks(parameter) {
  if (parameter.words) return parameter.words.map((word, k) => [(k + 0.5) / parameter.words.length, word]);
  const wide = parameter.high - parameter.low, size = 10 ** Math.floor(Math.log10(wide / 4));
  const step = [1, 2, 5, 10].map((times) => times * size).find((each) => wide / each <= 6);
  const found = [];
  for (let k = Math.ceil(parameter.low / step); k * step <= parameter.high + 1e-9 * wide; k++) {
    found.push([(k * step - parameter.low) / wide, shown(k * step)]);
  }
  return found;
}

/** Spread points that have the same word, which would otherwise lie on one line; always in the same way. */
function spread(parameter, i) {
  if (!parameter.words) return parameter.place[i];
  const turn = (i * 0.618034) % 1;
  return parameter.place[i] + (turn - 0.5) * 0.7 / parameter.words.length;
}

const FRAME = { left: 74, right: 64, top: 64, bottom: 44 };

/** Draw one pair; returns the positions of its points, for selection. */
export function pair(canvas, across, up, all, some) {
  const width = Math.max(300, canvas.parentElement.clientWidth), height = Math.min(520, Math.round(width * 0.8));
  const context = sized(canvas, width, height);
  const box = { x: FRAME.left, y: FRAME.top, width: width - FRAME.left - FRAME.right, height: height - FRAME.top - FRAME.bottom };
  context.clearRect(0, 0, width, height);
  context.strokeStyle = colour("line");
  context.strokeRect(box.x, box.y, box.width, box.height);
  bars(context, across, all, some, { x: box.x, y: 6, width: box.width, height: FRAME.top - 12 }, true);
  bars(context, up, all, some, { x: box.x + box.width + 6, y: box.y, width: FRAME.right - 12, height: box.height }, false);
  const size = some.length > 3000 ? 2 : some.length > 300 ? 3 : 6;
  const layers = [[some, colour("accent"), some.length > 3000 ? 0.45 : 0.8]];
  if (some.length < all.length) layers.unshift([all, colour("quiet"), 0.25]);
  for (const [rows, fill, opacity] of layers) {
    context.fillStyle = fill;
    context.globalAlpha = opacity;
    for (const i of rows) {
      context.fillRect(box.x + spread(across, i) * box.width - size / 2, box.y + (1 - spread(up, i)) * box.height - size / 2, size, size);
    }
  }
  context.globalAlpha = 1;
  context.fillStyle = colour("ink");
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "center";
  const few = (all) => all.filter((_, k) => all.length <= 8 || k % Math.ceil(all.length / 8) === 0);
  for (const [at, word] of few(marks(across))) context.fillText(word, box.x + at * box.width, box.y + box.height + 16);
  context.fillText(label(across), box.x + box.width / 2, height - 6);
  context.textAlign = "right";
  for (const [at, word] of few(marks(up))) context.fillText(word, box.x - 6, box.y + (1 - at) * box.height + 4);
  context.save();
  context.translate(14, box.y + box.height / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(label(up), 0, 0);
  context.restore();
  return box;
}

/** Convert a range of a parameter, from 0 to 1 along its axis, to a condition. */
export function condition(parameter, from, to) {
  if (parameter.words) {
    const n = parameter.words.length;
    const inside = parameter.words.filter((_, k) => (k + 0.5) / n >= from && (k + 0.5) / n <= to);
    if (!inside.length || inside.length === n) return "";
    return `${parameter.name} in [${inside.map(quoted).join(", ")}]`;
  }
  const at = (share) => Number((parameter.low + share * (parameter.high - parameter.low)).toPrecision(6));
  const parts = [];
  if (from > 0) parts.push(`${parameter.name} >= ${at(from)}`);
  if (to < 1) parts.push(`${parameter.name} <= ${at(to)}`);
  return parts.join(" and ");
}

function quoted(word) {
  if (word === "True" || word === "False") return word;
  return `'${word.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}

/** Draw a two-dimensional histogram of every pair of parameters, and that of each parameter on the diagonal. */
export function matrix(canvas, parameters, all, some) {
  const n = parameters.length, width = Math.max(300, canvas.parentElement.clientWidth), left = 120;
  const step = Math.max(18, Math.min(90, (width - left) / n)), height = step * n + 8;
  const context = sized(canvas, left + step * n, height);
  const most = [...colour("accent").matchAll(/[\d.]+/g)].map(Number);
  context.font = `${Math.min(12, step - 4)}px system-ui, sans-serif`;
  context.textAlign = "right";
  for (let row = 0; row < n; row++) {
    context.fillStyle = colour("ink");
    context.fillText(parameters[row].name.slice(0, 18), left - 6, row * step + step / 2 + 4, left - 8);
    for (let column = 0; column < row; column++) {
      const picture = density(parameters[column].few, parameters[row].few, some, most);
      context.imageSmoothingEnabled = false;
      context.drawImage(picture, left + column * step + 1, row * step + 1, step - 2, step - 2);
    }
    bars(context, parameters[row].few, all, some, { x: left + row * step + 1, y: row * step + 1, width: step - 2, height: step - 2 }, true);
  }
  context.strokeStyle = colour("line");
  for (let row = 0; row < n; row++) {
    for (let column = 0; column <= row; column++) context.strokeRect(left + column * step, row * step, step, step);
  }
  return { left, step };
}

function density(across, up, rows, [red, green, blue]) {
  const wide = across.bins, high = up.bins, found = new Uint32Array(wide * high);
  for (const i of rows) {
    if (across.bin[i] !== NONE && up.bin[i] !== NONE) found[(high - 1 - up.bin[i]) * wide + across.bin[i]]++;
  }
  let most = 1;
  for (const count of found) if (count > most) most = count;
  const image = new ImageData(wide, high);
  for (let k = 0; k < found.length; k++) {
    image.data.set([red, green, blue, 255 * Math.sqrt(found[k] / most)], 4 * k);
  }
  const canvas = new OffscreenCanvas(wide, high);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
