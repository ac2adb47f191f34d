"""What can be combined, by name: read-only tables of solvers, editors, models, metrics and case sets.

A built-in is a "module:Attribute" string that is imported on first use; a plug-in is an entry point of the group
`fe.solvers`, `fe.editors`, `fe.models`, `fe.metrics` or `fe.cases` in any installed package. Standard library only, so that
listing names costs nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points


class RegistryError(LookupError):
    """A name that cannot be resolved, or a plug-in that cannot be used; the message is one sentence for the user."""


@dataclass(frozen=True)
class Table(Mapping[str, type]):
    """Names to classes of one kind, loaded one by one on first use. `base` is the class every entry must extend."""

    kind: str  # singular noun for messages: "solver"
    group: str  # entry-point group: "fe.solvers"
    base: str  # "module:Class", relative to this package
    builtin: Mapping[str, str]
    _loaded: dict[str, type] = field(default_factory=dict, repr=False, compare=False)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self.builtin, *self._plugins()}))

    def __len__(self) -> int:
        return len(set(self))

    def __contains__(self, name: object) -> bool:
        return name in self.builtin or name in self._plugins()

    def __getitem__(self, name: str) -> type:
        """The class called `name`. Raises RegistryError (a LookupError) with near names, or with the plug-in's fault."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def origin(self, name: str) -> str:
        """Where `name` comes from: "built in", or the distribution that brings it."""
        if name in self.builtin:
            return "built in"
        distribution = self._plugin(name).dist
        return distribution.name if distribution is not None else "plug-in"

    def suggest(self, name: str) -> str:
        """One sentence that says `name` is not known and which names are near."""
        near = difflib.get_close_matches(name, list(self), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self)}"
        return f"unknown {self.kind} {name!r}; {hint}"

    def _plugins(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=self.group):
            found.setdefault(entry.name, []).append(entry)
        return found

    def _plugin(self, name: str) -> EntryPoint:
        entries = self._plugins().get(name, [])
        if not entries:
            raise RegistryError(self.suggest(name))
        if len({entry.value for entry in entries}) > 1:
            owners = " and ".join(sorted(_owner(entry) for entry in entries))
            raise RegistryError(f"{self.kind} {name!r} is claimed by two plug-ins: {owners}; uninstall one of them")
        return entries[0]

    def _load(self, name: str) -> type:
        base = _resolve(self.base, __package__)
        if name in self.builtin:
            if name in self._plugins():
                owners = ", ".join(_owner(entry) for entry in self._plugins()[name])
                raise RegistryError(f"{self.kind} {name!r} is built in and cannot be replaced by {owners}; rename the plug-in")
            return _resolve(self.builtin[name], __package__)
        entry = self._plugin(name)
        try:
            loaded = entry.load()
        except Exception as fault:  # a plug-in may fail in any way; the rest must go on
            raise RegistryError(f"{self.kind} {name!r} of {_owner(entry)} failed to import: {fault!r}") from fault
        if not (isinstance(loaded, type) and issubclass(loaded, base)):
            raise RegistryError(
                f"{self.kind} {name!r} of {_owner(entry)} is {loaded!r}, which does not extend "
                f"{base.__module__}.{base.__name__}"
            )
        missing = ", ".join(sorted(getattr(loaded, "__abstractmethods__", ())))
        if missing:
            raise RegistryError(f"{self.kind} {name!r} of {_owner(entry)} is not complete: it does not define {missing}")
        return loaded


def _owner(entry: EntryPoint) -> str:
    return f"{entry.dist.name} ({entry.value})" if entry.dist is not None else entry.value


def _resolve(target: str, package: str) -> type:
    module, _, attribute = target.partition(":")
    loaded: type = getattr(import_module(f".{module}", package), attribute)
    return loaded


