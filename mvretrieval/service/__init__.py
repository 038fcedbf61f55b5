"""REST service for one collection, with a web page to search it."""
