// Where a page asks once more, the browser opens the question by itself; a script keeps the keyboard in it until it is
// answered, and puts the focus back afterwards.

document.addEventListener("click", (event) => {
  const dialog = event.target.closest("[popovertarget]")?.popoverTargetElement;
  if (!dialog) return;
  event.preventDefault();
  if (dialog.open) dialog.close();
  else dialog.showModal();
});
