// The network's drawing: which row, which direction, which part. All texts were written when the page was made.
(() => {
  "use strict";
  const box = document.getElementById("drawing");
  const data = JSON.parse(document.getElementById("network-data").textContent);
  const drawing = box.querySelector(".net");
  const panel = document.getElementById("panel");
  const parts = [...drawing.querySelectorAll("[data-part]")];
  const state = { ...data.start };

  // "W1-0-2" is the line from x0 to h2: does it end at this unit (or, on the way back, begin there)?
  function touches(edge, unit) {
    const [name, from, to] = edge.split("-");
    const start = (name === "W1" ? "x" : "h") + from;
    const end = (name === "W1" ? "h" : "y") + to;
    return state.direction === "forward" ? end === unit : start === unit;
  }

  function show() {
    const view = state.row + "|" + state.direction;
    document.documentElement.dataset.row = state.row;
    drawing.classList.toggle("backward", state.direction === "backward");
    drawing.classList.toggle("some", state.part !== "E" && !state.part.startsWith("x"));
    for (const element of parts) {
      const part = element.dataset.part;
      element.classList.toggle("chosen", part === state.part);
      element.classList.toggle("part-of", part.includes("-") && touches(part, state.part));
      element.querySelector(".value, .weight").textContent = data.values[view][part];
      const wire = element.querySelector(".wire");
      if (wire) {
        const weight = data.weights[state.direction][part];
        const size = state.direction === "forward" ? Math.abs(weight) : 8 * Math.abs(weight);
        wire.setAttribute("class", "wire " + (weight < 0 ? "neg" : "pos"));
        wire.setAttribute("stroke-width", 1 + 2.2 * Math.min(size, 2));
      } else if (element.classList.contains("unit")) {
        element.querySelector(".name").textContent = data.names[state.direction][part];
      }
    }
    for (const button of box.querySelectorAll("button")) {
      const on = button.dataset.row === String(state.row) || button.dataset.direction === state.direction;
      button.setAttribute("aria-pressed", String(on));
    }
    panel.innerHTML = data.panels[view + "|" + state.part];
  }

  box.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button && button.dataset.row) state.row = Number(button.dataset.row);
    if (button && button.dataset.direction) state.direction = button.dataset.direction;
    if (button) show();
  });
  for (const element of parts) {
    const choose = () => {
      if (state.part === element.dataset.part) return;
      state.part = element.dataset.part;
      show();
    };
    element.addEventListener("pointerenter", choose);
    element.addEventListener("click", choose);
    element.addEventListener("focus", choose);
  }
  show();
})();
