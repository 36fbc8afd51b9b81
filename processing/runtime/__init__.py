"""Where work runs and files go: processes, clusters, stores."""
