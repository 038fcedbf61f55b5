"""Learning adapters from labelled objects, on the view vectors that a collection keeps."""
