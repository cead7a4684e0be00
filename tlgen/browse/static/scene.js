// The scene as balls that can be rotated: the position of each particle, in the colour of its class.

import { colour, sized } from "./page.js";

/** @param {HTMLCanvasElement} canvas  @param {object} facts from /api/sample */
export function scene(canvas, facts) {
  const middle = facts.shape.map((n) => ((n - 1) * facts.voxel_size) / 2).reverse(); // x, y, z
  const reach = Math.hypot(...middle);
  const byLabel = new Map(facts.classes.map((each) => [each.label, each]));
  const { x, y, z, label } = facts.particles;
  let turn = 0.6, lean = 0.5;

  function draw() {
    const width = Math.min(480, canvas.parentElement.clientWidth), height = Math.round(width * 0.75);
    const context = sized(canvas, width, height), scale = (0.47 * Math.min(width, height)) / reach;
    const [ct, st, cl, sl] = [Math.cos(turn), Math.sin(turn), Math.cos(lean), Math.sin(lean)];
    const seen = (px, py, pz) => {
      const right = px * ct + py * st, back = -px * st + py * ct;
      return [width / 2 + right * scale, height / 2 + (back * cl - pz * sl) * scale, back * sl + pz * cl];
    };
    context.clearRect(0, 0, width, height);
    context.strokeStyle = colour("quiet");
    for (const [a, b] of EDGES) {
      const ends = [a, b].map((corner) => seen(...corner.map((side, k) => side * middle[k])));
      context.beginPath();
      context.moveTo(ends[0][0], ends[0][1]);
      context.lineTo(ends[1][0], ends[1][1]);
      context.stroke();
    }
    const balls = x.map((_, i) => [...seen(x[i] - middle[0], y[i] - middle[1], z[i] - middle[2]), i]);
    balls.sort((a, b) => a[2] - b[2]);
    for (const [right, down, depth, i] of balls) {
      const known = byLabel.get(label[i]) ?? byLabel.get(0);
      const radius = Math.max(1.5, (known.radius ?? 30) * scale);
      context.globalAlpha = known.label ? 0.55 + 0.4 * ((depth / reach + 1) / 2) : 0.25;
      context.fillStyle = known.colour;
      context.beginPath();
      context.arc(right, down, radius, 0, 2 * Math.PI);
      context.fill();
      context.globalAlpha *= 0.8;
      context.strokeStyle = colour("paper");
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    turn += event.movementX / 120;
    lean = Math.max(-1.5, Math.min(1.5, lean + event.movementY / 120));
    draw();
  });
  addEventListener("resize", draw);
  draw();
}

const CORNERS = [-1, 1].flatMap((a) => [-1, 1].flatMap((b) => [-1, 1].map((c) => [a, b, c])));
const EDGES = CORNERS.flatMap((a, i) => CORNERS.slice(i + 1).filter((b) => a.filter((side, k) => side !== b[k]).length === 1).map((b) => [a, b]));
