"""Models as .zip files, to be sent to other people: export and import.

Archives are not trusted: only a model's own files are extracted, under their plain names and up to
a size, whatever paths the archive gives them.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from napari_unet.core.errors import ModelError, OutputError
from napari_unet.core.io.files import UNREADABLE, atomic_file, expand_path
from napari_unet.core.models.folder import (
    CARD,
    LIMITS,
    WEIGHTS,
    model_folder,
    read_model,
    read_rehearsal,
    write_card,
)
from napari_unet.core.models.foreign_folder import check_is_ours
from napari_unet.core.models.store import (
    ModelEntry,
    find_model,
    get_free_folder,
    get_free_name,
    home,
    list_models,
)
from napari_unet.core.progress import Progress, run_to_end

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Generator, Iterator

MAX_COMPRESSION = 100
"""Maximum compression ratio of a large file: trained weights shrink by a tenth, an archive made to
fill the disk by a factor of a thousand."""

_CHUNK = 1 << 20


def import_model(source: str | os.PathLike[str], name: str | None = None) -> ModelEntry:
    """Do what `import_steps` does."""
    return run_to_end(import_steps(source, name))


def import_steps(
    source: str | os.PathLike[str], name: str | None = None, *, another_name: bool = False
) -> Generator[Progress, None, ModelEntry]:
    """Copy a model into the store from the .zip file that `export_model` wrote, or from a folder.

    Parameters
    ----------
    name
        Name in the store; None: the one on the card.
    another_name
        Whether a number is added to a name that is taken. A model that is there already, under
        whatever name, is then not written a second time: its entry is returned.

    Raises
    ------
    ModelError
        The source is no model, is damaged, or its name is taken.
    OutputError
        The store cannot be written.
    """
    source = expand_path(source)
    if name is not None:
        get_free_folder(name)
    with scratch_folder() as scratch:
        yield from unpack_model(source, scratch)
        yield Progress(0, 0, "checking the weights")
        try:
            card, _ = read_model(scratch)
            read_rehearsal(scratch)
        except ModelError as error:
            message = str(error).replace(str(scratch), str(source))
            raise ModelError(message) from error
        if another_name and (known := _same_model(card.hash)):
            return known
        name = card.name if name is None else name
        card = card.replace(name=get_free_name(name) if another_name else name)
        folder = get_free_folder(card.name)
        with model_folder(folder, new=True) as partial:
            for path in scratch.iterdir():
                path.rename(partial / path.name)
            write_card(partial, card)
    return ModelEntry(card.name, folder, bundled=False, card=card)


def _same_model(model_hash: str) -> ModelEntry | None:
    return next((e for e in list_models() if e.card and e.card.hash == model_hash), None)


def export_model(
    name_or_path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Path:
    """Do what `export_steps` does."""
    return run_to_end(export_steps(name_or_path, target, overwrite=overwrite))


def export_steps(
    name_or_path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Generator[Progress, None, Path]:
    """Write a model into one .zip file and return the file's path.

    Raises
    ------
    ModelError
        There is no such model, or it is damaged.
    OutputError
        The file exists already, or cannot be written.
    """
    target = expand_path(target)
    if target.suffix.lower() != ".zip":
        raise OutputError(f"{target} is no name for an exported model; let it end in .zip.")
    yield from pack_model(find_model(name_or_path), target, overwrite=overwrite)
    return target


def pack_model(
    folder: Path, target: Path, *, overwrite: bool = False
) -> Generator[Progress, None, None]:
    """Write a model folder's files into one .zip file, whole or not at all.

    Equal models give byte-identical archives.

    Raises
    ------
    ModelError
        The model is damaged.
    OutputError
        The file exists already, or cannot be written.
    """
    check_is_ours(folder)
    yield Progress(0, 0, "checking the weights")
    read_model(folder)
    read_rehearsal(folder)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; choose another name or delete it first.")
    with atomic_file(target) as partial, zipfile.ZipFile(partial, "x") as archive:
        for path in (folder / name for name in LIMITS):
            if path.is_file():
                yield Progress(0, 0, f"writing {path.name}")
                archive.writestr(_member(path.name), path.read_bytes())


def _member(name: str) -> zipfile.ZipInfo:
    """Return a member's description: equal on every system, and readable when unpacked by hand."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o644 << 16
    return info


