"""The only speaker of pods: what a pod backend offers, and the backend whose pods are local processes."""
