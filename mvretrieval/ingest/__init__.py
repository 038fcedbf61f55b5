"""From files to stored objects: scanning, rendering, encoding, re-embedding."""