SOLVERS = Table(
    "solver",
    "fe.solvers",
    "solvers.base:Solver",
    {
        "euler": "solvers.euler:Euler",
        "midpoint": "solvers.midpoint:Midpoint",
        "heun": "solvers.heun:Heun",
        "rk4": "solvers.rk4:RungeKutta4",
        "rf-solver": "solvers.rf_solver:RFSolver",
        "fireflow": "solvers.fireflow:FireFlow",
        "ab2": "solvers.ab2:AdamsBashforth2",
        "uni-inv": "solvers.uni_inv:UniInv",
        "alf": "solvers.alf:AsynchronousLeapfrog",
        "reversible-heun": "solvers.reversible_heun:ReversibleHeun",
        "fixed-point": "solvers.fixed_point:FixedPoint",
    },
)
EDITORS = Table(
    "editor",
    "fe.editors",
    "editors.base:Editor",
    {
        "inversion": "editors.inversion:Inversion",
        "injection": "editors.injection:Injection",
        "flowedit": "editors.flowedit:FlowEdit",
        "sdedit": "editors.sdedit:SDEdit",
        "rf-inversion": "editors.rf_inversion:RFInversion",
        "uni-edit": "editors.uni_edit:UniEdit",
        "steerflow": "editors.steerflow:SteerFlow",
        "direct-edit": "editors.direct_edit:DirectEdit",
        "flowalign": "editors.flowalign:FlowAlign",
        "dnaedit": "editors.dnaedit:DNAEdit",
        "ftedit": "editors.ftedit:FTEdit",
        "dvrf": "editors.dvrf:DVRF",
        "perturbation": "editors.perturbation:Perturbation",
        "no-edit": "editors.controls:NoEdit",
        "from-noise": "editors.controls:FromNoise",
    },
)
MODELS = Table(
    "model",
    "fe.models",
    "models.base:Loader",
    {
        "mixture": "models.mixture:MixtureLoader",
        "scenes": "models.scenes:ScenesLoader",
        "flux": "models.flux:FluxLoader",
        "flux-dev": "models.flux:FluxDevLoader",
        "flux-schnell": "models.flux:FluxSchnellLoader",
        "flux-krea": "models.flux:FluxKreaLoader",
        "sd3": "models.sd3:SD3Loader",
        "sd3-medium": "models.sd3:SD3MediumLoader",
        "sd3.5-medium": "models.sd3:SD35MediumLoader",
        "sd3.5-large": "models.sd3:SD35LargeLoader",
        "instaflow": "models.instaflow:InstaFlowLoader",
        "2rf": "models.instaflow:RectifiedFlow2Loader",
        "sd15": "models.instaflow:SD15Loader",
        "diffusers": "models.driven:DiffusersLoader",
    },
)
METRICS = Table(
    "metric",
    "fe.metrics",
    "metrics.base:Score",
    {
        "rmse": "metrics.pixels:RMSE",
        "psnr": "metrics.pixels:PSNR",
        "ssim": "metrics.pixels:SSIM",
        "source-ssim": "metrics.pixels:SourceSSIM",
        "source-psnr": "metrics.pixels:SourcePSNR",
        "mse": "metrics.pixels:MSE",
        "ms-ssim": "metrics.pixels:MultiScaleSSIM",
        "latent-mse": "metrics.pixels:LatentMSE",
        "latent-cost": "metrics.pixels:LatentCost",
        "lpips": "metrics.perceptual:LPIPS",
        "dreamsim": "metrics.perceptual:DreamSim",
        "background-psnr": "metrics.background:BackgroundPSNR",
        "background-mse": "metrics.background:BackgroundMSE",
        "background-ssim": "metrics.background:BackgroundSSIM",
        "background-lpips": "metrics.background:BackgroundLPIPS",
        "straightness": "metrics.path:Straightness",
        "error-growth": "metrics.path:ErrorGrowth",
        "truth-psnr": "metrics.scenes:TruthPSNR",
        "changed": "metrics.scenes:Changed",
        "kept": "metrics.scenes:Kept",
        "all-right": "metrics.scenes:AllRight",
        "judge-frechet": "metrics.scenes_sets:JudgeFrechet",
        "fid": "metrics.inception:FID",
        "kid": "metrics.inception:KID",
        "transport-cost": "metrics.mixture:TransportCost",
        "wrong-mode": "metrics.mixture:WrongMode",
        "mode-distance": "metrics.mixture:ModeDistance",
        "clip-t": "metrics.clip:ClipT",
        "clip-i": "metrics.clip:ClipI",
        "dino": "metrics.dino:Dino",
        "structure-distance": "metrics.structure:StructureDistance",
        "pie-structure": "metrics.pie_bench:PieStructure",
        "pie-psnr": "metrics.pie_bench:PiePSNR",
        "pie-lpips": "metrics.pie_bench:PieLPIPS",
        "pie-mse": "metrics.pie_bench:PieMSE",
        "pie-ssim": "metrics.pie_bench:PieSSIM",
        "pie-clip-whole": "metrics.pie_bench:PieClipWhole",
        "pie-clip-edited": "metrics.pie_bench:PieClipEdited",
        "pie-clip-source": "metrics.pie_bench:PieClipSource",
    },
)
CASES = Table(
    "case set",
    "fe.cases",
    "cases.base:CaseSet",
    {
        "scenes": "cases.scenes:ScenesCases",
        "mixture": "cases.mixture:MixtureCases",
        "folder": "cases.folder:FolderCases",
        "pie-bench": "cases.pie_bench:PieBenchCases",
        "flowedit": "cases.flowedit:FlowEditCases",
    },
)
