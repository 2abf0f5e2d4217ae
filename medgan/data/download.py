"""Fetching a Decathlon task, through MONAI's list of addresses and checksums."""

from __future__ import annotations

from pathlib import Path

from medgan.errors import InputFault


def fetch_decathlon(root: Path, task: str | None) -> Path:
    """Return the folder of ``task`` below ``root``, downloaded and unpacked there unless it exists.

    Raises:
        InputFault: the task is unknown, or the download failed.
    """
    if task and (root / task / "dataset.json").is_file():
        return root / task
    from monai.apps import DecathlonDataset, download_and_extract

    if task is None or task not in DecathlonDataset.resource:
        known = ", ".join(sorted(DecathlonDataset.resource))
        raise InputFault(root, "DOWNLOAD", f"data.decathlon_task {task!r} is not a task", f"choose one of {known}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        archive = root / f"{task}.tar"
        download_and_extract(DecathlonDataset.resource[task], archive, root, hash_val=DecathlonDataset.md5[task])
    except (OSError, RuntimeError, ValueError) as error:
        reason = f"{task} could not be fetched ({type(error).__name__}: {error})"
        raise InputFault(
            root, "DOWNLOAD", reason, "check the network, or fetch it by hand and set data.download to false"
        ) from error
    return root / task
