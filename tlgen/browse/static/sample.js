// The page of a sample.

import { ask, bytes, make, shown, sized } from "./page.js";
import { Planes } from "./planes.js";
import { scene } from "./scene.js";

const at = (id) => document.getElementById(id);
const complain = (sentence) => (at("error").textContent = sentence);

async function start() {
  at("back").href = `/${location.search}`;
  const facts = await ask(`/api/sample/${location.pathname.split("/").pop()}`);
  const { record, shape } = facts;
  document.title = `${facts.name} · ${facts.corpus}`;
  at("name").textContent = facts.name;
  at("summary").textContent =
    `${shape[2]} × ${shape[1]} × ${shape[0]} voxels of ${shown(facts.voxel_size)} Å, split ${record.split}, ` +
    `${record.n_particles} particles and ${record.n_distractors} distractors, ${shown(100 * record.occupancy)} % of the box full`;
  document.querySelector("main").hidden = false;
  planes(facts);
  tilts(facts);
  scene(at("scene").querySelector("canvas"), facts);
  structures(facts);
  elsewhere(facts);
  tables(facts);
  performance.mark("sample");
}

function planes(facts) {
  const wish = { volume: "tomogram", labels: "", opacity: Number(at("opacity").value), particles: false, distractors: false };
  const images = facts.volumes.filter((name) => name === "tomogram" || name === "density");
  at("volume").replaceChildren(...images.map((name) => make("option", {}, name)));
  at("legend").replaceChildren(
    ...facts.classes.map((each) => {
      const spot = make("i");
      spot.style.background = each.colour;
      return make("li", {}, spot, `${each.count} ${each.name}`);
    }),
  );
  const view = new Planes(at("planes"), facts, wish, complain);
  at("volume").addEventListener("change", () => ((wish.volume = at("volume").value), view.all()));
  at("labels").addEventListener("change", () => ((wish.labels = at("labels").value), view.all()));
  at("opacity").addEventListener("input", () => ((wish.opacity = Number(at("opacity").value)), view.all()));
  for (const id of ["particles", "distractors"]) {
    at(id).addEventListener("change", () => ((wish[id] = at(id).checked), view.all()));
  }
}

function tilts(facts) {
  const { angle, dose, images } = facts.tilts, figure = at("tilts"), slider = figure.querySelector("input");
  if (!images) {
    figure.replaceChildren(make("p", { class: "quiet" }, `${angle.length} tilts; their images were not kept.`));
    return;
  }
  let asked = 0;
  slider.max = angle.length - 1;
  slider.value = angle.reduce((best, a, k) => (Math.abs(a) < Math.abs(angle[best]) ? k : best), 0);
  async function draw() {
    const k = Number(slider.value), turn = ++asked, image = new Image();
    image.src = `/tilt/${facts.id}/${k}.png`;
    try {
      await image.decode();
    } catch {
      return complain(`tilt image ${k} cannot be shown`);
    }
    if (turn !== asked) return;
    const width = Math.min(480, figure.clientWidth), height = (width * image.naturalHeight) / image.naturalWidth;
    sized(figure.querySelector("canvas"), width, height).drawImage(image, 0, 0, width, height);
    figure.querySelector("output").textContent = `${shown(angle[k])}° after ${shown(dose[k])} e/Å²`;
  }
  slider.addEventListener("input", draw);
  draw();
}

function structures(facts) {
  const found = new Map();
  facts.particles.label.forEach((label, i) => {
    const name = facts.particles.structure[i] || "?", known = facts.classes.find((each) => each.label === label);
    const key = `${known?.name ?? "?"}\t${name}`;
    found.set(key, (found.get(key) ?? 0) + 1);
  });
  const rows = [...found].sort((a, b) => b[1] - a[1]).map(([key, count]) => [...key.split("\t"), count]);
  fill("structures", rows.map(([kind, name, count]) => [name, kind, count]));
}

function elsewhere(facts) {
  const link = at("neuroglancer"), webgl = make("canvas").getContext("webgl2") !== null;
  if (!facts.neuroglancer) {
    at("without").textContent = "needs its package: pip install 'template-learning[neuroglancer]', then start tlgen browse again";
  } else if (!webgl) {
    at("without").textContent = "needs WebGL 2, which this browser does not offer here";
  } else {
    link.href = `/neuroglancer/${facts.id}`;
  }
  at("napari").textContent = facts.napari;
  at("copy").addEventListener("click", async () => {
    await navigator.clipboard.writeText(facts.napari);
    at("copy").textContent = "Copied";
  });
}

function tables(facts) {
  const { record } = facts;
  const software = Object.entries(record.software).map(([name, version]) => `${name} ${version}`).join(", ");
  fill("record", [
    ["sample", record.sample_id], ["path", record.path], ["created", record.created], ["seed", String(record.seed)],
    ["split", record.split], ["tilts", String(record.n_tilts)], ["structures", Object.keys(record.structures).join(", ")],
    ["grey values", `${shown(record.intensity.centre)} ± ${shown(record.intensity.spread)}`], ["software", software],
    ["format version", String(record.format_version)],
  ]);
  const seconds = Object.entries(record.seconds), most = Math.max(...seconds.map((each) => each[1]), 1e-9);
  fill("costs", [
    ...seconds.map(([stage, value]) => {
      const bar = make("div");
      bar.style.width = `${(100 * value) / most}%`;
      return [stage, `${shown(value)} s`, bar];
    }),
    ["together", `${shown(seconds.reduce((sum, each) => sum + each[1], 0))} s on one core`],
    ["on disk", `${bytes(record.n_bytes)} in ${record.n_objects} objects`],
  ]);
  const value = (each) => (each === "" ? "–" : shown(each) + "");
  fill("acquisition", facts.parameters.map((each) => [each.name, `${value(each.value)} ${each.unit}`, each.about]));
}

function fill(id, rows) {
  at(id).replaceChildren(
    ...rows.map(([head, ...cells]) => {
      const made = cells.map((each) => make("td", { class: typeof each === "number" ? "number" : each instanceof Node ? "bar" : "" }, each instanceof Node ? each : String(each)));
      return make("tr", {}, make("th", { scope: "row" }, head), ...made);
    }),
  );
}

start().catch((error) => complain(error.message));
