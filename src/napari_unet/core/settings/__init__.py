"""Settings: plain data whose defaults, bounds, units and help texts stand once, on their fields.

The command line and the widgets are built from those fields.

fields      one field with its bounds, unit and help text, and the check of all fields of a settings
model_spec  what a network is built from
tasks       how a model is run, decoded, clicked with and trained, and how objects are linked
"""
