"""JSON of requests and responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    FiniteFloat,
    Tag,
    field_validator,
    model_validator,
)

from mvretrieval.augmentation import ALPHA
from mvretrieval.service.jobs import JobState

MAX_ID_LENGTH = 4096
TermKind = Literal["mesh", "images", "text", "id", "vector"]
UpAxisName = Literal["+x", "-x", "+y", "-y", "+z", "-z"]
LabelValue = str | int | FiniteFloat | None
_MAX_NAMES = 100


def _check_names(value: Any) -> Any:
    """Refuse an object with too many names, before there is an error for each."""
    if isinstance(value, dict) and len(value) > _MAX_NAMES:
        raise ValueError(f"has {len(value):,} names, at most {_MAX_NAMES} allowed")
    return value


Labels = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=100)], LabelValue],
    Field(max_length=_MAX_NAMES),
    BeforeValidator(_check_names),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, value: Any) -> Any:
        return _check_names(value)


_FileName = Annotated[str, Field(min_length=1, max_length=255)]


class _Term(_Request):
    weight: float = Field(
        1.0,
        ge=-100,
        le=100,
        description="weight in a mixture; negative for what the object should not look like",
        json_schema_extra={"not": {"const": 0}},
    )

    @field_validator("weight")
    @classmethod
    def _check_weight(cls, weight: float) -> float:
        if weight == 0:
            raise ValueError("the weight is 0: leave the term out")
        return weight


class MeshTerm(_Term):
    """Term: a mesh."""

    mesh: _FileName = Field(description="name of an uploaded mesh file")


class ImagesTerm(_Term):
    """Term: images of one object."""

    images: list[_FileName] = Field(min_length=1, max_length=64, description="names of uploaded images")


class TextTerm(_Term):
    """Term: text."""

    text: str = Field(min_length=1, max_length=1000)


class IdTerm(_Term):
    """Term: an object of the collection."""

    id: str = Field(min_length=1, max_length=MAX_ID_LENGTH, description="id of the object")


class VectorTerm(_Term):
    """Term: an object vector."""

    vector: Annotated[list[float], FailFast()] = Field(min_length=1, max_length=65_536)


_KINDS = ("mesh", "images", "text", "id", "vector")


def _kind_of(term: Any) -> str | None:
    """Kind of a term, so that a validation error is about this kind only."""
    return next((kind for kind in _KINDS if kind in term), None) if isinstance(term, dict) else None


TermModel = Annotated[
    Annotated[MeshTerm, Tag("mesh")]
    | Annotated[ImagesTerm, Tag("images")]
    | Annotated[TextTerm, Tag("text")]
    | Annotated[IdTerm, Tag("id")]
    | Annotated[VectorTerm, Tag("vector")],
    Discriminator(
        _kind_of,
        custom_error_type="term",
        custom_error_message='a term has one of mesh, images, text, id and vector, such as {"id": "a.glb", "weight": 1}',
    ),
]


class SearchRequest(_Request):
    """A query, with one term or a weighted mixture, and search options."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"terms": [{"id": "chairs/a.glb"}], "k": 10}]})

    terms: list[TermModel] = Field(min_length=1, max_length=16)
    k: int = Field(10, ge=1, description="maximum number of hits")
    where: str | None = Field(None, max_length=4000, description="filter, such as label = 'chair' and faces < 5000")
    min_confidence: float | None = Field(
        None, ge=0, le=1, description="leave out hits with a lower confidence; needs a calibrated collection"
    )
    expand: int = Field(0, ge=0, le=100, description="alpha query expansion with this many nearest objects")
    expand_alpha: float = Field(
        ALPHA, ge=0, le=100, description="power of the cosine that weighs the objects of the expansion"
    )
    rerank_views: int = Field(
        0, ge=0, le=1000, description="re-rank this many best hits by late interaction of their views with the query's"
    )
    rerank_weight: float = Field(0.5, ge=0, le=1, description="weight of late interaction in the score of these hits")
    nprobe: int | None = Field(None, ge=1, le=65_536, description="inverted lists to search, of an index that has them")
    ef_search: int | None = Field(None, ge=1, le=10_000, description="length of the candidate list in a graph index")
    include_query_views: bool = Field(False, description="return the query's terms with their views")
    up: UpAxisName | None = Field(None, description="up axis of mesh files; each format's convention by default")
    background: Literal["auto", "keep"] = Field("auto", description="auto turns a uniform image background white")


