// Follows the account's events: where the page shows what happened, it is fetched again and swapped; where its
// session has ended, it is left.

const OFFLINE_AFTER = 3000;
// "Active now" comes and goes without an event.
const LOOK_EVERY = 60_000;
const notice = document.getElementById("offline");
const followed = document.querySelector("main[data-live]");
const isShowing = followed !== null;
// What tells that something happened: to the account, or, at the desk, in the house.
const stream = followed?.dataset.live || "/live/";
const home = stream === "/live/" ? "/devices/" : "/admin/";
let source = null;
let waiting = null;
let isFetching = false;
let isStale = false;
let patience = OFFLINE_AFTER;

function leave(address) {
  source?.close();
  location.replace(address);
}

// Fetches the page again. Asked while it does, it does so once more, however many asked. Whether the page stays.
async function refresh() {
  isStale = true;
  if (isFetching) return true;
  isFetching = true;
  try {
    while (isStale) {
      isStale = false;
      // A page that shows no events may be the answer to a form, which is not sent again.
      const answer = await fetch(isShowing ? location.href : home, { redirect: "manual" });
      if (answer.type === "opaqueredirect" || answer.status === 403 || answer.status === 404) {
        // Opened and not fetched: the page that it is sent to says why.
        leave(home);
        return false;
      }
      if (answer.ok && isShowing) swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
    }
  } catch {
    tellOffline();
  } finally {
    isFetching = false;
  }
  return true;
}

function swap(page) {
  const shown = document.querySelector("main[data-live]");
  const fresh = page.querySelector("main[data-live]");
  // What was typed wrongly stays beside what is wrong with it.
  if (!fresh || shown.querySelector(".error")) return;
  if (isSelecting(shown)) {
    document.addEventListener("selectionchange", refreshLater);
    return;
  }
  const known = new Set([...shown.querySelectorAll("[id]")].map((element) => element.id));
  const focused = shown.contains(document.activeElement) ? document.activeElement : null;
  const place = focused && findPlace(focused);
  // Of what is no field of text there is none, or null.
  const { selectionStart, selectionEnd } = focused ?? {};
  keepTyped(shown, fresh);
  const open = shown.querySelector("dialog[open]")?.id;
  for (const { id } of shown.querySelectorAll("details[id][open]")) fresh.querySelector(`#${id}`)?.setAttribute("open", "");
  for (const row of fresh.querySelectorAll(".row[id]")) row.classList.toggle("arrived", !known.has(row.id));
  const flash = shown.querySelector("#flash");
  if (flash && !fresh.querySelector("#flash")) fresh.prepend(document.importNode(flash, true));
  tell(shown, fresh);
  shown.replaceChildren(...fresh.childNodes);
  shown.dataset.every = fresh.dataset.every ?? "";
  document.dispatchEvent(new Event("swapped"));
  if (open) {
    // From the button: that is where the focus goes back to.
    document.querySelector(`[popovertarget="${open}"]`)?.focus();
    document.getElementById(open)?.showModal();
  }
  if (place) {
    const found = place();
    (found ?? document.getElementById("title")).focus({ preventScroll: true });
    // At once: what is typed next goes where it would have gone.
    if (selectionStart != null) found?.setSelectionRange?.(selectionStart, selectionEnd);
  }
}

// Says what changed to who does not see it. Elsewhere: what is itself replaced is not said reliably.
function tell(shown, fresh) {
  const [before, now] = [shown, fresh].map((page) => page.querySelector("[data-told]")?.textContent.trim() ?? "");
  if (now !== before) document.getElementById("told").textContent = now;
}

// Whether something is selected, to be copied.
function isSelecting(shown) {
  const selection = getSelection();
  return !selection.isCollapsed && shown.contains(selection.anchorNode);
}

function refreshLater() {
  if (isSelecting(document.querySelector("main[data-live]"))) return;
  document.removeEventListener("selectionchange", refreshLater);
  refresh();
}

// How to find again, in another page, what has the focus: by its id, or by its place in the row that has one.
function findPlace(element) {
  const row = element.closest("[id]");
  if (!row) return null;
  if (row === element) return () => document.getElementById(row.id);
  const selector = "a, button, input, select, summary";
  const index = [...row.querySelectorAll(selector)].indexOf(element);
  return () => document.getElementById(row.id)?.querySelectorAll(selector)[index];
}

function keepTyped(shown, fresh) {
  for (const input of shown.querySelectorAll("input[id]")) {
    const other = fresh.querySelector(`#${input.id}`);
    if (other && input.value !== input.defaultValue) other.value = input.value;
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

// Each stream that opens says "look again" first: what happened while none was open is not missed.
function open() {
  source?.close();
  source = new EventSource(stream);
  source.addEventListener("open", () => {
    patience = 0;
    tellOnline();
  });
  if (isShowing) source.addEventListener("device", refresh);
  source.addEventListener("over", (event) => {
    const why = JSON.parse(event.data).reason;
    // Another tab signed in anew: this one goes on as whoever that is.
    const here = location.pathname + location.search;
    if (why === "replaced") leave(here);
    else if (why) leave(`/sign-in/?${new URLSearchParams({ why, next: here })}`);
    else leave(home);
  });
  source.addEventListener("error", () => {
    tellOffline();
    // The browser gives up for good where the answer is no stream: the page says why, or may follow again.
    if (source?.readyState !== EventSource.CLOSED) return;
    setTimeout(resume, patience);
    patience = Math.min(Math.max(patience * 2, OFFLINE_AFTER), LOOK_EVERY);
  });
}

function close() {
  source?.close();
  source = null;
  tellOnline();
}

async function resume() {
  if (document.hidden) return;
  // First the page: where its session has ended it is left, and the stream is not asked for.
  if (await refresh()) open();
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : resume()));
// Back from the browser's own memory of a page: what it shows may be over.
addEventListener("pageshow", (event) => event.persisted && resume());
addEventListener("pagehide", close);
addEventListener("online", resume);
addEventListener("offline", tellOffline);

// A page of something that runs looks more often, for as long as it says so.
function look() {
  if (isShowing && source) refresh();
  setTimeout(look, Number(document.querySelector("main[data-live]")?.dataset.every) || LOOK_EVERY);
}
setTimeout(look, Number(followed?.dataset.every) || LOOK_EVERY);

if (!document.hidden) open();
