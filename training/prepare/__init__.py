"""From records to arrays: clips, faces and features, prepared once and kept."""
