"""Imports run one way, and light things stay light."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "collapse_lab"

# From the ground up: a module imports from the floors below its own.
CORE = [
    [
        "errors",
        "geometry.cloud",
        "losses",
        "optimizers",
        "collective",
        "paper",
        "recipes",
        "environment",
        "interrupts",
        "lifetime",
    ],
    ["geometry.spectra", "geometry.predictor", "directpred", "batchnorm", "snapshots", "launch", "style", "decoding"],
    ["geometry.pairs"],
    ["geometry"],
    ["monitors.gathered", "monitors.alarm", "monitors.bounds"],
    ["monitors.statistics", "monitors.verdict"],
    ["sections", "whole"],
    ["conflicts"],
    ["settings"],
    ["machine", "config", "records", "draws", "monitors.tap", "monitors.probes", "monitors.history"],
    ["monitors.recorder", "monitors.schedules", "run_records", "image_files"],
    ["monitors.distributed"],
    ["monitors.watch", "presets", "methods", "sources", "view_parameters", "colour"],
    ["monitors.sinks", "parts", "resume"],
    ["monitors.lightning", "monitors.huggingface"],
    ["contrast", "targets"],
    ["monitors", "data", "resample", "networks", "heads", "plots", "tables", "flags", "study"],
    ["heatmap", "study_tables", "study_plots", "evaluation_flags", "runs"],
    ["augment", "objective", "compiled", "answers"],
    ["evaluate", "arrays", "evidence", "optimisation", "collapse_time", "preflight", "self_diagnosis"],
    ["starts", "expectation", "feeds"],
    ["trainer", "weights", "report", "paired", "augmentation_loss", "features", "transfer"],
    ["workers", "network_measures", "restored", "supervised"],
    ["classified"],
    ["evaluation"],
    ["feature_choice", "evaluation_table"],
    ["summary", "checkpoints", "recorded"],
    ["grid", "measured"],
    ["plan"],
    ["studies"],
    ["diagnose"],
    ["display"],
    ["cluster"],
]
TOY = [
    ["toy"],
    ["toy.rule"],
    ["toy.flow", "toy.modes", "toy.closed", "toy.siamese"],
    ["toy.scalar", "toy.descent", "toy.linear", "toy.cosine", "toy.alternation", "toy.separatrix"],
    ["toy.fate", "toy.spectra", "toy.memory", "toy.report", "toy.draw_linear"],
    ["toy.follow", "toy.draw_deep", "toy.deep"],
    ["toy.basin", "toy.reports_deep", "toy.reports_linear", "toy.reports_alternation", "toy.reports_cosine"],
    ["toy.draw"],
    ["toy.reports"],
    ["toy.commands"],
]
FLOORS = [*CORE, *TOY, ["cli"], ["__main__"]]


def name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Modules of the package that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("collapse_lab"):
            base = node.module.removeprefix("collapse_lab").removeprefix(".")
            for alias in node.names:
                longer = f"{base}.{alias.name}".removeprefix(".")
                is_module = (PACKAGE / Path(*longer.split("."))).with_suffix(".py").exists()
                found.add(longer if is_module or not base else base)
    return {module for module in found if module and module != "__version__"}


MODULES = {name(path): imports(path) for path in PACKAGE.rglob("*.py") if name(path)}


def test_imports_run_one_way():
    floor = {module: number for number, modules in enumerate(FLOORS) for module in modules}
    assert set(MODULES) - set(floor) == set()
    wrong = [(a, b) for a, used in MODULES.items() for b in used if a != "monitors" and floor[b] >= floor[a]]
    assert wrong == []


def test_monitors_know_nothing_of_the_trainer():
    used = set().union(*(used for module, used in MODULES.items() if module.startswith("monitors")))
    assert all(module == "geometry" or module.startswith("monitors") for module in used)


def test_light_things_do_not_load_torch():
    code = (
        "import sys, collapse_lab, collapse_lab.plots, collapse_lab.records, collapse_lab.cli, collapse_lab.tables\n"
        "import collapse_lab.study, collapse_lab.paper, collapse_lab.collapse_time\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
