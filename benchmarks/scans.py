"""sqlmap and wapiti (installed apart: `pip install sqlmap wapiti3`) over every address of a demo server, signed in."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import httpx

ROOT = Path(__file__).parent.parent
PASSWORD = "nine lanterns by the ferry"
FREE = ("TRIES", "NETWORK_TRIES", "SENDS", "NETWORK_SENDS")
# wapiti looks for a field whose name says token. Forms of ours need none: who asks from another site is refused by
# what the browser says of the request (tests/handlers/test_pages_sign_in.py), and the cookie is SameSite.
EXPLAINED = ("Cross Site Request Forgery",)
# As behind a proxy that speaks https.
HTTPS = {"X-Forwarded-Proto": "https"}
# What signs out, and what has no end.
LEFT_OUT = ("/sign-out/", "/live/", "/sessions/live/", "/admin/live/")
# Those of wapiti's modules that need no list from elsewhere.
MODULES = (
    "backup", "buster", "cookieflags", "crlf", "csp", "csrf", "exec", "file", "htaccess", "http_headers", "ldap",
    "methods", "permanentxss", "redirect", "sql", "ssrf", "timesql", "upload", "xss", "xxe",
)  # fmt: skip
PAGES = (
    "/devices/",
    "/devices/{device}/",
    "/activity/",
    "/account/",
    "/sign-in/",
    "/register/",
    "/confirm/",
    "/reset/",
)
# What staff open, with forms.
DESK = (
    "/admin/sessions/",
    "/admin/sessions/client/{session}/",
    "/admin/accounts/user/6/",
    "/admin/accounts/client/2/",
    "/admin/accounts/user/new/",
    "/admin/accounts/client/new/",
    "/admin/sessions/end/?kind=client&country=FI",
    "/admin/emergency/",
)
PARTS = ("desk", "lists", "api", "pages")
# Where wapiti begins to crawl.
STARTS = (
    "/docs/", "/sessions/session-user-l/", "/account/", "/activity/", "/register/", "/sign-in/", "/admin/",
    "/admin/sessions/", "/admin/accounts/user/", "/admin/events/", "/admin/emergency/",
)  # fmt: skip
# What lists are asked with; each value is tried.
SESSION_FILTERS = (
    "kind=user&account=5&sort=-seen",
    "browser=Chrome&os=Windows&device_kind=computer&country=DE",
    "ip=10.0.0.0/8&q=user3&device=Mozilla",
    "started_from=2026-01-01T00:00:00Z&started_to=2027-01-01T00:00:00Z",
    "seen_from=2026-01-01T00:00:00Z&seen_to=2027-01-01T00:00:00Z&idle=P1D",
)
ACCOUNT_FILTERS = ("q=user3&state=active&role=staff&sort=surname",)
EVENT_FILTERS = (
    "type=ended&cause=owner&kind=user&account=5&session=1",
    "by_kind=user&by=5&ip=127.0.0.0/8",
    "since=2026-01-01T00:00:00Z&until=2027-01-01T00:00:00Z",
)


@dataclass(frozen=True)
class Asked:
    """A request with its places marked by a star."""

    method: str
    path: str
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def write(self, folder: Path, number: int, host: str) -> Path:
        """A file as sqlmap reads it."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}", *(f"{name}: {v}" for name, v in self.headers)]
        file = folder / f"{number}.txt"
        file.write_text("\n".join(lines) + "\n\n" + self.body)
        return file