class BestView(BaseModel):
    """The view of an object that is most similar to the query."""

    view: int
    style: str
    azimuth_deg: float | None = None
    elevation_deg: float | None = None
    similarity: float
    query_view: int | None = Field(None, description="the most similar view of the query")


class HitModel(BaseModel):
    """One object that was found."""

    rank: int
    id: str
    score: float = Field(description="cosine with the query; with several terms the weighted sum of z-scored cosines")
    best_view: BestView
    view_weights: list[list[float]] = Field(description="weight of each view in the object vector, by style")
    metadata: dict[str, LabelValue]
    facts: dict[str, Any]
    parts: list[float] = Field(description="cosine with each term, where there are several")
    matches: list[float | None] | None = Field(None, description="late interaction with each term of re-ranked hits")
    confidence: float | None = Field(
        None, description="probability that the object belongs to the query's class; null without a calibration"
    )
    path: str | None = Field(None, description="of its file, if the service shows paths")


class QueryTermModel(BaseModel):
    """One term of the query, with its views."""

    label: str
    kind: TermKind
    weight: float
    views: list[str] = Field(description="views of a mesh or images, as data URLs (WebP); empty for other kinds")


class SearchResponse(BaseModel):
    """Hits, best first."""

    hits: list[HitModel]
    no_match: str = Field(description="message if objects were found, but none with the minimum confidence")
    query: list[QueryTermModel] = Field(description="one entry per term, if `include_query_views` is set")
    seconds: float


class ObjectModel(BaseModel):
    """One object of the collection."""

    id: str
    metadata: dict[str, LabelValue]
    facts: dict[str, Any]
    notes: list[str] = Field(description="what was left out while loading")
    content_hash: str = Field(description="of the mesh and its textures")
    path: str | None = Field(None, description="of its file, if the service shows paths")


class ObjectPage(BaseModel):
    """Some objects, in the order in which they were added."""

    objects: list[ObjectModel]
    next: int | None = Field(description="`after` of the next page; null on the last page")


class MetadataRequest(_Request):
    """Labels to set; null removes one."""

    metadata: Labels


class RemovedModel(BaseModel):
    """Number of objects that were removed."""

    removed: int


class FailureModel(BaseModel):
    """A file that could not be indexed."""

    file: str
    code: str
    message: str


class JobRequest(_Request):
    """Index one of the service's folders."""

    folder: str = Field(max_length=100, description="name of the folder, not its path")
    retry: bool = Field(False, description="try files again that failed before")
    prune: bool = Field(False, description="remove objects whose files no longer exist")
    up: UpAxisName | None = Field(None, description="up axis of mesh files; each format's convention by default")


class ReportModel(BaseModel):
    """Counts of one indexing run."""

    found: int = Field(description="mesh files in the folder")
    added: int
    replaced: int = Field(description="objects whose file changed")
    unchanged: int
    identical: int = Field(description="added objects with the content of another one, which were not rendered")
    moved: int = Field(description="objects whose file has another path now")
    gone: int = Field(description="objects whose file no longer exists")
    removed: int = Field(description="objects that were removed because their file no longer exists")
    failed: dict[str, int] = Field(description="files that could not be indexed, by code")
    failures: list[FailureModel]
    passed_over: dict[str, int] = Field({}, description="3D files and archives that no reader reads, by suffix")
    seconds: float


class JobModel(BaseModel):
    """A folder that is indexed in the background."""

    id: int
    folder: str
    state: JobState
    done: int = Field(description="files so far")
    total: int
    message: str = Field("", description="summary, or why the job failed")
    code: str = Field("", description="error code of a failed job")
    report: ReportModel | None = Field(None, description="counts, once the job is done")


class CollectionModel(BaseModel):
    """The collection and what can be done with it."""

    name: str
    objects: int
    failures: int
    encoder: str
    has_text: bool = Field(description="whether it can be searched with text")
    text_hint: str | None = Field(description="how to make it searchable with text, if it is not")
    has_encoder: bool = Field(
        description="whether it can be searched with images; without an encoder, queries are ids and vectors"
    )
    has_images: bool = Field(description="whether its objects have thumbnails; imported vectors have none")
    calibration: str | None = Field(description="meaning of the confidence of hits; null without a calibration")
    n_views: int
    styles: list[str]
    dim: int
    columns: list[str] = Field(description="labels and facts that a filter can use")
    formats: list[str] = Field(description="suffixes of mesh files that can be uploaded")
    folders: list[str] = Field(description="names of folders that a job can index")
    writable: bool
    version: str
