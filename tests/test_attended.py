"""A model that is attended as it works: where the seconds of a run go."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from fe.experiments.attended import Attended
from fe.experiments.bench import Bench
from fe.experiments.cells import groups
from fe.experiments.compare import carry_out, open_folder, prepare
from fe.experiments.plan import Comparison
from fe.experiments.words import Method
from fe.models.base import Model
from fe.models.mixture import MixtureModel
from torch import Tensor

PLAN = Comparison(
    methods=(Method("flowedit", "euler"),),
    model="mixture",
    cases="mixture",
    count=8,
    steps=(6,),
    settings={"mixture": {"points": "20"}},
)
PREPARED = prepare(PLAN)


def test_a_run_writes_down_where_its_seconds_went(tmp_path: Path) -> None:
    with open_folder(PREPARED, tmp_path / "out", overwrite=False) as folder:
        carry_out(PREPARED, folder, lambda done, total, failed: None)
    (session,) = json.loads((tmp_path / "out" / "run.json").read_text())["sessions"]
    seconds = session["seconds"]
    network = sum(
        json.loads(line)["cost"]["network_seconds"] for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    )
    assert seconds["network"] == pytest.approx(network)
    inside = seconds["network"] + seconds["text"] + seconds["codec"]
    assert min(seconds["network"], seconds["text"], seconds["codec"]) > 0
    assert seconds["whole"] > inside
    assert seconds["overhead"] == pytest.approx(seconds["whole"] / inside - 1)


def test_codec_and_text_encoders_have_clocks_of_their_own() -> None:
    now = [0.0]

    class Slow(MixtureModel):  # type: ignore[misc]
        def encode(self, pictures: Tensor) -> Tensor:
            now[0] += 1.0
            return super().encode(pictures)  # type: ignore[no-any-return]

        def decode(self, latents: Tensor) -> Tensor:
            now[0] += 10.0
            return super().decode(latents)  # type: ignore[no-any-return]

        def condition(self, prompts: Any, guidance: float) -> Any:
            now[0] += 100.0
            return super().condition(prompts, guidance)

    at, first = Bench(Slow(), PREPARED.metrics), next(groups(PREPARED.cells, 8))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("fe.experiments.attended.time.perf_counter", lambda: now[0])
        at.edit(first)
    found = at.inside.of(422.0)
    assert (found["codec"], found["text"], found["network"]) == (11.0, 200.0, 0.0)
    assert found["overhead"] == 1.0


def test_an_attended_model_hands_on_whatever_a_model_has() -> None:
    """What is not handed on would be the base class's answer in place of the model's own."""
    names = {name for name, value in vars(Model).items() if not name.startswith("_") and not isinstance(value, bool | None)}
    attended = Attended(PREPARED.model)
    assert {"encode", "field", "usual_side", "start"} < names
    assert names - vars(Attended).keys() - vars(attended).keys() == set()
    assert all(inspect.isfunction(vars(Attended)[name]) or isinstance(vars(Attended)[name], property) for name in names)
