"""The only speaker of pods: what a pod backend offers, and two of them: Kubernetes, and processes of this machine."""
