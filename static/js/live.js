// Follows the account's events: fetches the page again when something happened, and swaps what it shows.

const OFFLINE_AFTER = 3000;
const notice = document.getElementById("offline");
let source = null;
let lastId = "";
let waiting = null;
let isFetching = false;
let isStale = false;

function leave(address) {
  source?.close();
  location.replace(address);
}

// Another fetch is asked for while one runs: one more follows it, however many asked.
async function refresh() {
  isStale = true;
  if (isFetching) return;
  isFetching = true;
  try {
    while (isStale) {
      isStale = false;
      const answer = await fetch(location.href, { redirect: "manual" });
      // Sent elsewhere: the page that it is sent to is told why, so it has to be opened and not fetched.
      if (answer.type === "opaqueredirect") return location.reload();
      if (answer.status === 404) return leave("/devices/");
      if (answer.ok) swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
    }
  } catch {
    tellOffline();
  } finally {
    isFetching = false;
  }
}

function swap(page) {
  const shown = document.querySelector("main[data-live]");
  const fresh = page.querySelector("main[data-live]");
  if (!fresh) return;
  const known = new Set([...shown.querySelectorAll("[id]")].map((element) => element.id));
  const focused = shown.contains(document.activeElement) ? document.activeElement : null;
  const place = focused && findPlace(focused);
  keepTyped(shown, fresh);
  const open = shown.querySelector("[popover]:popover-open")?.id;
  for (const row of fresh.querySelectorAll(".row[id]")) row.classList.toggle("arrived", !known.has(row.id));
  const flash = shown.querySelector("#flash");
  if (flash && !fresh.querySelector("#flash")) fresh.prepend(document.importNode(flash, true));
  shown.replaceChildren(...fresh.childNodes);
  document.dispatchEvent(new Event("swapped"));
  if (open) document.getElementById(open)?.showPopover();
  if (place) (place() ?? document.getElementById("title")).focus({ preventScroll: true });
}

// How to find again, in another page, what has the focus: by its id, or by its place in the row that has one.
function findPlace(element) {
  const row = element.closest("[id]");
  if (!row) return null;
  if (row === element) return () => document.getElementById(row.id);
  const selector = "a, button, input";
  const index = [...row.querySelectorAll(selector)].indexOf(element);
  return () => document.getElementById(row.id)?.querySelectorAll(selector)[index];
}

function keepTyped(shown, fresh) {
  for (const input of shown.querySelectorAll("input[id]")) {
    const other = fresh.querySelector(`#${input.id}`);
    if (other && input.value !== input.defaultValue) {
      other.value = input.value;
      if (input === document.activeElement) {
        const { selectionStart, selectionEnd } = input;
        document.addEventListener("swapped", () => other.setSelectionRange(selectionStart, selectionEnd), { once: true });
      }
    }
  }
}

function tellOffline() {
  waiting ??= setTimeout(() => (notice.hidden = false), OFFLINE_AFTER);
}

function tellOnline() {
  clearTimeout(waiting);
  waiting = null;
  notice.hidden = true;
}

function open() {
  source?.close();
  source = new EventSource(lastId ? `/live/?last=${encodeURIComponent(lastId)}` : "/live/");
  source.addEventListener("open", tellOnline);
  source.addEventListener("device", (event) => {
    lastId = event.lastEventId;
    refresh();
  });
  source.addEventListener("over", (event) => {
    const why = JSON.parse(event.data).reason ?? "";
    leave(`/sign-in/?${new URLSearchParams({ why, next: location.pathname })}`);
  });
  source.addEventListener("error", () => {
    tellOffline();
    // The browser gives up for good where the answer is none of a stream: the page itself says why.
    if (source.readyState === EventSource.CLOSED) {
      refresh();
      setTimeout(() => document.hidden || open(), OFFLINE_AFTER);
    }
  });
}

function close() {
  source?.close();
  source = null;
  tellOnline();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return close();
  open();
  refresh();
});
// Back from the browser's own memory of a page: what it shows may be over.
addEventListener("pageshow", (event) => event.persisted && refresh());
addEventListener("pagehide", close);
addEventListener("online", () => document.hidden || open());
addEventListener("offline", tellOffline);

if (!document.hidden) open();
