"""RedBrick's own SDK as a process that exports a project whenever it is told to.

Run by a Python that has ``redbrick-sdk``, which ours has not: ``python vendor_export.py URL API_KEY
ORG_ID PROJECT_ID DESTINATION``. Each line of its input is ``{"tasks": [...], "since": null or
seconds}``; the tasks do not matter to it. It answers with the seconds that the export took.
"""

import json
import logging
import os
import sys
import time

os.environ["REDBRICK_DISABLE_VERSION_CHECK"] = "1"
os.environ["REDBRICK_SDK_LOG_LEVEL"] = str(logging.ERROR)


def main(url: str, api_key: str, org_id: str, project_id: str, destination: str) -> None:
    import redbrick

    project = redbrick.get_project(org_id, project_id, api_key, url)
    for line in sys.stdin:
        since = json.loads(line)["since"]
        began = time.perf_counter()
        list(
            project.export.export_tasks(
                binary_mask=False, destination=destination, from_timestamp=since
            )
        )
        sys.stdout.write(f"\nseconds {time.perf_counter() - began}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
