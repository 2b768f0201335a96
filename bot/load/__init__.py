"""The job of loading a deployment: scenario, plan, measures, thresholds, network shaping, report."""
