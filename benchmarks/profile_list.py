"""Where the time of the authenticated list goes: the server under cProfile while wrk asks."""

from __future__ import annotations
import os, pstats, random, re, subprocess, sys, time
from yard import ROOT, SECRET, Yard, fill, scratch, wrk


def main() -> None:
    with scratch() as yard:
        filled = fill(yard, 1000, 5)
        out = yard.folder / "profile"
        env = {
            **os.environ,
            "SESSIONS_DATABASE__URL": yard.url,
            "SESSIONS_SERVER__PORT": "0",
            "SESSIONS_TOKENS__KEYS": f'[{{"kid": "bench", "secret": "{SECRET}"}}]',
        }
        log = yard.folder / "log"
        with log.open("wb") as f:
            p = subprocess.Popen(
                [sys.executable, "-m", "cProfile", "-o", out, ROOT / "server.py", "serve", "--workers", "1"],
                env=env,
                stdout=f,
                stderr=f,
                cwd=yard.folder,
            )
        while not (found := re.search(r"answers on (\S+)/", log.read_text())):
            time.sleep(0.05)
        yard.wait(found[1])
        turns = list(filled.tokens)
        random.Random(2).shuffle(turns)
        script = yard.write_script("list", [("GET", path, token) for path, _, token in turns])
        wrk(found[1], script, 16, 3)
        print(wrk(found[1], script, 16, 5))
        p.terminate()
        p.wait(30)
        pstats.Stats(str(out)).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
