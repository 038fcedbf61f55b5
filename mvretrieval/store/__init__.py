"""The store: one SQLite file with all objects of a collection, and the SQL over it."""
