"""The compressed network: its layer, how a plan is carried out, merged, saved, loaded."""
