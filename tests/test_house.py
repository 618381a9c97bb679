"""The house stays one that can be lived in: no long modules, no endless functions, a short first page."""

import house

# Compiled entries: arrays that come one by one are known by their types in 50 ns each; those in a tuple take
# longer than the step of a small network.
ENTRIES = "fastbp/engine/entries/two_layer.py"
README_LINES = 200


def test_modules_have_a_few_hundred_lines_at_most():
    assert house.long_modules(house.modules()) == []


def test_functions_fit_on_a_screen():
    assert house.long_functions(house.modules()) == []


def test_functions_have_no_more_parameters_than_one_can_keep_in_mind():
    wide = house.wide_functions(house.modules())
    assert [found for found in wide if not found.startswith(ENTRIES)] == []


def test_folders_have_more_than_one_module_and_no_more_than_one_can_look_through():
    assert house.folders(house.modules()) == []


def test_the_formatter_is_hardly_ever_told_to_look_away():
    assert house.format_skips(house.modules()) == []


def test_one_configuration_of_ruff():
    packages = {path.parent for path in house.modules()} | {house.ROOT}
    assert [folder for folder in packages if (folder / "ruff.toml").exists()] == []


def test_the_first_page_is_short():
    assert len((house.ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < README_LINES


def test_what_is_too_much_is_noticed(tmp_path, monkeypatch):
    """Each measure, on a module that goes beyond it by one."""
    monkeypatch.setattr(house, "ROOT", tmp_path)
    folder = tmp_path / "fastbp" / "part"
    folder.mkdir(parents=True)
    path = folder / "module.py"
    parameters = ", ".join(f"p{i}" for i in range(house.PARAMETERS + 1))
    skip = "# fmt: " + "skip"
    body = ['    """Not counted."""', *["    pass"] * house.FUNCTION_LINES]
    lines = [f"def f({parameters}):", *body, *[f"x = 1  {skip}"] * (house.FORMAT_SKIPS + 1)]
    lines += [""] * (house.MODULE_LINES + 1 - len(lines))
    path.write_text("\n".join(lines) + "\n")
    found = house.modules(["fastbp"])
    assert [len(measure(found)) for measure in house.MEASURES] == [1, 1, 1, 1, house.FORMAT_SKIPS + 1]
    path.write_text("\n".join(["def f(self, a):", *body[:-1]]) + "\n")
    (folder / "other.py").write_text("")
    assert [measure(house.modules(["fastbp"])) for measure in house.MEASURES] == [[]] * 5
