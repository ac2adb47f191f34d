"""Small sets in the formats of PIE-Bench and of FlowEdit's data, and networks of LPIPS with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

PIE_BENCH: dict[str, dict[str, Any]] = {
    "211000000000": {
        "image_path": "2_add_object_80/1_artificial/1_animal/211000000000.jpg",
        "original_prompt": "a dog in the grass",
        "editing_prompt": "a dog [with a hat] in the grass",
        "editing_instruction": "add a hat",
        "editing_type_id": "2",
        "blended_word": "",
        "mask": [51400, 100, 51912, 100],
    },
    "000000000000": {
        "image_path": "0_random_140/000000000000.jpg",
        "original_prompt": "a [red] circle",
        "editing_prompt": "a [blue] circle",
        "editing_instruction": "make the circle blue",
        "editing_type_id": "0",
        "blended_word": "circle circle",
        "mask": [number for row in range(100, 300) for number in (row * 512 + 200, 250)],
    },
    "111000000000": {
        "image_path": "1_change_object_80/1_artificial/1_animal/111000000000.jpg",
        "original_prompt": "a [cat] on a bench",
        "editing_prompt": "a [dog] on a bench",
        "editing_instruction": "turn the cat into a dog",
        "editing_type_id": "1",
        "blended_word": "cat dog",
        "mask": [0, 512 * 256],
    },
    "624000000003": {
        "image_path": "6_change_attribute_color_40/2_natural/4_outdoor/624000000003.jpg",
        "original_prompt": "a [white] bird",
        "editing_prompt": "a [green] bird",
        "editing_instruction": "change the bird's colour",
        "editing_type_id": "6",
        "blended_word": "bird bird",
        "mask": [512 * 511, 2000],
    },
    "911000000000": {
        "image_path": "9_change_style_80/1_artificial/1_animal/911000000000.jpg",
        "original_prompt": "a horse on a hill",
        "editing_prompt": "[a drawing of] a horse on a hill",
        "editing_instruction": "make it a drawing",
        "editing_type_id": "9",
        "blended_word": "",
        "mask": [0, 512 * 512],
    },
    "112000000001": {
        "image_path": "1_change_object_80/1_artificial/2_human/112000000001.jpg",
        "original_prompt": "a woman with [an apple] and a [cup]",
        "editing_prompt": "a woman with [a pear] and a [jug]",
        "editing_instruction": "other things",
        "editing_type_id": "1",
        "blended_word": "apple pear",
        "mask": [],
    },
}


@pytest.fixture
def pie_bench(tmp_path: Path) -> Path:
    """The folder of a small PIE-Bench as the real one is laid out: six pictures of one colour each, four kinds of edit and a
    fifth, a mask over everything ("911000000000"), one that runs over the end and one without runs; keys in no order."""
    folder = tmp_path / "PIE-Bench_v1"
    for number, entry in enumerate(PIE_BENCH.values()):
        picture = folder / "annotation_images" / entry["image_path"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (512, 512), (40 * number, 128, 255 - 40 * number)).save(picture)
    (folder / "mapping_file.json").write_text(json.dumps(PIE_BENCH), encoding="utf-8")
    return folder


FLOWEDIT = """\
-
    init_img:  flowedit_data/fox.png

    source_prompt: A red fox in deep snow.
        The fox looks at the camera''s owner.

    target_prompts:
     - A grey wolf in deep snow. The wolf looks at the camera''s owner.
     - A wooden sculpture of a red fox in deep snow.

    target_codes:
     - 1_wolf
     - 2_sculpture

-

    init_img : flowedit_data/coconut_out.png
    source_prompt: A shell filled with tea.

    target_prompts:
     - A cup filled with tea.

    target_codes:
     - 1_cup
-
      init_img:  flowedit_data/shop.png
      source_prompt: A shop with a sign that reads "OPEN" above its door.

      target_prompts:
       - A shop with a sign that reads "CLOSED" above its door.
       - A shop with a wooden door and a sign that reads "OPEN" above it.
       - A shop.

      target_codes:
       - 1_closed
       - 2_door
-
    init_img:  flowedit_data/meditation1.png
    source_prompt: A man on the ground.

    target_prompts:
     - An anime man on the ground.

    target_codes:
     - 1_anime
"""


@pytest.fixture
def flowedit_set(tmp_path: Path) -> Path:
    """The folder of a small data set as FlowEdit's authors publish theirs: a list with seven edits of four pictures, which
    looks for them under another folder's name, names two of them wrongly and has a code too few; and where they come from,
    with a name that is misspelt and an address that is missing."""
    folder = tmp_path / "Data"
    (folder / "Images").mkdir(parents=True)
    for number, name in enumerate(("fox", "coconut", "shop", "meditation2")):
        values = np.random.default_rng(number).integers(0, 256, (64, 64, 4), dtype=np.uint8)
        picture = Image.fromarray(values)  # its last channel is transparency, which only the coconut keeps
        (picture if name == "coconut" else picture.convert("RGB")).save(folder / "Images" / f"{name}.png")
    (folder / "flowedit.yaml").write_text(FLOWEDIT, encoding="utf-8")
    rows = ("name,url ,dataset", "fox,https://example.org/fox,", "cocount,,", "shop,https://example.org/shop,div2k")
    (folder / "dataset.csv").write_text("\n".join((*rows, "meditation2,https://example.org/man,", "")), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for torch.hub with random weights under the names of torchvision's: SqueezeNet whole, of AlexNet and VGG16 the
    convolutions that LPIPS stands on."""
    home = tmp_path_factory.mktemp("hub")
    (home / "checkpoints").mkdir()
    files = {"alexnet": "alexnet-owt-7be5be79", "vgg16": "vgg16-397923af", "squeezenet1_1": "squeezenet1_1-b8a52dc0"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        for name, file in files.items():
            weights = torchvision.models.get_model(name, weights=None).state_dict()
            kept = {key: value for key, value in weights.items() if key.startswith("features.") or name == "squeezenet1_1"}
            torch.save(kept, home / "checkpoints" / f"{file}.pth")
    return home


@pytest.fixture
def random_trunks(trunks: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub finds those random weights: LPIPS works, though its numbers mean nothing."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(trunks))
    return trunks