class Forms(HTMLParser):
    """The forms of a page: where each goes, and what it carries."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, dict[str, str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append((given.get("method", "get").upper(), given.get("action", ""), {}))
        elif tag in ("input", "select", "textarea") and given.get("name") and self.found:
            self.found[-1][2][given["name"]] = given.get("value", "")


def list_api(document: dict[str, object], token: str) -> Iterator[Asked]:
    """Every operation of the document, each of its values marked."""
    paths: dict[str, dict[str, dict[str, object]]] = document["paths"]  # type: ignore[assignment]
    bearer = ("Authorization", f"Bearer {token}")
    https = tuple(HTTPS.items())
    for path, methods in paths.items():
        if path in LEFT_OUT:
            continue
        filled = re.sub(r"\{(\w+)\}", lambda found: "x*" if found[1] == "file" else "5*", path)
        for method, operation in methods.items():
            query = ""
            if method == "get" and path.startswith("/sessions/") and "-l/" in path and "static" not in path:
                query = "?details=true*&limit=1*&offset=0*"
            body, more = "", [bearer, ("User-Agent", "scan/1*"), *https]
            if content := operation.get("requestBody"):
                sent = content["content"]["application/json"]["example"]  # type: ignore[index]
                body = json.dumps({name: f"{v}*" if isinstance(v, str) else v for name, v in sent.items()})
                more.append(("Content-Type", "application/json"))
            # Never whom the scan is signed in as.
            target = filled.replace("5*", "999999*") if method == "delete" else filled
            yield Asked(method.upper(), target + query, body, tuple(more))


def list_filters(place: str, headers: tuple[tuple[str, str], ...]) -> Iterator[Asked]:
    """The lists of the house with every filter, as pages or as JSON."""
    lists = {"sessions/": SESSION_FILTERS, "accounts/user/": ACCOUNT_FILTERS, "events/": EVENT_FILTERS}
    for name, queries in lists.items():
        for query in (*queries, "after=1.user~1&limit=5"):
            yield Asked("GET", f"{place}{name}?{query.replace('&', '*&')}*", "", headers)


def list_desk(client: httpx.Client, cookies: str, session: int) -> Iterator[Asked]:
    """Every page and form of the desk; an account that a form acts on is another than the one that is signed in."""
    headers = (("Cookie", cookies), *HTTPS.items(), ("Accept", "text/html"))
    yield Asked("GET", "/admin/?span=week*", "", headers)
    yield from list_filters("/admin/", headers)
    yield Asked("GET", "/admin/events/download/csv/?type=ended*&kind=user*", "", headers)
    yield from list_forms(client, headers, [page.replace("{session}", str(session)) for page in DESK])


def list_pages(client: httpx.Client, cookies: str, device: int) -> Iterator[Asked]:
    """Every page and form of an account's own."""
    headers = (("Cookie", cookies), *HTTPS.items(), ("Accept", "text/html"))
    for query in ("/devices/?q=x*", "/activity/?before=5*", "/sign-in/?next=x*&why=x*", "/register/?kind=user*"):
        yield Asked("GET", query, "", headers)
    signed_out = [page for page in PAGES if page in ("/sign-in/", "/register/", "/confirm/", "/reset/")]
    yield from list_forms(client, headers[1:], signed_out)
    own = [page.replace("{device}", str(device)) for page in PAGES if page not in signed_out]
    yield from list_forms(client, headers, own)


def list_forms(client: httpx.Client, headers: tuple[tuple[str, str], ...], pages: list[str]) -> Iterator[Asked]:
    """The forms of pages, each of their values marked but those that tell whose the form is."""
    seen: set[str] = set()
    for page in pages:
        for method, action, fields in Forms(client.get(page, headers=dict(headers)).text).found:
            where = action or page
            ends_own = where.startswith("/devices/") and "/end" in where
            if method != "POST" or where in LEFT_OUT or where in seen or ends_own:
                continue
            seen.add(where)
            marked = {name: value if name == "whose" else f"{value or 'x'}STAR" for name, value in fields.items()}
            body = urlencode(marked).replace("STAR", "*")
            yield Asked("POST", where, body, (*headers, ("Content-Type", "application/x-www-form-urlencoded")))


def sign_in(client: httpx.Client, identity: str) -> str:
    """The cookies of a browser that signed in."""
    client.post("/sign-in/", data={"identity": identity, "password": PASSWORD})
    kept = [one for one in client.cookies.jar if one.name in ("__Host-session", "__Host-browser")]
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in kept)
    client.cookies.clear()
    return cookies


