"""RedBrick's own SDK merging a mask of instances into one of classes, whenever it is told to.

Run by a Python that has ``redbrick-sdk``, which ours has not: ``python vendor_merge.py SOURCE
TARGET LABELS``, where LABELS is JSON in RedBrick's own form. For each line of its input it answers
with the seconds that the merge took in memory, and from file to file.
"""

import json
import logging
import os
import shutil
import sys
import time

os.environ["REDBRICK_DISABLE_VERSION_CHECK"] = "1"
os.environ["REDBRICK_SDK_LOG_LEVEL"] = str(logging.ERROR)


def main(source: str, target: str, labels_text: str) -> None:
    import numpy
    from redbrick.utils.nifti import merge_instances, process_download
    from redbrick.utils.nifti_io import NiftiIO

    labels = json.loads(labels_text)
    voxels = NiftiIO(source).data
    merged = {(label["dicom"]["instanceid"],): label["classid"] + 1 for label in labels}
    for _ in sys.stdin:
        began = time.perf_counter()
        merge_instances(voxels, numpy.zeros(voxels.size, numpy.uint8), merged)
        in_memory = time.perf_counter() - began
        shutil.copy(source, target)
        began = time.perf_counter()
        process_download(labels, target, False, {}, True, False, False, None)
        in_files = time.perf_counter() - began
        sys.stdout.write(f"seconds {in_memory} {in_files}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
