"""The benchmark: the engine on real services, each figure beside its limit on the same machine in the same run."""
