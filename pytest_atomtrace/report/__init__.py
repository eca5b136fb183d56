"""Judgements become words: one document, many writers; nothing computes in a writer."""
