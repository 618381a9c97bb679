"""tools/dashboard.py: the published pages load nothing from another site."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path

import dashboard
import pytest
from browser import asked_of_other_sites, start

COMMAND = Path(__file__).parents[2] / "asv_benchmarks" / "tools" / "dashboard.py"
ASSETS = COMMAND.parents[1] / "assets"


PAGE = """<html><head>
<script src="https://cdn.example/jquery-3.3.1.min.js" integrity="sha256-x" crossorigin="anonymous"></script>
<link rel="stylesheet" href='//cdn.example/bootstrap@3.1.1/dist/css/bootstrap.min.css' integrity="sha256-y">
<script src="asv.js"></script>
</head><body><a href="https://example.org/asv" class="navbar-link">asv</a> <a href="#/">grid</a></body></html>
"""


def external(html: str) -> list[str]:
    return re.findall(r"""(?:src|href|url|action)\s*[=(]\s*["']?\s*((?:https?:)?//[^"'\s>]+)""", html)


def test_local_page() -> None:
    assert len(external(PAGE)) == 3
    html = dashboard.local_page(PAGE)
    assert external(html) == []
    assert '<script src="assets/jquery-3.3.1/jquery.min.js"></script>' in html
    assert "<link rel=\"stylesheet\" href='assets/bootstrap-3.1.1/bootstrap.min.css'>" in html
    assert '<script src="asv.js"></script>' in html
    assert '<a class="navbar-link">asv</a> <a href="#/">grid</a>' in html


@pytest.mark.parametrize("name", ["jquery-3.4.0.min.js", "flot/0.8.3/jquery.flot.pie.min.js", "react.js"])
def test_an_unknown_file_stops_the_command(name: str) -> None:
    with pytest.raises(dashboard.DashboardError, match=f"asv's pages load https://cdn.example/{name}"):
        dashboard.local_page(f'<script src="https://cdn.example/{name}"></script>')


def test_every_asset_is_used_and_has_its_licence_stated() -> None:
    files = {str(path.relative_to(ASSETS)) for path in ASSETS.glob("*/*")}
    assert files == set(dashboard.REPLACEMENTS.values())
    licences = (ASSETS / "LICENSES").read_text(encoding="utf-8")
    for file in files:
        package, _, version = file.split("/")[0].rpartition("-")
        assert f"npm package: {package} {version}\n" in licences
        assert file in licences


def test_a_folder_with_other_files_is_not_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert dashboard.main(["--html-dir", str(tmp_path)]) == 2
    assert "holds other files than a dashboard" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_missing_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dashboard.main(["--config", str(tmp_path / "no.json"), "--html-dir", str(tmp_path / "html")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dashboard: no such configuration file") and error.count("\n") == 1


def run(*command: str, cwd: Path, home: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(home),  # asv keeps what it knows of the machine there
        **{f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of three commits with asv results: one plain benchmark, one with parameters."""
    pytest.importorskip("asv")
    if shutil.which("git") is None:
        pytest.skip("asv reads the repository with git")
    root = tmp_path_factory.mktemp("repository")
    home = tmp_path_factory.mktemp("home")
    benchmarks = root / "benchmarks"
    benchmarks.mkdir()
    (benchmarks / "__init__.py").touch()
    asv_configuration = {
        "version": 1,
        "project": "synthetic",
        "repo": ".",
        "branches": ["main"],
        "environment_type": "existing",
        "results_dir": "results",
        "html_dir": "html",
    }
    (root / "asv.conf.json").write_text(json.dumps(asv_configuration))
    run("git", "init", "-q", "-b", "main", cwd=root, home=home)
    asv = (sys.executable, "-m", "asv")
    run(*asv, "machine", "--yes", "--machine", "synthetic", cwd=root, home=home)
    # asv takes a benchmark whose code has changed for a new one, so what varies stands in another file.
    (benchmarks / "bench.py").write_text(
        "from pathlib import Path\n\n"
        "def track_plain():\n    return int(Path(__file__).parents[1].joinpath('value.txt').read_text())\n\n"
        "def track_shapes(shape, dtype):\n    return track_plain() * len(shape)\n\n"
        "track_shapes.params = [['2-8-1', '784-256-10'], ['float32', 'float64']]\n"
        "track_shapes.param_names = ['shape', 'dtype']\n"
    )
    for value in (3, 2, 5):
        (root / "value.txt").write_text(str(value))
        run("git", "add", "value.txt", cwd=root, home=home)
        run("git", "commit", "-q", "-m", f"value {value}", cwd=root, home=home)
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        run(
            *(*asv, "run", "--python=same", "--machine", "synthetic", "--set-commit-hash", commit),
            cwd=root,
            home=home,
        )
    return root / "asv.conf.json"


@pytest.fixture(scope="module")
def pages(configuration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    html_dir = tmp_path_factory.mktemp("published") / "html"
    assert dashboard.main(["--config", str(configuration), "--html-dir", str(html_dir)]) == 0
    return html_dir


def test_published_pages_load_only_what_lies_beside_them(pages: Path) -> None:
    html_files = sorted(pages.rglob("*.html"))
    assert pages / "index.html" in html_files
    for path in [*html_files, *pages.rglob("*.css")]:
        assert external(path.read_text(encoding="utf-8")) == [], path
    index = (pages / "benchmarks.html").read_text(encoding="utf-8")
    assert '<li><a href="index.html">Summary</a></li>' in index
    loaded = re.findall(r"""<(?:script|link|img)\b[^>]*?\s(?:src|href)=["']([^"']+)""", index)
    assert sum(name.startswith("assets/") for name in loaded) == len(dashboard.REPLACEMENTS)
    for name in loaded:
        assert (pages / name).is_file(), name
    assert (pages / "assets" / "LICENSES").is_file()


def test_published_pages_hold_the_results(pages: Path) -> None:
    index = json.loads((pages / "index.json").read_text())
    assert set(index["benchmarks"]) == {"bench.track_plain", "bench.track_shapes"}
    (graph,) = pages.rglob("graphs/branch-main/**/bench.track_plain.json")
    assert [value for _, value in json.loads(graph.read_text())] == [3, 2, 5]


def test_publishing_again_replaces_the_pages(configuration: Path, pages: Path) -> None:
    (pages / "stale.json").write_text("{}")
    assert dashboard.main(["--config", str(configuration), "--html-dir", str(pages)]) == 0
    assert not (pages / "stale.json").exists()
    assert external((pages / "index.html").read_text(encoding="utf-8")) == []


def test_assets_are_the_files_that_asv_names() -> None:
    """asv's own page states a checksum of each file; those that we hold under the same name must have it."""
    asv = pytest.importorskip("asv")
    page = (Path(asv.__file__).parent / "www" / "index.html").read_text(encoding="utf-8")
    stated = re.findall(r"""(?:src|href)="https?:/(/[^"]+)" integrity="(sha\d+)-([^"]+)""", page)
    same = set()
    for url, algorithm, checksum in stated:
        (file,) = [file for pattern, file in dashboard.REPLACEMENTS.items() if re.search(pattern + "$", url)]
        if hashlib.new(algorithm, (ASSETS / file).read_bytes()).digest() == base64.b64decode(checksum):
            same.add(file.split("/")[0])
    # Flot's package is not minified, and stupidtable's has another version than asv names.
    assert same == {"jquery-3.3.1", "flot-orderbars-1.0.0", "blueimp-md5-2.19.0", "bootstrap-3.1.1"}


# ---- running what is new ---------------------------------------------------------------------------------


def test_new_commits_are_those_without_results(configuration: Path, tmp_path: Path) -> None:
    git = ["git", "-C", str(configuration.parent), "rev-list", "--reverse", "HEAD"]
    commits = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split()
    assert dashboard.new_commits(configuration, "synthetic", 10) == []
    assert dashboard.new_commits(configuration, "another", 10) == commits  # the oldest first
    assert dashboard.new_commits(configuration, "another", 2) == commits[1:]
    with pytest.raises(dashboard.DashboardError, match="no such configuration file"):
        dashboard.new_commits(tmp_path / "asv.conf.json", "synthetic", 10)


def test_commits_after_the_newest_measured_one_are_counted(configuration: Path) -> None:
    oldest = dashboard.commits_of_main(configuration)[-1]
    assert len(dashboard.commits_of_main(configuration, f"{oldest}..")) == 2
    with pytest.raises(dashboard.DashboardError, match="git lists no commits"):
        dashboard.commits_of_main(configuration, f"{'0' * 40}..")


def test_the_first_page_begins_with_this_machine(configuration: Path, tmp_path: Path) -> None:
    html_dir = tmp_path / "html"
    words = ["--config", str(configuration), "--html-dir", str(html_dir), "--machine"]
    assert dashboard.main([*words, "synthetic"]) == 0
    assert "<h2>synthetic (this machine)</h2>" in (html_dir / "index.html").read_text(encoding="utf-8")
    assert dashboard.main([*words, "another"]) == 0
    assert "This machine (another) has no results yet" in (html_dir / "index.html").read_text(
        encoding="utf-8"
    )


def test_regressions_are_not_sought_where_more_is_better() -> None:
    """asv takes an increase for a regression, whatever the benchmark measures."""
    discovery = pytest.importorskip("asv_runner.discovery")
    folder = COMMAND.parents[1]
    settings = dashboard.settings_of(folder / "asv.conf.json")
    left_out = [name for name, first in settings["regressions_first_commits"].items() if first is None]
    for found in discovery.disc_benchmarks(str(folder / "benchmarks")):
        more = "more is better" in (found.pretty_name or "")
        assert more == any(re.match(pattern, found.name) for pattern in left_out), found.name


def test_update_runs_asv_for_the_new_commits_only(
    configuration: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where asv keeps what it knows of machines
    asked: list[tuple[str, ...]] = []

    def asv(config: Path, *words: str) -> None:
        if words[1].startswith("HASHFILE:"):
            words = (*words, Path(words[1].removeprefix("HASHFILE:")).read_text())
        asked.append(words)

    monkeypatch.setattr(dashboard, "asv", asv)
    dashboard.update(configuration, "synthetic", 10, quick=False)
    assert asked == [] and "0 of the last 10 commits are new to synthetic" in capsys.readouterr().out
    dashboard.update(configuration, "another", 2, quick=True)
    ((*words, commits),) = asked
    assert words[2:] == ["--machine", "another", "--bench", dashboard.QUICK]
    assert commits.split() == dashboard.new_commits(configuration, "another", 2)
    known = json.loads((tmp_path / ".asv-machine.json").read_text())["another"]
    assert known["machine"] == "another" and {"cpu", "num_cpu", "os", "ram"} <= set(known)


def test_what_update_runs_quickly_exists_and_is_what_the_first_page_shows() -> None:
    for name in (dashboard.summary.NUMPY, dashboard.summary.STEP):
        assert re.search(dashboard.QUICK, name)
        module, cls, method = name.split(".")
        source = (COMMAND.parents[1] / "benchmarks" / f"{module}.py").read_text(encoding="utf-8")
        assert f"class {cls}(" in source and f"def {method}(" in source


def test_server_serves_the_pages(pages: Path, running: list[ThreadingHTTPServer]) -> None:
    port = start(dashboard.server(pages, 0), running)
    with urllib.request.urlopen(f"http://localhost:{port}/index.json", timeout=10) as answer:
        assert json.load(answer)["project"] == "synthetic"
    with pytest.raises(dashboard.DashboardError, match=f"cannot serve on port {port}"):
        dashboard.server(pages, port)


@pytest.mark.slow
def test_browser_draws_graphs_without_internet(
    pages: Path, running: list[ThreadingHTTPServer], render: Callable[[str], str]
) -> None:
    site = f"http://localhost:{start(dashboard.server(pages, 0), running)}"
    assert "How fast is main?" in render(f"{site}/")
    grid = render(f"{site}/benchmarks.html")
    assert "bench.track_plain" in grid and "continental origin of swallow" not in grid
    # An address of asv's pages, as in its feed, leads there.
    graph = render(f"{site}/#bench.track_shapes?p-shape='784-256-10'")
    assert errors_of(graph) == []
    main_graph = graph[graph.index('id="main-graph"') :]
    assert '<canvas class="flot-base"' in main_graph and "flot-tick-label" in main_graph
    assert asked_of_other_sites() == []


# Loads an address in a frame, and counts the coloured pixels of each graph that is shown there.
PROBE = """<body><iframe width="1200" height="900"></iframe><script>
const frame = document.querySelector("iframe");
frame.src = location.hash.slice(1);
setTimeout(() => {
    const all = [...frame.contentDocument.querySelectorAll("canvas.flot-base")];
    const canvases = all.filter((canvas) => canvas.offsetParent);
    const counts = canvases.map((canvas) => {
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let coloured = 0;
        for (let i = 0; i < pixels.length; i += 4) {
            const [r, g, b, a] = pixels.slice(i, i + 4);
            coloured += a > 100 && Math.max(r, g, b) - Math.min(r, g, b) > 60;
        }
        return coloured;
    });
    document.body.dataset.coloured = JSON.stringify(counts);
}, 5000);
</script></body>"""


def errors_of(page: str) -> list[str]:
    words = ("failed to load", "could not load", "continental origin of swallow", "javascript error")
    visible = re.sub(r"<script.*?</script>|<[^>]*>", " ", page, flags=re.DOTALL).lower()
    return [word for word in words if word in visible]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "graphs"),
    [
        ("benchmarks.html#/", 2),
        ("benchmarks.html#bench.track_plain", 2),  # the graph, and an overview of all commits
        ("benchmarks.html#bench.track_shapes", 2),
    ],
)
def test_browser_draws_coloured_lines(
    pages: Path,
    running: list[ThreadingHTTPServer],
    render: Callable[[str], str],
    address: str,
    graphs: int,
) -> None:
    (pages / "probe.html").write_text(PROBE)
    site = f"http://localhost:{start(dashboard.server(pages, 0), running)}"
    (counts,) = re.findall(r'data-coloured="\[([\d,]*)\]"', render(f"{site}/probe.html#/{address}"))
    coloured = [int(count) for count in counts.split(",")]
    assert len(coloured) == graphs and min(coloured) > 50
    assert asked_of_other_sites() == []


@pytest.mark.slow
def test_browser_test_notices_other_sites(
    tmp_path: Path, running: list[ThreadingHTTPServer], render: Callable[[str], str]
) -> None:
    (tmp_path / "site").mkdir()
    library = '<script src="https://ajax.googleapis.com/jquery.js"></script>'
    (tmp_path / "site" / "index.html").write_text(PAGE + library)
    render(f"http://localhost:{start(dashboard.server(tmp_path / 'site', 0), running)}/")
    assert {"cdn.example:443", "ajax.googleapis.com:443"} <= set(asked_of_other_sites())