def unpack_model(source: Path, folder: Path) -> Generator[Progress, None, None]:
    """Extract a model's files from a .zip file, or copy them from a folder, into an empty folder.

    Raises
    ------
    ModelError
        The source is no model: a file is missing, unknown, duplicate or too large.
    """
    try:
        if source.is_dir():
            yield from _copy_folder(source, folder)
        elif source.is_file() or not source.exists():
            yield from _extract(source, folder)
        else:  # a pipe would be read for ever
            raise ModelError(f"{source} is no file; give a model's folder or .zip file.")
    except (zipfile.BadZipFile, *UNREADABLE) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"No model can be imported from {source}: {reason}; give a model's folder or .zip file."
        ) from error


def _copy_folder(source: Path, folder: Path) -> Generator[Progress, None, None]:
    _check_complete(source, [name for name in LIMITS if (source / name).is_file()])
    for name, limit in LIMITS.items():
        if not (source / name).is_file():
            continue
        with (source / name).open("rb") as stream:
            yield from _copy(stream, folder / name, limit)


def _extract(source: Path, folder: Path) -> Generator[Progress, None, None]:
    with zipfile.ZipFile(source) as archive:
        for name, member in _members(archive, source).items():
            with archive.open(member) as stream:
                yield from _copy(stream, folder / name, LIMITS[name])


def _members(archive: zipfile.ZipFile, source: Path) -> dict[str, zipfile.ZipInfo]:
    """Find a model's files in an archive, at its top level or all in one folder."""
    found: dict[str, zipfile.ZipInfo] = {}
    parents = set()
    for info in archive.infolist():
        path = PurePosixPath(info.filename)
        # The file managers of macOS and Windows add files of their own to archives.
        junk = path.parts[:1] == ("__MACOSX",) or path.name in (".DS_Store", "desktop.ini")
        if info.is_dir() or junk:
            continue
        misplaced = len(path.parts) > 2 or ".." in path.parts or path.is_absolute()
        if misplaced or path.name not in LIMITS or path.name in found:
            raise ModelError(f"{source} is no model: it holds {info.filename!r:.80}.")
        _check_size(info, path.name, source)
        found[path.name] = info
        parents.add(path.parent)
    _check_complete(source, found)
    if len(parents) > 1:
        raise ModelError(f"{source} is no model: its files lie in different folders.")
    return found


def _check_complete(source: Path, names: Collection[str]) -> None:
    """Raise a ModelError if card or weights are missing."""
    if missing := [name for name in (CARD, WEIGHTS) if name not in names]:
        raise ModelError(f"{source} is no model: it lacks {' and '.join(missing)}.")


def _check_size(info: zipfile.ZipInfo, name: str, source: Path) -> None:
    """Raise a ModelError if a file is too large by its entry; more is never unpacked."""
    if info.file_size > LIMITS[name]:
        raise ModelError(_too_large(name, LIMITS[name]))
    if info.file_size > max(_CHUNK, MAX_COMPRESSION * info.compress_size):
        raise ModelError(
            f"{source} is no model: {name} unpacks to more than {MAX_COMPRESSION} times its size."
        )


def _too_large(name: str, limit: int) -> str:
    return f"{name} is larger than a model's may be ({limit:,} bytes)."


def _copy(stream: IO[bytes], target: Path, limit: int) -> Generator[Progress, None, None]:
    """Copy up to `limit` bytes; an archive may unpack to more than its entry tells."""
    with target.open("xb") as file:
        while chunk := stream.read(_CHUNK):
            if file.tell() + len(chunk) > limit:
                raise ModelError(_too_large(target.name, limit))
            file.write(chunk)
            yield Progress(0, 0, f"unpacking {target.name}")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create an empty folder in the store, deleted afterwards."""
    folder = home() / "models" / f".import-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        raise OutputError(f"The store {home()} cannot be written: {error.strerror}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
