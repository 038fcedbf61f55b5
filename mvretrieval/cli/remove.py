"""Take objects out of a collection. Their files stay where they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from mvretrieval.api import Collection
from mvretrieval.errors import CollectionError


@dataclass(frozen=True)
class Options:
    """Options of `mvr remove`.

    Attributes:
        collection: folder of the collection.
        ids: objects to remove.
        where: also remove the objects that a filter keeps.
    """

    collection: tyro.conf.Positional[Path]
    ids: tyro.conf.Positional[tuple[str, ...]] = ()
    where: str | None = None


def run(options: Options) -> int:
    """Remove and tell how many."""
    if not options.ids and not options.where:
        raise CollectionError("nothing to remove: name ids, or objects by --where")
    with Collection.open(options.collection, write=True) as collection:
        for object_id in options.ids:
            collection.row_id_of(object_id)
        ids = list(options.ids)
        if options.where:
            numbers = [int(n) for n in collection.store.select(options.where)]
            ids += [record.id for record in collection.store.records(numbers).values()]
        count = collection.remove(*dict.fromkeys(ids))
        print(f"removed {count}, {len(collection)} left")
    return 0