def run_sqlmap(program: str, asked: list[Asked], host: str, seconds: int) -> Iterator[tuple[str, str]]:
    """What sqlmap says of each request."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, one in enumerate(asked):
            file = one.write(folder, number, host)
            command = [
                program, "-r", str(file), "--batch", "--level=2", "--risk=1", "--threads=2", "--time-sec=3",
                "--flush-session", "--ignore-code=*", "--disable-coloring", f"--output-dir={folder}/out",
            ]  # fmt: skip
            try:
                out = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False).stdout
            except subprocess.TimeoutExpired:
                yield f"{one.method} {one.path}", "cut off"
                continue
            is_clean = "do not appear to be injectable" in out
            found = re.findall(r"^Parameter: .*$|.*identified the following injection.*", out, re.MULTILINE)
            yield f"{one.method} {one.path}", "clean" if is_clean and not found else "; ".join(found) or out[-300:]


def run_wapiti(program: str, address: str, headers: list[str], seconds: int) -> tuple[int, list[str]]:
    """How many addresses wapiti crawled, and what it found."""
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.json"
        command = [
            program, "-u", f"{address}/devices/", "--scope", "domain", "-f", "json", "-o", str(report),
            "--flush-session", "--max-scan-time", str(seconds), "--max-attack-time", str(seconds // 10),
            # The desk's filters make addresses without end.
            "--tasks", "4", "--max-files-per-dir", "40", "--no-bugreport", "-v", "0", "-m", ",".join(MODULES),
        ]  # fmt: skip
        for header in headers:
            command += ["-H", header]
        for start in STARTS:
            command += ["-s", address + start]
        for path in LEFT_OUT:
            command += ["-x", address + path]
        command += ["-x", f"{address}/devices/*/end/", "-x", f"{address}/devices/end-others/"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds * (1 + len(MODULES) / 10) + 300, check=False
        )
        if not report.exists():
            raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
        told = json.loads(report.read_text())
    found = [
        f"{kind}: {one['method']} {one['path']}: {one['info']}"
        for group in ("vulnerabilities", "anomalies")
        for kind, ones in told[group].items()
        for one in ones
    ]
    return int(told["infos"]["crawled_pages_nbr"]), found


def start_demo(folder: Path) -> tuple[subprocess.Popen[bytes], str, Path]:
    """A demo server without a throttle, so that each guess of a scanner is answered."""
    log = folder / "log"
    free = {f"SESSIONS_GUESSES__{name}": "10000000" for name in FREE}
    free["SESSIONS_SERVER__TRUSTED_PROXIES"] = '["127.0.0.1/32"]'
    command = [sys.executable, str(ROOT / "server.py"), "demo", "--port", "0", "--workers", "2"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **free, "SESSIONS_LOG__FORMAT": "json"}, stdout=out, stderr=out, cwd=folder
        )
    while not (found := re.search(r"answers on (\S+)/", log.read_text())):
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.1)
    return process, found[1], log


def main() -> None:
    """Scan and print; exit code 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sqlmap", default="sqlmap")
    parser.add_argument("--wapiti", default="wapiti")
    parser.add_argument("--only", choices=("sqlmap", "wapiti"))
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS, help="what sqlmap tries")
    parser.add_argument("--seconds", type=int, default=600, help="the longest crawl, and the longest for one request")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sessions-scan-") as folder:
        process, address, log = start_demo(Path(folder))
        bad: list[str] = []
        try:
            with httpx.Client(base_url=address, timeout=30, headers=HTTPS) as client:
                signed_in = client.post("/auth/user/token/", json={"email": "staff@example.com", "password": PASSWORD})
                token = signed_in.json()["access"]
                cookies, of_staff = sign_in(client, "user3@gmail.com"), sign_in(client, "staff@example.com")
                page = client.get("/devices/", headers={"Cookie": cookies}).text
                device = int(re.findall(r"/devices/(\d+)/", page)[0])
                page = client.get("/admin/sessions/?kind=client", headers={"Cookie": of_staff}).text
                other = int(re.findall(r"/admin/sessions/client/(\d+)/", page)[0])
                parts = {
                    "desk": list(list_desk(client, of_staff, other)),
                    "lists": list(list_filters("/", (("Authorization", f"Bearer {token}"), *HTTPS.items()))),
                    "api": list(list_api(client.get("/openapi.json").json(), token)),
                    "pages": list(list_pages(client, cookies, device)),
                }
                asked = [one for part in options.parts for one in parts[part]]
            if options.only != "wapiti":
                for what, said in run_sqlmap(options.sqlmap, asked, urlsplit(address).netloc, options.seconds):
                    print(f"sqlmap  {said:10} {what}", flush=True)
                    bad += [what] if said != "clean" else []
            if options.only != "sqlmap":
                headers = [f"Cookie: {of_staff}", f"Authorization: Bearer {token}", "X-Forwarded-Proto: https"]
                pages, found = run_wapiti(options.wapiti, address, headers, options.seconds)
                print(f"wapiti  {pages} addresses crawled, {len(found)} found")
                print("\n".join(found))
                bad += [one for one in found if not one.startswith(EXPLAINED)]
        finally:
            process.terminate()
            process.wait(60)
        lines = [json.loads(line) for line in log.read_text(errors="replace").splitlines() if line.startswith("{")]
        statuses = Counter(line["status"] for line in lines if line["event"] == "request")
        failed = [line for line in lines if line["event"] == "unexpected error"]
        print(f"{statuses.total()} requests: {dict(sorted(statuses.items()))}; {len(failed)} unexpected errors")
        print("\n".join(json.dumps(line)[:1500] for line in failed[:5]))
        raise SystemExit(bool(bad or failed or [status for status in statuses if status >= 500]))


if __name__ == "__main__":
    main()
