"""A REST service over one collection, and the web page that asks it."""
