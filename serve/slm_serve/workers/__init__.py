"""Work that computes: off the event loop, batched across requests, behind queues of bounded length."""
