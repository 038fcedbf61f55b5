"""Examples that `--help` shows. A test parses each of them."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "index": (
        "mvr index things/ ~/my-meshes",
        "mvr index things/ ~/my-meshes --labels labels.csv --styles texture,clay --whiten 256",
        "mvr index scans/ --view-manifest views.csv --encoder builtin:",
    ),
    "import": (
        "mvr import things/ vectors.npz",
        "mvr import things/ vectors.parquet --index hnsw",
        "mvr import photos/ clip.npz --encoder open_clip:ViT-B-32/laion2b_s34b_b79k",
    ),
    "search": (
        "mvr search things/ --mesh chair.glb -k 5",
        "mvr search things/ --image front.jpg --image side.jpg --where \"label = 'chair'\" --json",
        "mvr search things/ --mesh chair.glb --text wooden --minus-text armrests --html hits.html",
    ),
    "render": (
        "mvr render chair.glb --out views/",
        "mvr render ~/my-meshes --out views/ --rig dodecahedron --styles clay,depth --size 448",
    ),
    "train": (
        "mvr train things/ --out adapter/ --by label",
        "mvr train things/ --out adapter/ --by label --where \"split = 'train'\" --shots 8",
        "mvr reindex things/ --adapter adapter/",
    ),
    "tune": (
        "mvr tune things/ --out tuned/ --by label",
        "mvr tune ~/my-meshes --out tuned/ --labels labels.csv --encoder open_clip:ViT-B-32/laion2b_s34b_b79k",
        "mvr reindex things/ --encoder tuned:tuned/",
    ),
    "eval": (
        "mvr eval things/ --by label",
        "mvr eval things/ --protocol open-set --queries-per-class 5 --metrics os3dor",
        "mvr eval things/ --compare other-things/ --report report/",
    ),
    "eval zero-shot": (
        "mvr eval zero-shot things/ --by label",
        "mvr eval zero-shot things/ --by label --templates renders --per-class",
    ),
    "eval text-to-3d": (
        "mvr eval text-to-3d things/ --by label",
        "mvr eval text-to-3d things/ --captions captions.csv --json",
    ),
    "eval image-to-3d": (
        "mvr eval image-to-3d things/ --queries photos.csv",
        "mvr eval image-to-3d things/ --queries photos.csv --background keep --json",
    ),
    "reproduce": (
        "mvr reproduce --list",
        "mvr reproduce open-set --collections collections/",
    ),
    "reindex": (
        "mvr reindex things/ --whiten 256 --fit-where \"split = 'train'\"",
        "mvr reindex things/ --adapter adapter/",
        "mvr reindex things/ --dba 5",
    ),
    "calibrate": (
        "mvr calibrate things/ --by label",
        "mvr calibrate things/ --by label --where \"split = 'train'\"",
        "mvr calibrate things/ --remove",
    ),
    "serve": (
        "mvr serve things/",
        "MVR_TOKEN=secret mvr serve things/ --host 0.0.0.0 --auth --folder parts=/data/parts",
    ),
    "export": (
        "mvr export things/ --faiss things.faiss",
        "mvr export things/ --faiss chairs.faiss --index HNSW32 --where \"label = 'chair'\"",
    ),
    "copy": ("mvr copy things/ backups/monday", "mvr copy things/ /srv/second/things --json"),
    "check": ("mvr check things/", "mvr check things/ --repair"),
    "remove": (
        "mvr remove things/ chair.glb sofa.glb",
        "mvr remove things/ --where \"split = 'test'\"",
    ),
    "info": (
        "mvr info things/",
        "mvr info things/ --failures",
        "mvr info things/ --json",
    ),
    "doctor": (
        "mvr doctor",
        "mvr doctor --json",
    ),
    "demo": (
        "mvr demo",
        "mvr demo --out my-demo --meshes ~/my-meshes -k 5",
    ),
}
