"""The same on a Ray cluster: a service of many replicas by Ray Serve, and a large file of texts by Ray Data."""
