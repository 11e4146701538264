"""Groups of animals: cross-validation by animal, with baselines, p-values and checks on the same folds."""
