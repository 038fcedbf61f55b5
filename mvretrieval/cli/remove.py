"""Remove objects from a collection. Their mesh files are not touched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from mvretrieval.api import Collection
from mvretrieval.console import print_json
from mvretrieval.errors import CollectionError


@dataclass(frozen=True)
class Options:
    """Options of `mvr remove`.

    Attributes:
        collection: folder of the collection.
        ids: objects to remove.
        where: also remove the objects that match this filter.
        json: print one JSON object: the ids of the removed objects, and how many are left.
    """

    collection: tyro.conf.Positional[Path]
    ids: tyro.conf.Positional[tuple[str, ...]] = ()
    where: str | None = None
    json: bool = False


def run(options: Options) -> int:
    """Remove objects and print how many."""
    if not options.ids and not options.where:
        raise CollectionError("nothing to remove: give ids, or --where", code="nothing_to_remove")
    with Collection.open(options.collection, write=True) as collection:
        for object_id in options.ids:
            collection.session.row_id_of(object_id)
        ids = list(options.ids)
        if options.where:
            row_ids = collection.session.store.select(options.where).tolist()
            ids += [record.id for record in collection.session.store.records(row_ids).values()]
        removed = list(dict.fromkeys(ids))
        count = collection.remove(*removed)
        if options.json:
            print_json({"removed": removed, "objects": len(collection)})
        else:
            print(f"removed {count}, {len(collection)} left")
    return 0
