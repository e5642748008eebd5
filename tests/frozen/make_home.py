"""Make ``home-0.1.0.tar.xz``: a home as version 0.1.0 left it, which every later version opens.

Run it with the code of 0.1.0 (commit 2e2f164 and its pinned packages), whose commands do all that
is in the home; nothing of it is written by hand. It was run once, and the archive is never made
again: a later version would freeze itself, not 0.1.0.

    git worktree add /tmp/hpsearch-code 2e2f164
    PYTHONPATH=/tmp/hpsearch-code python tests/frozen/make_home.py

What the home holds: a store of 24 points; search ``finished`` (completed, pruned, collapsed and
failed trials, a shared denoiser, version 1 of the registered model); its promotion,
``finished-promotion`` (version 2, the champion); search ``stopped``, the same as ``finished`` but
ended by Ctrl-C in the middle of trial 9. So ``finished`` says how ``stopped`` has to end. Beside
the archive stands ``expected-0.1.0.json``, with what 0.1.0 says of all this and of the space files
in ``spaces-0.1.0``, which are copies of those that came with it.

Left out, because nothing reads them and they would be most of the archive: pictures and pages, what
Ray Tune writes down for itself, and the checkpoints of trials that no command opens again.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import chdir
from pathlib import Path

import numpy as np
import torch
from machine import machine_digest, weights_digest

FOLDER = Path(__file__).parent
PLACE = Path("/tmp/hpsearch-0.1.0")
"""Where the home lay when it was made; its files hold this path, as 0.1.0 writes it."""
HOME = PLACE / "runs"
SEQUENCES = ("i_alpha", "i_beta", "i_gamma", "v_alpha", "v_beta", "v_gamma")
POINTS, VIEWS, SIDE = 4, 16, 32
CUT_IN, TRIALS = 9, 12
"""Number of the trial in which the search ``stopped`` is stopped, and of all trials."""
KEPT = ("finished/trials/006", "finished/trials/baseline", "stopped/trials/006",
        "stopped/trials/009", "finished-promotion/trials/001")  # fmt: skip
"""Checkpoints that later commands open: winners, and what is to be resumed."""
MODEL = "patch-descriptor"


def main() -> None:
    import hpsearch

    assert hpsearch.__version__ == "0.1.0", "give the code of 0.1.0 with PYTHONPATH"
    shutil.rmtree(PLACE, ignore_errors=True)
    HOME.mkdir(parents=True)
    shutil.copyfile(FOLDER / "space.py", PLACE / "space.py")
    write_patches(HOME / "data" / "points.arrow")
    run("search", *search_words("finished"))
    run("promote", "finished", "--top", 1, "--seeds", 2)
    stop_in_the_middle()
    with chdir(PLACE):
        expected = describe_home()
    strip()
    (FOLDER / "expected-0.1.0.json").write_text(json.dumps(expected, indent=1) + "\n")
    with tarfile.open(FOLDER / "home-0.1.0.tar.xz", "w:xz", preset=9) as archive:
        archive.add(HOME, "runs", filter=anonymous)
    shutil.rmtree(PLACE)


def search_words(name: str) -> tuple[object, ...]:
    words = (PLACE / "space.py", "--name", name, "--data", HOME / "data" / "points.arrow")
    return (*words, "--concurrent", 1, "--cpus", 1)


def run(*words: object) -> None:
    subprocess.run(command(words), check=True, env=environment(), cwd=PLACE)


def command(words: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "hpsearch", *map(str, words)]


def environment() -> dict[str, str]:
    own = {"HPSEARCH_HOME": str(HOME), "OMP_NUM_THREADS": "1", "USER": "me", "LOGNAME": "me"}
    return {**os.environ, **own, "HPSEARCH_COMMIT": "2e2f164"}


def write_patches(path: Path) -> None:
    """Smooth patches of few grey levels, and blocks of noise: they are packed well."""
    from hpsearch.data.layout import SequencePatches
    from hpsearch.data.meta import StoreMeta
    from hpsearch.data.store import write_store

    rng = np.random.default_rng(0)
    meta = StoreMeta(
        source="drawn for a test of hpsearch",
        licence="public domain",
        split="frozen",
        test=("i_gamma", "v_gamma"),
    )
    path.parent.mkdir(parents=True)
    write_store(path, (SequencePatches(name, *draw(rng)) for name in SEQUENCES), meta=meta)


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Each point a few blobs, each view of it moved a little."""
    clean = np.empty((POINTS, VIEWS, SIDE, SIDE), np.uint8)
    noise = np.empty((POINTS, VIEWS, SIDE, SIDE))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for point in range(POINTS):
        blobs = rng.uniform([4, 4, 3, -120], [28, 28, 7, 120], (5, 4))
        for view in range(VIEWS):
            dy, dx = rng.normal(0, 0.5 * (1 + (view - 1) // 5), 2) if view else (0, 0)
            picture = 128 + sum(
                height * np.exp(-((rows - y - dy) ** 2 + (columns - x - dx) ** 2) / w**2)
                for y, x, w, height in blobs
            )
            clean[point, view] = 16 * (np.clip(picture, 0, 255) // 16)
            noise[point, view] = np.kron(8 * rng.integers(-2, 3, (8, 8)), np.ones((4, 4)))
    return clean, np.clip(clean + noise, 0, 255).astype(np.uint8)


def stop_in_the_middle() -> None:
    """Begin a search and end it by Ctrl-C between two reports of a trial."""
    process = subprocess.Popen(
        command(("search", *search_words("stopped"))),
        env=environment(),
        cwd=PLACE,
        start_new_session=True,
    )
    log = HOME / "searches" / "stopped" / "ledger.jsonl"
    while process.poll() is None:
        lines = log.read_text().splitlines() if log.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("}")]
        if any(e["event"] == "start" and e["number"] == CUT_IN for e in events):
            break
        time.sleep(0.005)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    events = [json.loads(line) for line in log.read_text().splitlines()]
    ends = [(e["trial"], e["status"]) for e in events if e["event"] == "end"]
    assert ends[-1] == (f"{CUT_IN:03d}", "interrupted"), ends


def describe_home() -> dict:
    """What 0.1.0 says of its home."""
    import mlflow
    from hpsearch.data.store import PatchStore

    uri = f"sqlite:///{HOME / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri, uri)
    patches = np.array(PatchStore.open(HOME / "data" / "points.arrow").noisy[:2, 0])
    models = {}
    for version in sorted(
        client.search_model_versions(f"name = '{MODEL}'"), key=lambda v: v.version
    ):
        model = mlflow.pyfunc.load_model(f"models:/{MODEL}/{version.version}")
        models[version.version] = {
            "tags": dict(version.tags),
            "descriptors": model.predict(patches).tolist(),
        }
    return {
        "place": str(HOME),
        "machine": machine_digest(),
        "champion": client.get_model_version_by_alias(MODEL, "champion").version,
        "models": models,
        "studies": {name: study(name) for name in ("finished", "stopped")},
        "spaces": {path.stem: space(path) for path in sorted(FOLDER.glob("spaces-0.1.0/*.py"))},
    }


def space(path: Path) -> dict:
    """The terms of a space file, and the first points that a random sampler draws of it."""
    import optuna

    from hpsearch.search.search import load_search

    search = load_search(path)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = []
    for _ in range(3):
        trial = study.ask()
        search.draw(trial)
        drawn.append(trial.params)
    return {"terms": [search.budget, search.report_every, search.total()], "drawn": drawn}


def study(name: str) -> list[dict]:
    """Trials as Optuna has them, in the order of their numbers, and a digest of their weights."""
    import optuna
    from hpsearch.search.journal import open_journal

    folder = HOME / "searches" / name
    loaded = optuna.load_study(study_name=name, storage=open_journal(folder / "study.journal"))
    return [
        {
            "state": trial.state.name,
            "params": trial.params,
            "value": trial.value,
            "reports": {str(step): value for step, value in trial.intermediate_values.items()},
            "outcome": trial.user_attrs.get("outcome"),
            "weights": weights(folder / "trials" / f"{trial.number:03d}" / "trial.pt"),
        }
        for trial in loaded.trials
    ]


def weights(checkpoint: Path) -> str | None:
    if not checkpoint.exists():
        return None
    state = torch.load(checkpoint, weights_only=True)
    return weights_digest(state["task"]["network"])


def strip() -> None:
    """Leave out what nothing reads, and what has never been written in the database."""
    for path in [*HOME.rglob("*.png"), *HOME.rglob("*.html")]:
        path.unlink()
    for folder in HOME.glob("searches/*/tune"):
        shutil.rmtree(folder)
    for checkpoint in HOME.glob("searches/*/trials/*"):
        if not str(checkpoint).endswith(KEPT):
            shutil.rmtree(checkpoint)
    with sqlite3.connect(HOME / "mlflow.db") as database:
        database.execute("VACUUM")


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main()
