"""Speed of the trace engine beside other readers, and what the plugin costs to load."""
