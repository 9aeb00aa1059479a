"""The toy world: drawn people whose faces, actions and conversations are known exactly, as ordinary data sets."""
