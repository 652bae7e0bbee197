"""CAMEL: number formats, reversible networks and an engine that trains."""
