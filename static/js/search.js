// Narrows the list of devices while its reader types. Without a script the server does it.

function narrow() {
  const form = document.querySelector("form[data-search]");
  if (!form) return;
  const sought = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const group of document.querySelectorAll("[data-group]")) {
    const rows = [...group.querySelectorAll("[data-device]")];
    for (const row of rows) row.hidden = !sought.every((word) => row.dataset.device.includes(word));
    const shown = rows.filter((row) => !row.hidden).length;
    group.hidden = !shown;
    const count = group.querySelector("[data-count]");
    if (count) count.textContent = shown;
    found += shown;
  }
  document.querySelector("[data-nothing]").hidden = found > 0;
}

document.addEventListener("input", (event) => event.target.closest("form[data-search]") && narrow());
document.addEventListener("submit", (event) => event.target.matches("form[data-search]") && event.preventDefault());
document.addEventListener("swapped", narrow);
// The page shows all devices that the server found for the address; typing starts from all there are.
narrow();
