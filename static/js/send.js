// A form that is under way is not sent again: the second answer, that there was nothing left to do, would hide the first.

// So long at most; whoever stopped the page from loading may try again.
const MOST = 8000;
let sentAt = -MOST;

addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method !== "post") return;
  if (event.timeStamp - sentAt < MOST) {
    event.preventDefault();
    return;
  }
  sentAt = event.timeStamp;
  event.submitter?.setAttribute("aria-busy", "true");
});

// Back from the browser's own memory of a page.
addEventListener("pageshow", () => {
  sentAt = -MOST;
  for (const button of document.querySelectorAll("[aria-busy]")) button.removeAttribute("aria-busy");
});
