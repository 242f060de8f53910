// Keeps "3 hours ago" true while a page is open, and tells the server which time zone to write times in.

const UNITS = [
  ["year", 365 * 86400],
  ["month", 30 * 86400],
  ["week", 7 * 86400],
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
];

const words = new Intl.RelativeTimeFormat(document.documentElement.lang);

function ago(at) {
  const passed = Math.max((Date.now() - at) / 1000, 60);
  const [unit, seconds] = UNITS.find(([, seconds]) => passed >= seconds);
  return words.format(-Math.floor(passed / seconds), unit);
}

function tell() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const text = ago(Date.parse(time.dateTime));
    if (time.textContent !== text) time.textContent = text;
  }
}

function remember(zone) {
  const isSecure = location.protocol === "https:";
  const name = isSecure ? "__Host-zone" : "zone";
  document.cookie = `${name}=${zone}; path=/; max-age=31536000; samesite=lax${isSecure ? "; secure" : ""}`;
}

remember(Intl.DateTimeFormat().resolvedOptions().timeZone);
setInterval(() => document.hidden || tell(), 20_000);
document.addEventListener("visibilitychange", () => document.hidden || tell());
