"""One reader for each format: from the bytes of a file to placed parts with colours and textures."""
