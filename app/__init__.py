"""The composition root: settings, wiring, HTTP, workers and the command line. Only here are environment, HTTP and processes known."""
