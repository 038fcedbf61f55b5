"""The store: one SQLite file that holds every object, and the queries over it."""
