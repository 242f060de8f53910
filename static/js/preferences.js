// A change of appearance shows at once; the form's own answer is the same page over again.

for (const form of document.querySelectorAll("form[data-preferences]")) {
  form.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (button?.name !== "theme") return;
    event.preventDefault();
    document.documentElement.dataset.theme = button.value;
    for (const other of form.querySelectorAll("button")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    const body = new URLSearchParams({ theme: button.value, next: "/" });
    // Offline it shows all the same, until the next page.
    fetch(form.action, { method: "POST", body, redirect: "manual" }).catch(() => {});
  });
}
