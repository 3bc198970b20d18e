"""Exports a project with the vendor's own Python SDK and prints what it got, as JSON.

Run with the interpreter that has the SDK: URL, API KEY, PROJECT ID, and any data row ids to
narrow the export to.
"""

import json
import sys

import labelbox

DETAILS = (
    "attachments",
    "metadata_fields",
    "data_row_details",
    "project_details",
    "label_details",
    "performance_details",
)


def main(url: str, api_key: str, project_id: str, *row_ids: str) -> None:
    client = labelbox.Client(
        api_key=api_key, endpoint=f"{url}/graphql", rest_endpoint=f"{url}/api/v1"
    )
    project = client.get_project(project_id)
    filters: dict[str, object] = {
        "last_activity_at": ["2000-01-01 00:00:00", "2050-01-01 00:00:00"]
    }
    if row_ids:
        filters["data_row_ids"] = list(row_ids)
    task = project.export(params=dict.fromkeys(DETAILS, True), filters=filters)
    task.wait_till_done()
    rows = [one.json for one in task.get_buffered_stream()] if task.has_result() else []
    masks = [_mask(client, url) for row in rows for url in _mask_urls(row)]
    answer = {"project": project.name, "errors": task.has_errors(), "rows": rows, "masks": masks}
    sys.stdout.write(json.dumps(answer))


def _mask_urls(value: object) -> list[str]:
    if isinstance(value, list):
        return [url for one in value for url in _mask_urls(one)]
    if not isinstance(value, dict):
        return []
    here = [value["mask"]["url"]] if "mask" in value else []
    return here + [url for one in value.values() for url in _mask_urls(one)]


def _mask(client: labelbox.Client, url: str) -> str:
    answer = client.connection.get(url)
    answer.raise_for_status()
    return answer.content.hex()


if __name__ == "__main__":
    main(*sys.argv[1:])
