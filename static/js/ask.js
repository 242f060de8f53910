// Where a page asks once more, the browser opens the question by itself; a script keeps the keyboard in it until it is
// answered, and puts the focus back afterwards.

document.addEventListener("click", (event) => {
  // By its id: browsers without popovers know dialogs all the same.
  const dialog = document.getElementById(event.target.closest("[popovertarget]")?.getAttribute("popovertarget"));
  if (!dialog) return;
  event.preventDefault();
  if (dialog.open) dialog.close();
  else dialog.showModal();
});
