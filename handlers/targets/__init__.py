"""What retraining starts: one module for each kind of target.

A target is a class with plain arguments and one verb, ``fire`` (see `trigger.Target`); what makes
one from the settings is ``consumer.app_targets``.
"""
