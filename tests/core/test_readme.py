"""What the README shows has to work."""

import re
from pathlib import Path

from mobclip_core.profile import load_profile

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_the_example_profile_is_valid(tmp_path):
    block = re.search(r"```yaml\n(name: my_country.*?)```", README, re.DOTALL)
    assert block is not None
    path = tmp_path / "my_country.yaml"
    path.write_text(block.group(1))
    profile = load_profile(str(path))
    assert profile.regions.region_keys == ["north", "south"]
    assert profile.regions.file == str(tmp_path / "provinces.gpkg")


def test_the_profile_from_open_data_is_valid(tmp_path):
    block = re.search(r"```yaml\n(name: spain.*?)```", README, re.DOTALL)
    assert block is not None
    path = tmp_path / "spain.yaml"
    path.write_text(block.group(1))
    profile = load_profile(str(path))
    assert profile.poi.points["osm"].file == str(tmp_path / "open_data" / "spain-latest.osm.pbf")
    assert profile.mobility.sources["trips"].kind == "mitma"


def test_files_and_folders_that_it_names_exist():
    root = Path(__file__).resolve().parents[2]
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert len(pictures) >= 3
    assert [name for name in pictures if not (root / name).is_file()] == []
    assert [name for name in ("mobclip_core", "mobclip_assets", "sql", "tests") if not (root / name).is_dir()] == []
