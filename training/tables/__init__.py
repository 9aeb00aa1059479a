"""The papers' tables as plans: lists of runs that are trained, evaluated and printed beside the paper's figures."""
