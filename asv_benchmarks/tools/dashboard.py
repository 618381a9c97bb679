"""Publish asv's dashboard so that it opens in a browser without internet.

    python asv_benchmarks/tools/dashboard.py            write the pages from the results that there are
    python asv_benchmarks/tools/dashboard.py --serve    the same, then serve them on http://localhost:8080
    python asv_benchmarks/tools/dashboard.py update     first run asv for commits of main without results

The first page says whether main is faster or slower than a week ago, and by how much than NumPy (summary.py);
asv's own pages stand behind it, as benchmarks.html.

`asv publish` writes pages that load jQuery, Flot, Bootstrap and others from content networks, and show
nothing where these cannot be reached. Here the same files (assets/, see assets/LICENSES) are put beside the
pages, and the pages are made to load them from there. Browsers do not let such pages read their data from
file://, so they have to be served.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import summary
from asv_folder import ASSETS, ASV, PAGES
from histories import History, histories

ASSETS_IN_PAGES = "assets"

# What asv's pages load (a pattern for the address), and the file that takes its place. The version stands in
# the pattern: when a new asv wants another one, publishing stops instead of mixing versions.
# asv wants stupidtable 1.0.1, which exists nowhere as a package; 1.1.3 offers the same calls.
REPLACEMENTS = {
    r"/jquery-3\.3\.1(\.min)?\.js": "jquery-3.3.1/jquery.min.js",
    r"/flot/0\.8\.3/jquery\.flot(\.min)?\.js": "flot-0.8.3/jquery.flot.js",
    r"/flot/0\.8\.3/jquery\.flot\.time(\.min)?\.js": "flot-0.8.3/jquery.flot.time.js",
    r"/flot/0\.8\.3/jquery\.flot\.selection(\.min)?\.js": "flot-0.8.3/jquery.flot.selection.js",
    r"/flot/0\.8\.3/jquery\.flot\.categories(\.min)?\.js": "flot-0.8.3/jquery.flot.categories.js",
    r"/flot-orderbars@1\.0\.0/js/jquery.*\.js": "flot-orderbars-1.0.0/jquery.flot.orderBars.js",
    r"/stupidtable/1\.\d\.\d/stupidtable(\.min)?\.js": "stupid-table-plugin-1.1.3/stupidtable.min.js",
    r"/blueimp-md5/2\.19\.0/js/md5(\.min)?\.js": "blueimp-md5-2.19.0/md5.min.js",
    r"/bootstrap@3\.1\.1/dist/js/bootstrap(\.min)?\.js": "bootstrap-3.1.1/bootstrap.min.js",
    r"/bootstrap@3\.1\.1/dist/css/bootstrap(\.min)?\.css": "bootstrap-3.1.1/bootstrap.min.css",
}

# What `update --quick` runs: by them the first page answers its two questions, in a minute a commit.
QUICK = r"^(shapes\.Step|ratios\.Epoch|startup\.Import)\b"

_TAG = re.compile(r"<[a-zA-Z][^<>]*>")
_EXTERNAL = re.compile(r"""\s(?:src|href)\s*=\s*(["'])\s*(?P<url>(?:https?:)?//[^"']*)\1""")
# Both only make sense for files from another site: a checksum of the file, and how to ask that site for it.
_CROSS_SITE = re.compile(r"""\s(?:integrity|crossorigin|referrerpolicy)\s*=\s*(["'])[^"']*\1""")


class DashboardError(Exception):
    """Something that the maintainer has to mend; the message says what."""


def local_page(html: str) -> str:
    """`html` with every script and style sheet from another site replaced by the file in assets/.

    Links that a reader would click lose their target, so that no address of another site is left in the page.
    Raises DashboardError where a page loads something that assets/ does not hold.
    """

    def local_tag(match: re.Match[str]) -> str:
        tag = match.group()
        external = _EXTERNAL.search(tag)
        if external is None:
            return tag
        if re.match(r"<a\s", tag):
            return tag.replace(external.group(), "")
        url = external["url"]
        for pattern, asset in REPLACEMENTS.items():
            if re.search(pattern + "$", url):
                return _CROSS_SITE.sub("", tag).replace(url, f"{ASSETS_IN_PAGES}/{asset}")
        raise DashboardError(
            f"asv's pages load {url}, and {ASSETS} holds nothing for it: "
            "add the file, its licence in LICENSES, and a line in REPLACEMENTS of dashboard.py"
        )

    return _TAG.sub(local_tag, html)


def make_local(html_dir: Path) -> None:
    """Put the assets beside the pages that `asv publish` wrote into `html_dir`, and rewrite the pages."""
    pages = sorted(html_dir.rglob("*.html"))
    if not pages:
        raise DashboardError(f"{html_dir} holds no pages: run `asv publish` first")
    rewritten = {page: local_page(page.read_text(encoding="utf-8")) for page in pages}
    shutil.copytree(
        ASSETS, html_dir / ASSETS_IN_PAGES, ignore=shutil.ignore_patterns(".git*"), dirs_exist_ok=True
    )
    for page, html in rewritten.items():
        page.write_text(html, encoding="utf-8")


def put_summary_first(html_dir: Path, config: Path, machine: str | None = None) -> None:
    """Make summary.py's page index.html, and asv's benchmarks.html, with a link back."""
    index = html_dir / "index.html"
    grid = '<li id="nav-li-" class="active">'
    asv_page = index.read_text(encoding="utf-8")
    if grid not in asv_page:
        raise DashboardError(
            "asv's index.html is another one than dashboard.py knows: where does the menu begin?"
        )
    back = f'<li><a href="index.html">Summary</a></li>\n\t{grid}'
    (html_dir / summary.BENCHMARKS_PAGE).write_text(asv_page.replace(grid, back), encoding="utf-8")
    record = PAGES / "comparison.json"
    compared = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None

    def unmeasured(history: History) -> int:
        return len(commits_of_main(config, f"{history.hashes[history.now]}.."))

    page = summary.page(histories(html_dir), compared, machine or own_machine(), unmeasured)
    index.write_text(page, encoding="utf-8")


def publish(config: Path, html_dir: Path, machine: str | None = None) -> None:
    """`asv publish` into `html_dir`, then make the pages independent of other sites."""
    if not config.is_file():
        raise DashboardError(f"no such configuration file: {config}")
    # asv deletes the folder with all that is in it
    if html_dir.exists() and any(html_dir.iterdir()) and not (html_dir / "asv.js").is_file():
        raise DashboardError(f"{html_dir} holds other files than a dashboard: choose another folder")
    command = [sys.executable, "-m", "asv", "publish", "--config", str(config), "--html-dir", str(html_dir)]
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        raise DashboardError(
            "`asv publish` failed. It needs asv (pip install 'fastbp[bench]') and results (asv run)."
        )
    make_local(html_dir)
    put_summary_first(html_dir, config, machine)


# ---- running what is new ---------------------------------------------------------------------------------


def settings_of(config: Path) -> dict[str, Any]:
    from asv.util import load_json

    if not config.is_file():
        raise DashboardError(f"no such configuration file: {config}")
    return dict(load_json(str(config), js_comments=True))


def commits_of_main(config: Path, after: str = "", last: int | None = None) -> list[str]:
    """Hashes of the branch that the configuration names, the newest first.

    after: "COMMIT..", for those since then only; last: of the last so many only.
    """
    settings = settings_of(config)
    repository = config.parent / settings["repo"]
    most = [] if last is None else [f"--max-count={last}"]
    command = ["git", "-C", str(repository), "rev-list", "--first-parent", *most]
    listed = subprocess.run(
        [*command, after + settings["branches"][0]], capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        raise DashboardError(f"git lists no commits: {listed.stderr.strip()}")
    return listed.stdout.split()


def new_commits(config: Path, machine: str, last: int) -> list[str]:
    """Of the last so many commits of the branch, those without results of this machine; the oldest first."""
    listed = commits_of_main(config, last=last)
    results = config.parent / settings_of(config)["results_dir"] / machine
    measured = {path.name.split("-")[0] for path in results.glob("*-*.json")}
    return [name for name in reversed(listed) if name[:8] not in measured]


def own_machine() -> str:
    """The name under which asv keeps this machine's results, unless it is told another one."""
    from asv.machine import Machine

    return str(Machine.get_unique_machine_name())


def asv(config: Path, *words: str) -> None:
    command = [sys.executable, "-m", "asv", *words, "--config", str(config)]
    done = subprocess.run(command, cwd=config.parent, check=False)
    # 2: some benchmark failed, which its curve will show
    if done.returncode not in (0, 2):
        raise DashboardError(f"`asv {words[0]}` ended with {done.returncode} (pip install 'fastbp[bench]')")


def update(config: Path, machine: str | None, last: int, quick: bool) -> None:
    """Measure the new commits."""
    from asv.machine import Machine, MachineCollection

    machine = machine or own_machine()
    commits = new_commits(config, machine, last)
    print(f"{len(commits)} of the last {last} commits are new to {machine}", flush=True)
    if not commits:
        return
    # `asv machine --yes` with a name of ours would keep nothing but the name.
    MachineCollection.save(machine, {**Machine.get_defaults(), "machine": machine})
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as hashes:
        hashes.write("\n".join(commits) + "\n")
        hashes.flush()
        only = ["--bench", QUICK] if quick else []
        asv(config, "run", f"HASHFILE:{hashes.name}", "--machine", machine, *only)


class Handler(SimpleHTTPRequestHandler):
    """Serves files, and stays silent: a page of graphs makes hundreds of requests."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def server(html_dir: Path, port: int) -> ThreadingHTTPServer:
    """A server of the pages for this machine only; port 0 takes any free one."""
    handler = functools.partial(Handler, directory=str(html_dir))
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise DashboardError(f"cannot serve on port {port}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Publish asv's dashboard so that it needs no internet.")
    parser.add_argument(
        "action",
        nargs="?",
        choices=["publish", "update"],
        default="publish",
        help="update: measure new commits of main first",
    )
    parser.add_argument("--machine", help="the name of this machine (default: asv's, that of the host)")
    parser.add_argument(
        "--last",
        type=int,
        default=10,
        metavar="N",
        help="update: look at the last N commits only (default: %(default)s)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="update: only what the first page needs, a minute or two a commit, instead of everything",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=ASV / "asv.conf.json",
        help="asv's configuration (default: %(default)s)",
    )
    parser.add_argument(
        "--html-dir",
        type=Path,
        default=ASV / ".asv" / "html",
        help="folder for the pages, emptied first (default: %(default)s)",
    )
    parser.add_argument("--serve", action="store_true", help="serve the pages until Ctrl-C")
    parser.add_argument("--port", type=int, default=8080, help="port for --serve (default: %(default)s)")
    options = parser.parse_args(arguments)
    html_dir = options.html_dir.resolve()
    try:
        if options.action == "update":
            update(options.config.resolve(), options.machine, options.last, options.quick)
        publish(options.config.resolve(), html_dir, options.machine)
        print(f"pages: {html_dir}")
        if options.serve:
            with server(html_dir, options.port) as serving:
                print(f"serving on http://localhost:{serving.server_port}/ (Ctrl-C ends it)", flush=True)
                serving.serve_forever()
    except DashboardError as error:
        print(f"dashboard: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
