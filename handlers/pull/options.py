"""What a pull is to hold: the options as they were said, kept beside the files they made."""

from __future__ import annotations

from typing import Literal

import msgspec

Layout = Literal["redbrick", "nnunet", "monai"]
Format = Literal["nifti", "png", "seg", "rtstruct"]


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Times are in ``timestamp`` form; both ends are included. ``format`` None is NIfTI, or what
    the lake holds where it has no NIfTI."""

    ground_truth: bool = False
    stage: str | None = None
    since: str | None = None  # of the last activity
    until: str | None = None
    label_since: str | None = None  # of a label's creation
    label_until: str | None = None
    with_files: bool = False
    dicom_to_nifti: bool = False
    format: Format | None = None
    layout: Layout = "redbrick"
    paths: Literal["name", "id"] = "name"
    channel: str = "image"  # what nnU-Net calls the images' one channel

    @property
    def only_truth(self) -> bool:
        """A training set is the ground truth unless a stage is named."""
        return self.ground_truth or (self.layout != "redbrick" and self.stage is None)

    @property
    def images(self) -> Literal["original", "nifti"] | None:
        if self.layout != "redbrick" or self.dicom_to_nifti:
            return "nifti"
        return "original" if self.with_files else None


def mistakes(options: Options) -> list[str]:
    """What cannot be meant, one sentence for each."""
    found = []
    for name, start, end in (
        ("--since and --until", options.since, options.until),
        ("--label-created-since and -until", options.label_since, options.label_until),
    ):
        if start and end and start > end:
            found.append(f"{name}: the beginning is after the end")
    if options.layout != "redbrick" and options.format not in (None, "nifti"):
        found.append(f"--layout {options.layout} is of NIfTI files: leave --format out")
    return found


def spoken(options: Options) -> str:
    """The options as a command line would have them."""
    words = []
    for name, value in msgspec.to_builtins(options).items():
        flag = "--" + name.replace("_", "-").replace("label-", "label-created-")
        words += [flag] if value is True else [flag, str(value)]
    return " ".join(words)
