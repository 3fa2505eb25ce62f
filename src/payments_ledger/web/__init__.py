"""HTTP: the server and its limits, requests read exactly, problems, pages."""
