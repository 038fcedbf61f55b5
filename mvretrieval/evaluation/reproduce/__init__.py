"""Published tables as data: rows with expected values, and the commands that reproduce them."""
