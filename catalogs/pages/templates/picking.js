"use strict";
for (const stack of document.querySelectorAll(".stack")) {
  const label = stack.querySelector(".depth");
  if (!label) continue;
  const slider = label.querySelector("input");
  const slabs = stack.querySelectorAll(".slab");
  const steps = JSON.parse(slider.dataset.steps);
  const depths = JSON.parse(slider.dataset.depths);
  label.hidden = false;
  slider.addEventListener("input", () => {
    const k = Number(slider.value);
    slabs.forEach((slab, j) => { slab.style.display = j === k ? "" : "none"; });
    for (const line of stack.querySelectorAll(".z-right")) line.setAttribute("transform", `translate(${steps[k]} 0)`);
    for (const line of stack.querySelectorAll(".z-down")) line.setAttribute("transform", `translate(0 ${steps[k]})`);
    label.querySelector("output").textContent = `${depths[k]} Å`;
  });
}
for (const box of document.querySelectorAll("[data-toggle]")) {
  box.closest("label").hidden = false;
  box.addEventListener("change", () => { document.body.classList.toggle(`no-${box.dataset.toggle}`, !box.checked); });
}
for (const box of document.querySelectorAll("[data-raw]")) {
  box.closest("label").hidden = false;
  box.addEventListener("change", () => { document.body.classList.toggle("show-raw", box.checked); });
}
for (const label of document.querySelectorAll(".choice")) {
  const slider = label.querySelector("input");
  const words = JSON.parse(slider.dataset.words);
  const marks = document.querySelectorAll("[data-step]");
  label.hidden = false;
  slider.addEventListener("input", () => {
    const last = Number(slider.value);
    for (const mark of marks) mark.classList.toggle("weak", Number(mark.dataset.step) > last);
    label.querySelector("output").textContent = words[last];
  });
}
