"""How a result was made, in words: lines for a user, a paragraph with references for a paper."""

from __future__ import annotations

from typing import Any

_REFERENCES = {
    "u-net": "Ronneberger et al. 2015, U-Net: convolutional networks for biomedical image "
    "segmentation, doi:10.1007/978-3-319-24574-4_28",
    "u-net 3d": "Çiçek et al. 2016, 3D U-Net: learning dense volumetric segmentation from sparse "
    "annotation, doi:10.1007/978-3-319-46723-8_49",
    "u-net software": "Falk et al. 2019, U-Net: deep learning for cell counting, detection, and "
    "morphometry, doi:10.1038/s41592-018-0261-2",
    "torch": "Paszke et al. 2019, PyTorch: an imperative style, high-performance deep learning "
    "library, arXiv:1912.01703",
    "napari": "Sofroniew et al., napari: a multi-dimensional image viewer for Python, "
    "doi:10.5281/zenodo.3555620",
}
_VOLUMES = {
    "planes": "plane by plane",
    "joined": "plane by plane, and objects were joined through z where they overlap",
    "orthogonal": "on the planes across z, y and x, whose answers were averaged",
    "auto": "plane by plane or as volumes, as the model is built",
}


def explain(provenance: dict[str, Any]) -> list[str]:
    """Return how a result was made, as sentences; what is not recorded is left out."""
    settings = provenance.get("settings") or {}
    lines = [f"Model {_model(provenance)}."]
    image = provenance.get("image") or {}
    if image.get("name"):
        size = provenance.get("voxel_size_um")
        voxel = f", voxels of {' x '.join(f'{n:g}' for n in size)} um (z, y, x)" if size else ""
        level = f", level {image['level']}" if image.get("level") else ""
        lines.append(f"Image {image['name']}, axes {image.get('axes', '?')}{level}{voxel}.")
    chosen = {k: v for k, v in settings.items() if v is not None}
    if chosen:
        shown = ", ".join(f"{name} {_value(value)}" for name, value in sorted(chosen.items()))
        lines.append(f"Settings: {shown}.")
    if diameter := provenance.get("diameter_px"):
        scale = provenance.get("scale")
        lines.append(f"Objects of {diameter:.1f} pixels; the image was scaled by {scale or 1:.3g}.")
    where = provenance.get("device")
    if where:
        lines.append(f"Run on {where} with {provenance.get('precision', 'float32')}.")
    versions = provenance.get("versions") or {}
    if versions:
        shown = ", ".join(f"{name} {version}" for name, version in versions.items())
        lines.append(f"Versions: {shown}.")
    if provenance.get("objects") is not None:
        lines.append(f"It found {provenance['objects']} objects.")
    lines += [f"Remark: {remark}" for remark in provenance.get("remarks") or ()]
    return lines


def methods_paragraph(provenance: dict[str, Any], strokes: int = 0) -> str:
    """Return a paragraph on a result for the methods of a paper, with its references.

    Parameters
    ----------
    strokes
        Corrections by hand that were made since.
    """
    versions = provenance.get("versions") or {}
    three = len(str(provenance.get("object_axes", ""))) == 3
    with_volumes = three and provenance.get("volumes") not in ("joined", "orthogonal")
    network = "3D U-Net" if with_volumes else "U-Net"
    text = [
        f"Images were segmented with napari-unet {versions.get('napari-unet', '')} "
        f"(PyTorch {versions.get('torch', '?')}) by a {network} (model {_model(provenance)})."
    ]
    if provenance.get("diameter_px"):
        text.append(
            f"Images were rescaled by {provenance.get('scale') or 1:.3g}, for objects of "
            f"{provenance['diameter_px']:.1f} pixels in diameter."
        )
    volumes = provenance.get("volumes")
    if three and volumes in _VOLUMES and volumes != "auto":
        text.append(f"Stacks were processed {_VOLUMES[volumes]}.")
    settings = provenance.get("settings") or {}
    given = [
        f"{words} {settings[name]:g}"
        for name, words in (
            ("threshold", "a foreground threshold of"),
            ("merge", "a merging depth of"),
            ("min_size", "a minimum size in pixels of"),
        )
        if settings.get(name) is not None
    ]
    decoded = f" with {' and '.join(given)}" if given else ""
    text.append(f"Touching objects were divided by a watershed{decoded}.")
    if provenance.get("tracks") is not None:
        text.append("Objects were linked through time.")
    if strokes:
        text.append(f"Results were corrected by hand ({strokes} strokes).")
    names = ["u-net 3d" if with_volumes else "u-net", "u-net software", "torch", "napari"]
    references = "; ".join(_REFERENCES[name] for name in names)
    return f"{' '.join(text)}\nReferences: {references}."


def _model(provenance: dict[str, Any]) -> str:
    hashed = str(provenance.get("model_hash") or "")
    name = provenance.get("model", "unknown")
    return f"{name} (SHA-256 {hashed[:12]})" if hashed else str(name)


def _value(value: Any) -> str:
    return (
        {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )
