"""The GraphQL documents that Groundwire sends to RedBrick, named as the vendor's SDK names them.

One query brings a task's state and its events, so that both are of one moment.
"""

from __future__ import annotations

_USER = "userId email givenName"

_LABELS = f"""
tdId
createdAt
createdByEntity {{ {_USER} }}
labelsData(interpolate: true)
labelsDataPath(presigned: false)
labelsStorage {{ storageId }}
labelsMap(presigned: false) {{ seriesIndex imageIndex labelName }}
"""

_SEAT = f"""
currentStageSubTask {{
    ... on LabelingTask {{ state assignedTo {{ {_USER} }} }}
}}
"""

_SEATS = f"""
currentStageSubTask(consensus: true) {{
    ... on LabelingTask {{
        state
        assignedTo {{ {_USER} }}
        taskData {{ {_LABELS} }}
        subTasks {{ state assignedTo {{ {_USER} }} taskData {{ {_LABELS} }} }}
        overallConsensusScore
        consensusInfo {{
            user {{ {_USER} }}
            taskData {{ {_LABELS} }}
            scores {{ user {{ {_USER} }} score }}
        }}
    }}
}}
"""

_DATAPOINT = f"""
name
items(presigned: false)
createdAt
createdByEntity {{ {_USER} }}
metaData
seriesInfo {{ name itemsIndices dataType metaData imageHeaders }}
heatMaps {{
    seriesIndex name item preset dataRange opacityPoints opacityPoints3d rgbPoints
}}
transforms {{ seriesIndex transform }}
centerline {{ seriesIndex name centerline }}
storageMethod {{ storageId }}
attributes
"""


def _events(user: str) -> str:
    """What happened to a task; of each person the fields ``user``."""
    return f"""
__typename
... on TaskEvent {{
    eventId
    createdAt
    updatedBy
    createEvent {{ currentStageName isGroundTruth }}
    inputEvent {{ currentStageName overallConsensusScore }}
    outputEvent {{ currentStageName outputBool nextStageName }}
    taskData {{ tdId createdBy }}
}}
... on Comment {{ commentId createdAt stageName createdBy {{ {user} }} }}
... on TaskStateChanges {{
    stageNameAfter: stageName
    createdAt
    updatedBy
    statusBefore
    statusAfter
    assignedToBeforeEntity {{ {user} }}
    assignedToAfterEntity {{ {user} }}
    consensusAssigneesBefore
    consensusAssigneesAfter
    consensusStatusesBefore
    consensusStatusesAfter
    reviewResultBefore
    reviewResultAfter
}}
"""


_ATTRIBUTE = "name attrType attrId options { name optionId color archived } archived parents"


def task(*, consensus: bool) -> str:
    """Everything of one task; the seats' own labels only where a project has a consensus."""
    return f"""
query taskSDK($orgId: UUID!, $projectId: UUID!, $taskId: UUID!) {{
    task(orgId: $orgId, projectId: $projectId, taskId: $taskId) {{
        taskId
        currentStageName
        priority
        {_SEATS if consensus else _SEAT}
        datapoint {{ {_DATAPOINT} }}
        latestTaskData {{ {_LABELS} }}
        genericEvents {{ {_events(_USER)} }}
    }}
}}
"""


_SAVED = "{ tdId createdAt }"

_SEATS_SAVED = f"""
currentStageSubTask(consensus: true) {{
    ... on LabelingTask {{
        taskData {_SAVED}
        subTasks {{ taskData {_SAVED} }}
        overallConsensusScore
        consensusInfo {{ taskData {_SAVED} }}
    }}
}}
"""


def page(*, consensus: bool) -> str:
    """A page of tasks with their times: no labels, no masks, nothing presigned."""
    return f"""
query tasksPagedSDK(
    $orgId: UUID!
    $projectId: UUID!
    $stageName: String
    $cacheTime: DateTime
    $first: Int
    $after: String
) {{
    tasksPaged(
        orgId: $orgId
        projectId: $projectId
        stageName: $stageName
        cacheTime: $cacheTime
        first: $first
        after: $after
    ) {{
        entries {{
            taskId
            currentStageName
            {_SEATS_SAVED if consensus else ""}
            datapoint {{ createdAt }}
            latestTaskData {_SAVED}
            genericEvents {{ {_events("userId")} }}
        }}
        cursor
        count
    }}
}}
"""


WHO_ASKS = "query currentUserSDK { me { userId } }"

PROJECT = f"""
query getProjectSDK($orgId: UUID!, $projectId: UUID!) {{
    project(orgId: $orgId, projectId: $projectId) {{
        projectId
        status
        consensusSettings {{ enabled }}
        stages {{ stageName brickName }}
        taxonomy {{
            name
            isNew
            taxId
            studyClassify {{ {_ATTRIBUTE} }}
            seriesClassify {{ {_ATTRIBUTE} }}
            instanceClassify {{ {_ATTRIBUTE} }}
            objectTypes {{
                category
                classId
                labelType
                attributes {{ {_ATTRIBUTE} }}
                color
                archived
                parents
            }}
        }}
    }}
}}
"""

PRESIGN = """
query presignItemsSDK($orgId: UUID!, $storageId: UUID!, $items: [String]!) {
    presignItems(orgId: $orgId, storageId: $storageId, items: $items)
}
"""
