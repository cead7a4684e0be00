// Three planes of a volume with sliders, overlaid with labels and particles.

import { sized } from "./page.js";

// Axis perpendicular to a plane -> the axes that point right and down in the plane.
const SIDES = { z: ["x", "y"], x: ["z", "y"], y: ["x", "z"] };

/** Fetches pictures, and keeps the last ones in memory. */
class Pictures {
  constructor() {
    this.kept = new Map();
  }

  get(address) {
    if (!this.kept.has(address)) {
      if (this.kept.size > 200) this.kept.delete(this.kept.keys().next().value);
      const image = new Image();
      image.src = address;
      this.kept.set(address, image.decode().then(() => image, () => { throw new Error(`${address} cannot be shown`); }));
    }
    return this.kept.get(address);
  }
}

export class Planes {
  /** @param {HTMLElement} box  @param {object} facts  @param {object} wish volume, labels, opacity, particles, distractors */
  constructor(box, facts, wish, complain) {
    Object.assign(this, { box, facts, wish, complain });
    this.pictures = new Pictures();
    this.voxels = { z: facts.shape[0], y: facts.shape[1], x: facts.shape[2] };
    this.at = {};
    this.asked = {};
    for (const figure of box.querySelectorAll("figure")) {
      const axis = figure.dataset.axis, slider = figure.querySelector("input");
      slider.max = this.voxels[axis] - 1;
      this.at[axis] = slider.value = Math.floor(this.voxels[axis] / 2);
      slider.addEventListener("input", () => {
        this.at[axis] = Number(slider.value);
        this.draw(axis);
        for (const other of Object.keys(SIDES)) if (other !== axis) this.compose(other);
      });
      const canvas = figure.querySelector("canvas");
      canvas.addEventListener("click", (event) => this.go(axis, canvas, event));
    }
    this.resize();
    addEventListener("resize", () => this.resize());
  }

  figure(axis) {
    return this.box.querySelector(`[data-axis=${axis}]`);
  }

  /** Set one scale for all three planes: z beside x, y below z. */
  resize() {
    const { z, y, x } = this.voxels, wide = Math.min(1200, this.box.clientWidth) - 24;
    this.scale = Math.max(0.1, Math.min(wide / (x + Math.max(z, 0.35 * x)), 640 / y, 8));
    const column = Math.max(z * this.scale, 200);
    this.box.style.gridTemplateColumns = `${Math.max(x * this.scale, 200)}px ${column}px`;
    this.all();
  }

  all() {
    for (const axis of Object.keys(SIDES)) this.draw(axis);
  }

  address(volume, axis) {
    return `/plane/${this.facts.id}/${volume}/${axis}/${this.at[axis]}.png`;
  }

  async draw(axis) {
    const turn = (this.asked[axis] = (this.asked[axis] ?? 0) + 1);
    const wanted = [this.address(this.wish.volume, axis)];
    if (this.wish.labels) wanted.push(this.address(this.wish.labels, axis));
    const place = this.at[axis];
    try {
      const images = await Promise.all(wanted.map((each) => this.pictures.get(each)));
      if (turn !== this.asked[axis]) return; // the slider has moved on in the meantime
      this.figure(axis).shown = { images, place };
      this.compose(axis);
    } catch (error) {
      this.complain(error.message);
    }
  }

  compose(axis) {
    const figure = this.figure(axis);
    if (!figure.shown) return;
    const [right, down] = SIDES[axis], { images, place } = figure.shown;
    const width = this.voxels[right] * this.scale, height = this.voxels[down] * this.scale;
    const context = sized(figure.querySelector("canvas"), width, height);
    context.imageSmoothingEnabled = this.scale < 2;
    images.forEach((image, k) => {
      context.globalAlpha = k ? this.wish.opacity : 1;
      context.drawImage(image, 0, 0, width, height);
    });
    context.globalAlpha = 1;
    this.particles(context, axis, place);
    context.strokeStyle = "rgba(255,255,255,.45)";
    context.setLineDash([4, 4]);
    for (const [side, upright] of [[right, true], [down, false]]) {
      const where = (this.at[side] + 0.5) * this.scale;
      context.beginPath();
      context.moveTo(upright ? where : 0, upright ? 0 : where);
      context.lineTo(upright ? where : width, upright ? height : where);
      context.stroke();
    }
    context.setLineDash([]);
    const size = this.facts.voxel_size;
    figure.querySelector("output").textContent = `${place} · ${((place * size) / 10).toFixed(1)} nm`;
  }

  /** Draw circles where the plane cuts the spheres of particles, and dots for distractors. */
  particles(context, axis, place) {
    if (!this.wish.particles && !this.wish.distractors) return;
    const { particles, classes, voxel_size: size } = this.facts, [right, down] = SIDES[axis];
    const byLabel = new Map(classes.map((each) => [each.label, each]));
    context.lineWidth = 2;
    for (let i = 0; i < particles.label.length; i++) {
      const known = byLabel.get(particles.label[i]) ?? byLabel.get(0);
      if (!(known.label ? this.wish.particles : this.wish.distractors)) continue;
      const away = particles[axis][i] - place * size, reach = known.radius ?? 40;
      if (Math.abs(away) > reach) continue;
      const radius = known.radius ? Math.sqrt(reach * reach - away * away) : 12;
      const spot = [right, down].map((side) => (particles[side][i] / size + 0.5) * this.scale);
      context.strokeStyle = known.colour;
      context.beginPath();
      context.arc(...spot, Math.max(2, (radius / size) * this.scale), 0, 2 * Math.PI);
      context.stroke();
    }
    context.lineWidth = 1;
  }

  /** Move the other two planes to the position that was clicked. */
  go(axis, canvas, event) {
    const edge = canvas.getBoundingClientRect(), [right, down] = SIDES[axis];
    const places = [[right, event.clientX - edge.left], [down, event.clientY - edge.top]];
    for (const [side, pixels] of places) {
      this.at[side] = Math.max(0, Math.min(this.voxels[side] - 1, Math.floor(pixels / this.scale)));
      this.figure(side).querySelector("input").value = this.at[side];
    }
    this.all();
  }
}
