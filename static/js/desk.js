// What a script adds to the desk: filters that are empty stay out of the address; all rows of a page are picked at once.

document.addEventListener("formdata", (event) => {
  if (!event.target.matches("form[data-filters]")) return;
  for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
});

function tellPicked() {
  const all = document.querySelector("[data-pick-all]");
  if (!all) return;
  const boxes = [...document.querySelectorAll("[data-pick]")];
  const picked = boxes.filter((box) => box.checked).length;
  all.checked = picked > 0 && picked === boxes.length;
  all.indeterminate = picked > 0 && picked < boxes.length;
  for (const count of document.querySelectorAll("[data-picked]")) count.textContent = picked;
}

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-pick-all]")) {
    for (const box of document.querySelectorAll("[data-pick]")) box.checked = event.target.checked;
  }
  tellPicked();
});

tellPicked();
