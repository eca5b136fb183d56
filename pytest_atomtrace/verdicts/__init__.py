"""Numbers become judgements: the public Trace, its checks, and what they record."""
