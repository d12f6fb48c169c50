"""Samples from a trained generator and draws the samples at eight times the size; the samples are a store, too.

    python examples/sample_and_render.py --run runs/mnist --out samples

Without a run that is there it first trains a small one on ``--store``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import splatspace

SCALE = 8


def main() -> None:
    """Samples, prints what was made, and draws one sample as pixels and as ellipses."""
    parser = argparse.ArgumentParser(description="Samples from a run and renders at eight times the size.")
    parser.add_argument("--store", type=Path, default=Path("demo.zarr"), help="made of the built-in set where missing")
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="trained on the store where missing")
    parser.add_argument("--out", type=Path, default=Path("demo-samples"), help="a new folder")
    parser.add_argument("--model", default="splatdit")
    for name, value in {"steps": 1000, "batch": 32, "number": 16, "evaluations": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()

    if not options.run.exists():
        if not options.store.exists():
            splatspace.encode(splatspace.resolve_job("demo", options.store, limit=512, gaussians=48))
        job = splatspace.resolve_train_job(
            "splats", options.store, options.run, model=options.model, preset="tiny", steps=options.steps,
            batch=options.batch,
        )  # fmt: skip
        trained = splatspace.train(job, progress=lambda now: print(f"  {now.words}", end="\r"))
        print(f"\n{trained.model} with {trained.parameters:,} weights learned from {trained.images} images")

    run = splatspace.load_run(options.run)
    longer = max(run.spec.height, run.spec.width)
    job = splatspace.SampleJob(options.out, number=options.number, evaluations=options.evaluations, size=SCALE * longer)
    result = splatspace.sample(run, job)
    print(f"{len(result.pictures)} samples in {result.seconds:.1f} s: {options.out}/0000.png and so on, {result.grid}")
    for label, picture in zip(result.labels[:4], result.pictures, strict=False):
        print(f"  {picture.name}: class {run.labels.name(label) or label}")
    for note in result.notes:
        print(f"  {note}")

    # The samples are a store like any other: every command and SplatDataset read it.
    assert result.store is not None
    for ellipses, name in ((False, "drawn.png"), (True, "ellipses.png")):
        picture, _ = splatspace.render_image(result.store, "0", size=2 * SCALE * longer, ellipses=ellipses)
        picture.save(options.out / name)
        print(f"{options.out / name}: sample 0 with {picture.width} x {picture.height} pixels")
    with splatspace.open_store(result.store) as store:
        print(f"{store.path.name}: {len(store)} rows of {store.header.gaussians} Gaussians, {store.header.source.name}")


if __name__ == "__main__":
    main()
