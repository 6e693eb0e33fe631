"""What requests to the native API hold."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from aiassist.protocol.messages import from_path

#: Largest mask that is taken, in bytes as it travels.
MASK_BYTES = 64 * 2**20

Study = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="`Volume.study_id`: a hash of voxels and geometry")]
StudyId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="Id of a study whose voxels are here")]
Version = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="Version of a mask: a hash of its voxels")]
JobId = Annotated[
    str, Query(pattern="^[0-9a-zA-Z_-]{1,64}$", description="Chosen by the client; the same id is the same job")
]
JobPart = Annotated[str, Path(pattern="^[0-9a-zA-Z_-]{1,64}$")]
Structure = Annotated[
    str,
    Path(
        min_length=1,
        max_length=200,
        description="Its name; in an address a slash in it is written `%252F`, a percent sign `%2525`, and "
        "each dot of the names `.` and `..` `%252E`",
    ),
    AfterValidator(from_path),
]
Number = Annotated[int, Path(ge=1, le=10**9)]
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]
Point = Annotated[list[Finite], Field(min_length=3, max_length=3, description="Continuous voxel index [i, j, k]")]
Points = Annotated[list[Point], Field(max_length=2000)]
Place = Annotated[list[Finite], Field(min_length=2, max_length=2, description="[x, y] in pixels of the slice")]


class Strict(BaseModel):
    """A body in which nothing unknown is ignored."""

    model_config = ConfigDict(extra="forbid")


class ScribbleBody(Strict):
    """A stroke of a brush."""

    points: Points
    positive: bool = True


class PromptsBody(Strict):
    """What a person said of one structure."""

    points: Points | None = Field(None, description="Extreme points; six are best")
    positive: Points | None = None
    negative: Points | None = None
    line: Points | None = Field(None, description="Both ends of the longest diameter")
    box: Points | None = Field(None, description="Two opposite corners")
    scribbles: list[ScribbleBody] | None = Field(None, max_length=100)


class AnnotateBody(Strict):
    """Ask for the mask of one structure."""

    study: StudyId
    prompts: PromptsBody
    base: Version | None = Field(None, description="The mask that the prompts correct")
    structure: str = Field("structure", min_length=1, max_length=200)
    model: str | None = Field(None, max_length=200, description="The default model when absent")
    client: str = Field("", max_length=200, description="Names a window; keeps windows apart")


class SegmentBody(Strict):
    """Ask an automatic model for all structures that it finds."""

    study: StudyId
    model: str = Field(min_length=1, max_length=200, description="A model of the kind automatic")
    client: str = Field("", max_length=200, description="Names a window; keeps windows apart")


class StudyBody(Strict):
    """All of a study but its voxels, which follow as bytes: C order (k, j, i), little-endian."""

    shape: list[Annotated[int, Field(ge=1, le=100_000)]] = Field(min_length=3, max_length=3, description="(k, j, i)")
    dtype: str = Field(max_length=16, examples=["int16"])
    affine: list[Annotated[list[Finite], Field(min_length=4, max_length=4)]] = Field(
        min_length=4, max_length=4, description="Maps (i, j, k, 1) to LPS mm"
    )


class ContourBody(Strict):
    """Pull the vertex nearest to `start` to `stop`."""

    study: StudyId
    base: Version
    axis: int = Field(0, ge=0, le=2, description="Of the array: 0 cuts across k, 1 across j, 2 across i")
    index: int = Field(ge=0, le=100_000)
    start: Place
    stop: Place
    radius: float = Field(20.0, ge=0, le=10_000, allow_inf_nan=False, description="mm along the outline")
    strength: float = Field(1.0, ge=0, le=1, allow_inf_nan=False)
    propagate: int = Field(0, ge=0, le=50, description="Slices on each side")


class SaveBody(Strict):
    """Save a known mask as a new version of a structure's ground truth."""

    mask: Version
    name: str | None = Field(None, max_length=200, description="Of the study, when it is new to the store")
    model: str | None = Field(None, max_length=200)
    model_version: str | None = Field(None, max_length=200)
    prompts: PromptsBody | None = None
    seconds: float | None = Field(None, ge=0, le=1e9, allow_inf_nan=False)
    edits: int | None = Field(None, ge=0, le=10**9)
    comment: str = Field("", max_length=10_000)
    state: Literal["draft", "submitted"] = "draft"
    author: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Whose label it is, where the server has no token file and so nobody but who started it; else 403 "
        "for any name but the token's",
    )
    parent: int | None = Field(
        None, ge=0, le=10**9, description="The version it was made from, 0 for the first; makes a retry harmless"
    )


class ReviewBody(Strict):
    """Approve or reject a version, which must be the newest."""

    state: Literal["approved", "rejected"]
    comment: str = Field("", max_length=10_000)
    author: str | None = Field(None, min_length=1, max_length=200, description="Who reviews; as of a save")


class NextBody(Strict):
    """Ask for the next study to do."""

    current: StudyId | None = Field(
        None, description="The study that is done with; the list begins anew after the last"
    )


class Failure(BaseModel):
    """Why something was not done."""

    error: str = Field(description="Kind of error, such as UnknownStudyError")
    message: str = Field(description="One sentence for the person")
