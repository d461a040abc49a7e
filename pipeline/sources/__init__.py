"""The sources of the data sets: what is published, downloads, checks and copies of local files."""
