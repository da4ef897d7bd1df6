"""Photos: a folder → people and split → decoded, cropped pixels in a cache. Start reading at ``dataset``."""
