"use strict";
// Slices: a viewer's panels are windows into sprites; scrolling moves all windows of a viewer together.
for (const viewer of document.querySelectorAll(".viewer")) {
  const { columns, width, height, slices, step } = Object.fromEntries(
    Object.entries(viewer.dataset).map(([key, value]) => [key, Number(value)]),
  );
  const windows = viewer.querySelectorAll(".panels svg");
  const range = viewer.querySelector("input[type=range]");
  const output = viewer.querySelector("output");
  const show = () => {
    const slice = Number(range.value);
    const x = (slice % columns) * width + 1;
    const y = Math.floor(slice / columns) * height + 1;
    for (const svg of windows) svg.setAttribute("viewBox", `${x} ${y} ${width - 2} ${height - 2}`);
    output.textContent = `${slice * step + 1} of ${(slices - 1) * step + 1}`;
    range.setAttribute("aria-valuetext", `slice ${output.textContent}`);
  };
  range.addEventListener("input", show);
  viewer.querySelector("input[type=checkbox]")?.addEventListener("change", (event) => {
    viewer.classList.toggle("no-outlines", !event.target.checked);
  });
  const panels = viewer.querySelector(".panels");
  panels.addEventListener("click", () => range.focus());
  panels.addEventListener("wheel", (event) => {
    // The wheel turns slices once a picture was chosen, and scrolls the page before.
    if (!viewer.contains(document.activeElement)) return;
    event.preventDefault();
    range.valueAsNumber += Math.sign(event.deltaY);
    show();
  }, { passive: false });
  viewer.querySelector(".controls").hidden = false;
  show();
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  const status = document.getElementById(button.getAttribute("aria-describedby"));
  const source = document.getElementById(button.dataset.copy);
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.innerText);
      status.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(source);
      status.textContent = "Selected: copy it with the keyboard.";
    }
  });
}

// Print what is folded away, too.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
