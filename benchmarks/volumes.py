"""3D in three ways: a 2D model plane by plane, joined or orthogonal, and a native 3D network.

    python benchmarks/volumes.py DATA                # minutes on one core, see the options
    python benchmarks/volumes.py DATA --train 1136 --test 1135

DATA holds the folder `ovule_nuclei_3d`. Everything is trained on one of its volumes and measured
on the other. The other was not trained on; but the two limits by which planes are joined
(`core.volumes.stitch3d`) were tried out on both volumes, so the rows "joined" are not wholly blind.
The 2D model is `nuclei`, tuned on the planes of the volume; the 3D network starts from scratch, on
generated volumes first (unless `--generated 0`). Prints AP at IoU 0.5 and 0.75, the mean IoU of the
objects that were found (at IoU 0.5), and seconds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import tifffile
import torch
from lab.synthetic_volumes import make_volume

import napari_unet as nu
from napari_unet.core.instances.heads import get_head
from napari_unet.core.training.pairs import Labelled, samples_of
from napari_unet.nn.training.head_transfer import fresh_model, fresh_spec

FOLDER = "ovule_nuclei_3d"
GENERATED = 12
"""Generated volumes that a 3D network begins with."""


def read_volume(data: Path, name: str) -> Labelled:
    """Return a volume and its true labels."""
    stack = nu.open_stack(data / FOLDER / "images" / f"{name}.tif")
    return Labelled(name, stack, tifffile.imread(data / FOLDER / "labels" / f"{name}.tif"))


def trained(model: nu.Model, volumes: list[Labelled], minutes: float) -> nu.Model:
    """Train a model on volumes, in planes or whole, as it takes them."""
    spec = model.spec
    samples = samples_of(volumes, spec.ndim, spec.in_channels, get_head(spec))
    tuning = nu.Tuning(model, samples, nu.TrainSettings(minutes=minutes))
    for _ in tuning.steps():
        pass
    print(f"  {tuning.state.step} steps; {tuning.judgement}", flush=True)
    return tuning.best()


def generated_volumes(voxel: tuple[float, float, float]) -> list[Labelled]:
    """Return generated volumes with voxels as long in z, beside y and x, as those of the data."""
    ratio, volumes = voxel[0] / voxel[1], []
    for seed in range(GENERATED):
        scene = make_volume(seed, (48, 112, 112), anisotropy=ratio)
        stack = nu.open_stack(scene.image, "ZYX", voxel)
        volumes.append(Labelled(f"generated {seed}", stack, scene.labels))
    return volumes


def native_model(volume: Labelled, minutes: float, generated: float) -> nu.Model:
    """Train a 3D network from scratch, on generated volumes first if there is time for it."""
    voxel = volume.stack.voxel_size_um or (1.0, 1.0, 1.0)
    spec = fresh_spec(3, 1, width=8, voxel_size_um=voxel)
    print(f"  pooling {spec.pooling}, kernels {spec.kernels}")
    model = fresh_model(spec, device="cpu")
    if generated:
        model = trained(model, generated_volumes(voxel), generated)
    return trained(model, [volume], minutes)


def row(name: str, model: nu.Model, volume: Labelled, mode: str) -> None:
    """Segment a volume and print its scores."""
    began = time.perf_counter()
    labels = nu.segment(volume.stack, model, nu.PredictSettings(volumes=mode, certify=False))
    seconds = time.perf_counter() - began
    scores = nu.evaluate(labels, volume.labels, (0.5, 0.75))
    mean = float(scores.iou_sum[0] / max(1, scores.tp[0]))
    print(
        f"| {name} | {scores.objects} of {scores.true_objects} | {scores.ap[0]:.3f} | "
        f"{scores.ap[1]:.3f} | {mean:.3f} | {seconds:.1f} |",
        flush=True,
    )


def main() -> None:
    """Train, segment, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", default="1135")
    parser.add_argument("--test", default="1136")
    parser.add_argument("--planes", type=float, default=1.5, help="minutes of tuning `nuclei`")
    parser.add_argument("--native", type=float, default=2.5, help="minutes of the 3D network")
    parser.add_argument("--generated", type=float, default=2.0, help="minutes before that")
    parser.add_argument("--threads", type=int, default=1)
    values = parser.parse_args()
    torch.set_num_threads(values.threads)
    known, other = read_volume(values.data, values.train), read_volume(values.data, values.test)
    plain = nu.load_model("nuclei", "cpu")
    print(f"nuclei, tuned on the planes of {values.train} for {values.planes} min")
    tuned = trained(nu.load_model("nuclei", "cpu"), [known], values.planes)
    print(f"3D, {values.generated} min on generated volumes, {values.native} min on {values.train}")
    native = native_model(known, values.native, values.generated)
    print(f"| on {values.test} | objects | AP50 | AP75 | mean IoU | seconds |")
    print("|---|---|---|---|---|---|")
    for name, model in (("nuclei as shipped", plain), ("nuclei tuned", tuned)):
        for mode in ("planes", "joined", "orthogonal"):
            row(f"{name}, {mode}", model, other, mode)
    row("3D network", native, other, "auto")


if __name__ == "__main__":
    main()
