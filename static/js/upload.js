// Says of a file that is larger than the server takes, before it is sent.

document.addEventListener("change", (event) => {
  const field = event.target.closest("input[type=file][data-most]");
  if (!field) return;
  const isTooLarge = [...field.files].some((file) => file.size > Number(field.dataset.most));
  field.setCustomValidity(isTooLarge ? field.dataset.tooLarge : "");
  field.reportValidity();
});
