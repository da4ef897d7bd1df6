"""The body: dlib's face network, which was trained on millions of faces, read from the package that brings it."""
