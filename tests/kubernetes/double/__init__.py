"""An API server of our own for tests: what real ones do, as far as the product relies on it, on a real socket.

It is spoken to by the official client, and held to the same contract tests as a real cluster. ``objects`` keeps the
state, ``admission`` says what may be created, ``access`` what a token may do, ``server`` speaks HTTP, and ``machinery``
plays scheduler, kubelet and controllers in a thread of its own. Its pods are nothing, or real processes.
"""
