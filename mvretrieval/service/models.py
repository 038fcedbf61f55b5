"""What requests and answers look like."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, Tag, field_validator

from mvretrieval.service.jobs import JobState

MAX_ID = 4096
LabelValue = str | int | FiniteFloat | None
Labels = Annotated[dict[Annotated[str, Field(min_length=1, max_length=100)], LabelValue], Field(max_length=100)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


_FileName = Annotated[str, Field(min_length=1, max_length=255)]


class _Term(_Request):
    weight: float = Field(
        1.0,
        ge=-100,
        le=100,
        description="share in a mixture; negative for what it should not be like",
        json_schema_extra={"not": {"const": 0}},
    )

    @field_validator("weight")
    @classmethod
    def _counts(cls, weight: float) -> float:
        if weight == 0:
            raise ValueError("a term without weight is left out")
        return weight


class MeshTerm(_Term):
    """A mesh as a source of a question."""

    mesh: _FileName = Field(description="name of an uploaded mesh file")


class ImagesTerm(_Term):
    """Pictures of one object as a source of a question."""

    images: list[_FileName] = Field(min_length=1, max_length=64, description="names of uploaded pictures")


class TextTerm(_Term):
    """Words as a source of a question."""

    text: str = Field(min_length=1, max_length=1000)


class IdTerm(_Term):
    """A known object as a source of a question."""

    id: str = Field(min_length=1, max_length=MAX_ID, description="an object of the collection")


class VectorTerm(_Term):
    """An object vector from elsewhere as a source of a question."""

    vector: list[float] = Field(min_length=1, max_length=65_536)


_KINDS = ("mesh", "images", "text", "id", "vector")


def _kind_of(term: Any) -> str | None:
    """So that an error tells of the kind that was meant, and not of all five."""
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
        custom_error_message='a term is such as {"id": "a.glb", "weight": 1}, with one of mesh, images, text, id and vector',
    ),
]


class SearchRequest(_Request):
    """A question: one source, or a weighted mixture with minus terms."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"terms": [{"id": "chairs/a.glb"}], "k": 10}]})

    terms: list[TermModel] = Field(min_length=1, max_length=16)
    k: int = Field(10, ge=1, description="how many answers at most")
    where: str | None = Field(None, max_length=4000, description="filter, such as label = 'chair' and faces < 5000")
    min_confidence: float | None = Field(
        None, ge=0, le=1, description="leave out hits that are less sure; see `calibrated`"
    )
    expand: int = Field(0, ge=0, le=100, description="average the question with so many nearest objects, and ask again")
    match_views: int = Field(
        0, ge=0, le=1000, description="compare so many best answers with the question view by view"
    )
    match_weight: float = Field(0.5, ge=0, le=1, description="share of the views in the score of these")
    show_question: bool = Field(False, description="answer with pictures of what was asked as well")
    up: Literal["+x", "-x", "+y", "-y", "+z", "-z"] | None = Field(None, description="axis that is up in mesh files")
    background: Literal["auto", "keep"] = Field("auto", description="auto makes a plain background of a picture white")


class BestView(BaseModel):
    """The view of an object that matches a question best."""

    view: int
    style: str
    azimuth_deg: float | None = None
    elevation_deg: float | None = None
    similarity: float
    query_view: int | None = Field(None, description="view of the question that it is most like")


class HitModel(BaseModel):
    """One answer."""

    rank: int
    id: str
    score: float = Field(description="cosine with the question; of a mixture, the weighted sum of standardised cosines")
    best_view: BestView
    view_weights: list[list[float]] = Field(description="share of each view in the object's vector, by style")
    metadata: dict[str, LabelValue]
    facts: dict[str, Any]
    parts: list[float] = Field(description="cosine of each source of a mixture")
    matches: list[float | None] | None = None
    confidence: float | None = Field(
        None, description="probability to be of the question's kind, where the collection can tell"
    )
    path: str | None = Field(None, description="of its file, where the service tells")


class SourceModel(BaseModel):
    """What one source of the question looked like."""

    label: str
    kind: Literal["mesh", "images", "text", "id", "vector"]
    weight: float
    views: list[str] = Field(
        description="its views or pictures, as data addresses of WebP pictures; empty for the others"
    )


class SearchAnswer(BaseModel):
    """Answers, best first."""

    hits: list[HitModel]
    nothing: str = Field(description="what to say where no hit was sure enough, though some were found")
    question: list[SourceModel] = Field(description="one for each term, where `show_question` was asked for")
    seconds: float


class ObjectModel(BaseModel):
    """One object of the collection."""

    id: str
    metadata: dict[str, LabelValue]
    facts: dict[str, Any]
    notes: list[str] = Field(description="what was left out while loading")
    path: str | None = None


class ObjectPage(BaseModel):
    """Some objects, in the order in which they were added."""

    objects: list[ObjectModel]
    next: int | None = Field(description="`after` of the next page; null at the end")


class MetadataRequest(_Request):
    """Labels to set; null takes one away."""

    metadata: Labels


class Removed(BaseModel):
    """How many objects were removed."""

    removed: int


class FailureModel(BaseModel):
    """A file that could not be indexed."""

    file: str
    code: str
    message: str


class JobRequest(_Request):
    """Index a folder of those that the service was started with."""

    folder: str = Field(max_length=100, description="its name, not its path")
    retry: bool = Field(False, description="also files that failed before")
    prune: bool = Field(False, description="also remove objects whose files are gone")


class JobModel(BaseModel):
    """Work that goes on by itself."""

    number: int
    folder: str
    state: JobState
    done: int = Field(description="files so far")
    total: int
    message: str = Field("", description="what came of it")


class CollectionModel(BaseModel):
    """What is served."""

    name: str
    objects: int
    failures: int
    encoder: str
    reads_words: bool = Field(description="whether it can be asked with words")
    words_hint: str | None = Field(description="how to get there, where it cannot")
    calibrated: str | None = Field(description="what the confidence of hits means; null where they carry none")
    n_views: int
    styles: list[str]
    dim: int
    columns: list[str] = Field(description="what a filter may name")
    formats: list[str] = Field(description="suffixes of mesh files that can be uploaded")
    folders: list[str] = Field(description="what a job may index")
    writable: bool
    version: str
