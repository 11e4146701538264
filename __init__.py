"""NEuRT: a transformer for neuronal activity recorded with calcium imaging."""
