"""ATOM itself against what is built on it; runs where a checkout is named."""
